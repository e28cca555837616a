"""Samples taken by their places in a batch or a queue, and batches asked for their size, also in earlier functions."""

from __future__ import annotations

import pytest

from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Declined, Proposal

DATA = "ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)\n"
TRAIN = "    model.train_on_batch({})\n"


def answer(source, *earlier, line=None, **known):
    facts = Facts(models=(ModelFacts("model"),), earlier_cells=("x, y = load()", *earlier), **known)
    return ask(source, facts, line=line)


def refused(found, reason):
    assert isinstance(found, Declined), found.diff
    assert reason in found.reason


EMPTY = [
    "for a, b in ds:\n    one, two = a[:32], a[32:]\n" + TRAIN.format("mix(one, two, a), b"),
    "for i, (a, b) in enumerate(ds):\n    rest = b[40:]\n" + TRAIN.format("a, pad(rest)"),
    "for a, b in ds.prefetch(1):\n    rest = a[40:60, :, 0]\n" + TRAIN.format("join(rest, a), b"),
    "def both(part):\n    return part[:32] + part[32:]\n\nfor a, b in ds:\n" + TRAIN.format("a, both(part=b)"),
]
MOVES = [
    "queue = zeros(640)\nfor a, b in ds:\n    queue = concat([queue[64:], b])\n" + TRAIN.format("a, queue"),
    "bank = zeros(640)\nfor a, b in ds:\n    bank[:-64] = bank[64:]\n    bank[-64:] = b\n" + TRAIN.format("a, bank"),
    "for a, b in ds:\n    out = model(tf.concat([a, noise(a)], 0))\n    real = out[:64]\n" + TRAIN.format("a, real"),
    "for a, b in ds:\n    state.held = push(state.held[-576:], state.held[:64])\n" + TRAIN.format("a, state.held"),
]
STAYS = [
    "for a, b in ds:\n    half = a[: len(a) // 2]\n    show(a[:5])\n" + TRAIN.format("half, b"),
    "for a, b in ds:\n    left = a[:, :64]\n    right = a[:, 64:]\n" + TRAIN.format("[left, right], b"),
    "show(x[:64])\nfor a, b in ds:\n    look(x[64:128])\n" + TRAIN.format("a, b"),
    "for a, b in ds:\n    print(names[:64], a[:32])\n" + TRAIN.format("a, b"),
]


@pytest.mark.parametrize("loop", EMPTY)
def test_a_part_that_would_be_empty_stops_the_edit(loop):
    refused(answer(DATA + loop), "would be empty in a batch of 32")


@pytest.mark.parametrize("loop", MOVES)
def test_a_queue_that_moves_on_by_the_old_size_stops_the_edit(loop):
    refused(answer(DATA + loop), "counts on batches of 64, and would stay")


@pytest.mark.parametrize("loop", STAYS)
def test_what_is_no_part_of_a_batch_does_not(loop):
    found = answer(DATA + loop)
    assert isinstance(found, Proposal), found.reason


def test_a_part_in_a_function_of_an_earlier_cell_stops_it_too():
    split = "def halves(part):\n    return part[:32], part[32:]\n"
    refused(
        answer(DATA + "for a, b in ds:\n" + TRAIN.format("halves(a), b"), split), "in code of an earlier cell would be"
    )


ASKS = [
    "def full(part):\n    return part.shape[0] == {}\n",
    "def full(part, known=None):\n    if len(part) < {}:\n        return False\n    return True\n",
    "def inner(part):\n    return int(tf.shape(part)[0]) != {}\n\ndef full(part):\n    return not inner(part)\n",
]


@pytest.mark.parametrize("function", ASKS)
@pytest.mark.parametrize("size", ["64", "SIZE"])
def test_a_function_of_an_earlier_cell_that_asks_for_full_batches_would_find_none(function, size):
    loop = "for a, b in ds:\n    if full(a):\n    " + TRAIN.format("a, b")
    known = {"scalars": (ScalarFact("SIZE", 64),)}
    told = "code of an earlier cell asks whether a batch has 64 samples"
    refused(answer(DATA + loop, function.format(size), **known), told)
    other = answer(DATA + loop, function.format("2"), **known)
    assert isinstance(other, Proposal), other.reason
    follows = answer(DATA.replace("64", "SIZE") + loop, "SIZE = 64", function.format("SIZE"), **known)
    assert isinstance(follows, Proposal), follows.reason
    assert follows.source.startswith("SIZE = 32\n")


@pytest.mark.parametrize("test", ["len(a) != full", "a.shape[0] < full", "full > int(tf.shape(a)[0])"])
def test_a_name_that_stays_asks_for_them_too(test):
    loop = f"full = 64\n{DATA}for a, b in ds:\n    if {test}:\n        continue\n" + TRAIN.format("a, b")
    refused(answer(loop), "line 4 asks whether a batch has 64 samples")
