"""Means over the batches of a loop: the edited cell, run with smaller batches, tells what it told before."""

from __future__ import annotations

import pytest

from tests.notebook.batch.means.runs import ADDS, LOOK, TOLD, TRAIN, asked, changed, run, same
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch

VALIDATED = [
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\ntell(total / len(val))",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\ntotal /= len(val)\ntell(total)",
    "total = 0.0\nfor x, y in val:\n    total = total + mean_loss(x, y)\ntell(float(total) / n_val)",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y) / n_val\ntell(total)",
    "logs = {'loss': 0.0}\nfor x, y in val:\n    logs['loss'] += mean_loss(x, y)\ntell(logs['loss'] / len(val))",
    "losses = []\nfor x, y in val:\n    losses.append(mean_loss(x, y))\ntell(sum(losses) / len(val))",
    "losses = []\nfor x, y in val:\n    losses.append(mean_loss(x, y))\ntell(np.mean(losses))",
    "losses = []\nfor x, y in val:\n    losses.append(float(mean_loss(x, y)))\ntell(sum(losses) / len(losses))",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\ntell(np.divide(total, len(val)))",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\nmean = total.numpy() / n_val\ntell(mean)",
    "total, seen = 0.0, 0\nfor x, y in val:\n    total += mean_loss(x, y)\n    seen += 1\ntell(total / seen)",
    "total = 0.0\nfor i, (x, y) in enumerate(val):\n    total += mean_loss(x, y)\ntell(total / (i + 1))",
    "total, seen = 0.0, 0\nfor x, y in val:\n    total += sum_loss(x, y)\n    seen += len(y)\ntell(total / seen)",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y) * x.shape[0]\ntell(total / len(x_val))",
    "total = 0.0\nfor x, y in val:\n    loss = mean_loss(x, y)\n    total += loss * tf.shape(x)[0]\ntell(total / len(x_val))",
]


@pytest.mark.parametrize("after", VALIDATED)
@pytest.mark.parametrize("size", [64, 128])
def test_a_mean_of_the_validation_is_what_it_was(after, size):
    source, _ = same(TRAIN + after, "n_val = len(val)", batches={"train": 64, "val": size})
    assert "in val.rebatch(32)" in source or "enumerate(val.rebatch(32))" in source


@pytest.mark.parametrize("after", VALIDATED)
@pytest.mark.parametrize("size", [16, 32])
def test_validation_data_that_are_as_small_keep_their_batches_and_divisors(after, size):
    source, _ = same(TRAIN + after, "n_val = len(val)", batches={"train": 64, "val": size})
    assert source.endswith(after)


@pytest.mark.parametrize("size", [16, 64, 128])
@pytest.mark.parametrize(
    "means",
    [
        "total / len(train), vtotal / len(val)",
        "total / n, vtotal / n_val",
        "float(total) / n, vtotal.numpy() / len(val)",
    ],
)
def test_both_means_are_what_they_were_each_by_its_own_size(size, means):
    source = (
        "total = vtotal = Zero\nfor x, y in train:\n    total += step(x, y)\nfor x, y in val:\n"
        f"    vtotal += mean_loss(x, y)\ntold += [{means}]"
    ).replace("Zero", "0.0")
    if "vtotal.numpy" in means:
        source = source.replace("vtotal += mean_loss(x, y)", "vtotal = mean_loss(x, y) + vtotal")
    same(source, "n = len(train)\nn_val = len(val)", batches={"train": 64, "val": size}, batch=32)
    same(source, "n = len(train)\nn_val = len(val)", batches={"train": 64, "val": size}, batch=16)


def test_what_was_edited_of_means_is_told():
    _, notes = same("total = 0.0\nfor x, y in train:\n    total += step(x, y)\ntell(total / len(train))")
    assert f"{TOLD}line 4 grows with their number: the mean stays." in notes
    _, notes = same(f"{TRAIN}{VALIDATED[0]}")
    assert any(note.startswith(TOLD) for note in notes)
    _, notes = same(f"{TRAIN}{VALIDATED[0]}", batches={"train": 64, "val": 16})
    assert not any(note.startswith(TOLD) for note in notes)


UNSURE = [
    "total = 0.0\nfor x, y in val:\n    total += np.sqrt(tf.reduce_mean(x))\ntell(total / len(val))",
    "total = 0.0\nfor x, y in val:\n    total += math.exp(float(tf.reduce_mean(x)))\ntell(total / len(val))",
    "rs = []\nfor x, y in val:\n    rs.append(tf.sqrt(tf.reduce_mean(x * x)))\ntell(np.mean(rs))",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\ntell(total / 21)",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\ntell(total)",
    "total = 0.0\nfor x, y in val:\n    total += measure(x)\ntell(total / lots)",
    "total = 0.0\nfor x, y in val:\n    total = total + mean_loss(x, y)\ntell(total)",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\nif total < 999:\n    tell(total)",
    "logs = {'a': 0.0}\nfor x, y in val:\n    logs['a'] += mean_loss(x, y)\ntold += [v / 20 for v in logs.values()]",
    "losses = []\nfor x, y in val:\n    losses.append(mean_loss(x, y))\ntell(sum(losses) / lots)",
    "losses = []\nfor x, y in val:\n    losses.append(mean_loss(x, y))\ntell(sum(losses))",
    "losses = []\nfor x, y in val:\n    losses.append(len(x))\ntell(losses[0])",
    "for x, y in val:\n    last = len(x)\ntell(last)",
    "for x, y in val:\n    mean_loss(x, y)\ntell(len(x))",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\ntell(np.divide(total, lots))",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y)\ntotal /= lots\ntell(total)",
    "total = 0.0\nfor x, y in val:\n    total += mean_loss(x, y) / lots\ntell(total)",
    "seen = 0\nfor x, y in val:\n    mean_loss(x, y)\n    seen += 1\ntell(seen)",
    "for i, (x, y) in enumerate(val):\n    mean_loss(x, y)\ntell(i)",
    "total = 0.0\nfor x, y in val:\n    total += measure(x)\nseen = 20 * batch_size\ntell(total / (lots * 64))",
]


@pytest.mark.parametrize("after", UNSURE)
def test_a_loop_that_validates_keeps_its_batches_where_it_would_tell_something_else(after):
    source, notes = changed(TRAIN + after, "lots = 20 if told is None else 20")
    assert source.endswith(after)
    assert not any("trains nothing" in note for note in notes)


@pytest.mark.parametrize(
    "after",
    ["tell(total)", "tell(total / lots)", "total /= lots\ntell(total)", "if total < 9:\n    tell(1)"],
)
def test_a_sum_that_cannot_be_told_is_said(after):
    source, notes = changed(ADDS + after, "lots = measure is None or 7")
    assert source.endswith(after)
    assert f"Line 4 {LOOK}" in notes


@pytest.mark.parametrize(
    "adds",
    [
        "for x, y in train:\n    loss = step(x, y)\n    loss += 0.5 * measure(x)\n    tell(0)",
        "for x, y in train:\n    loss = 0.0\n    for part in (x, y):\n        loss += step(part, y)\n    last = loss / 2",
        "steps = 0\nfor x, y in train:\n    step(x, y)\n    steps += 1\ntell(0)",
        "losses = []\nfor x, y in train:\n    losses.append(step(x, y))\ntell(np.mean(losses))",
    ],
)
def test_what_is_no_sum_over_batches_needs_no_word(adds):
    _, notes = changed(adds)
    assert notes == ()


@pytest.mark.parametrize(
    "loop",
    [
        "for epoch in range(2):\n    total = 0.0\n    for x, y in train:\n        total += step(x, y)\n    tell(total / len(train))",
        "def epoch(data):\n    total = 0.0\n    for x, y in data:\n        total += step(x, y)\n    return total / len(train)\ntell(epoch(train))",
        "total = 0.0\nfor x, y in train:\n    total += step(x, y)\ntell(total / len(train))\ntotal = 0.0\n"
        "for x, y in val:\n    total += mean_loss(x, y)\ntell(total / len(val))",
        "total = 0.0\nfor x, y in train:\n    total += step(x, y)\n    tell(1)\nwhile len(told) > 1:\n    told.pop()\ntotal = total / len(train)\ntell(total)",
    ],
)
def test_the_same_sum_again_in_a_function_or_in_epochs(loop):
    lines = [n for n, text in enumerate(loop.split("\n"), 1) if "step(" in text]
    batches = {"train": 64, "val": 128}
    found = asked(loop, batches=batches, line=lines[0])
    assert isinstance(found, BatchFound), found
    after, _ = set_batch(found, 32)
    assert run(after, (), batches)[0] == pytest.approx(run(loop, (), batches)[0]), after


@pytest.mark.parametrize("adds", ["total += step(x, y)", "total = total + step(x, y)", "total.append(step(x, y))"])
def test_a_mean_over_the_last_few_batches_needs_no_word(adds):
    begin = "[]" if "append" in adds else "0.0"
    told = "sum(total) / 50" if "append" in adds else "total / 50"
    source = (
        f"total = {begin}\nfor i, (x, y) in enumerate(train):\n    {adds}\n    if i % 50 == 49:\n        tell({told})\n"
        f"        total = {begin}"
    )
    after, notes = changed(source)
    assert after == source.replace("(train)", "(train.rebatch(32))")
    assert notes == ()


@pytest.mark.parametrize("above", ["", "\n\n", "%%tfmem -q\n\n"])
def test_lines_are_told_as_everywhere(above):
    source = f"{above}total = 0.0\nfor x, y in train:\n    total += step(x, y)\ntell(total / len(train))\ntell(total)"
    _, notes = changed(source)
    line = 4 + above.count("\n")
    assert f"{TOLD}line {line} grows with their number: the mean stays." in notes
    assert f"Line {line + 1} {LOOK}" in notes


def test_what_divides_the_sum_of_one_loop_is_not_said_to_stay_for_another():
    source = (
        "def parts(x, bs):\n    for i in range(0, len(x), bs):\n        yield x[i : i + bs]\nn = len(paths) // 64\n"
        "total = 0.0\nfor x in parts(paths, 64):\n    total += step(x, x)\ntell(total / n)"
    )
    after, notes = same(source)
    assert after.endswith("tell(total / (2 * n))")
    assert notes == (f"{TOLD}line 8 grows with their number: the mean stays.",)
