"""A name that says batch size: where it only counts steps, it is not what the batches go by."""

from __future__ import annotations

import pytest

from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import Declined, Proposal

STEP = "def step(a, b):\n    with tf.GradientTape() as tape:\n        loss = mse(b, model(a))\n    update(tape, loss)\n"
GIVEN = ("BATCH = 64\nEPOCHS = 300", "feed = open_records(BATCH)", STEP)
RUN = """def run(data, epochs, size):
    for epoch in range(round(epochs // size)):
        for a, b in data:
            step(a, b)
        print(f"{epoch * size} of {epochs}")
"""
COUNTS = [
    ("for epoch in range(EPOCHS // BATCH):\n    for a, b in feed:\n        step(a, b)\n", 3, ()),
    (RUN + "run(feed, EPOCHS, BATCH)\n", 6, ()),
    ("run(feed, EPOCHS, size=BATCH)\n", 1, (RUN,)),
    ("steps = math.ceil(10000 / BATCH)\nprint('steps', steps, BATCH)\nfor a, b in feed:\n    step(a, b)\n", 4, ()),
]
MAKES = [
    (
        "feed = open_records(batch_size=BATCH)\nfor epoch in range(EPOCHS // BATCH):\n    a, b = feed.draw(batch_size=BATCH)\n    step(a, b)\n",
        3,
        (),
    ),
    ("for epoch in range(EPOCHS // BATCH):\n    a, b = draw(feed, batch_size=BATCH)\n    step(a, b)\n", 2, ()),
    (
        "for turn in range(EPOCHS // BATCH):\n    picked = np.random.choice(n, BATCH)\n    step(x[picked], y[picked])\n",
        3,
        (),
    ),
]


def answer(source, line, *earlier, **known):
    scalars = (ScalarFact("BATCH", 64), ScalarFact("EPOCHS", 300))
    texts = (*GIVEN, *earlier)
    facts = Facts(
        "2.21.0", "3.15.1", True, models=(ModelFacts("model"),), scalars=scalars, earlier_cells=texts, **known
    )
    return ask(source, facts, line=line)


@pytest.mark.parametrize(("source", "line", "earlier"), COUNTS)
def test_a_name_that_only_counts_steps_is_not_set(source, line, earlier):
    found = answer(source, line, *earlier)
    assert isinstance(found, Declined), found.diff


@pytest.mark.parametrize(("source", "line", "earlier"), COUNTS[1:3])
def test_it_says_that_the_name_only_counts(source, line, earlier):
    found = answer(source, line, *earlier)
    assert found.reason == "`BATCH` only counts here, and what makes the batches keeps its size"
    read = answer(source, line, *earlier, used=("BATCH",))
    assert "only counts" not in getattr(read, "reason", "")


@pytest.mark.parametrize(("source", "line", "earlier"), MAKES)
def test_a_name_that_draws_batches_too_is(source, line, earlier):
    found = answer(source, line, *earlier)
    assert isinstance(found, Proposal), found.reason
    assert found.source == "BATCH = 32\n" + source


CRITIC = """def fit(images, epochs=9, n_batch={size}, critics=5):
    turns = int(images.shape[0] / n_batch) * epochs
    for turn in {outer}:
        for again in range(critics):
            half = int(n_batch / 2)
            real = pick(images, half)
            critic.train_on_batch(real, ones)
        both.train_on_batch(np.random.normal(size=(n_batch, 8)), np.ones(n_batch))


def pick(images, many):
    chosen = np.random.randint(0, images.shape[0], many)
    return images[chosen]


fit(load(){given})
"""


@pytest.mark.parametrize(
    ("size", "given", "before", "after"),
    [("64", "", "n_batch=64", "n_batch=32"), ("None", ", n_batch=64", ", n_batch=64", ", n_batch=32")],
)
def test_turns_within_turns_that_grow_as_batches_shrink_are_not_said_to_stay(size, given, before, after):
    facts = Facts("2.21.0", "3.15.1", True, models=(ModelFacts("critic"), ModelFacts("both")))
    told = "takes as many steps as before"
    for outer, stays in (("range(turns)", False), ("range(1000)", True)):
        source = CRITIC.format(size=size, given=given, outer=outer)
        found = ask(source, facts, line=6)
        assert isinstance(found, Proposal), found.reason
        assert found.source == source.replace(before, after)
        assert any(told in one for one in found.caveats) is stays
