"""What is as long as there are batches, or ends after so many: run, the edited cell sees and tells as much."""

from __future__ import annotations

import pytest

from tests.notebook.batch.means.runs import TRAIN, changed, same
from tf_mem_magic.core.facts import ScalarFact


@pytest.mark.parametrize(
    ("counted", "stays"),
    [
        ("tell(len(val))", True),
        ("for i in range(len(val)):\n    tell(i)", True),
        ("steps = len(val)\ntell(steps)", True),
        ("total_steps = 3 * len(val)\nbar = measure_all(total_steps)", True),
        ("rows = len(val) * 64\ntell(rows)", False),
    ],
)
def test_data_whose_batches_are_counted_for_something_else_keep_them_in_validation(counted, stays):
    source = f"{TRAIN}for x, y in val:\n    mean_loss(x, y)\n{counted}"
    after, _ = changed(source)
    assert ("in val:" in after) is stays
    _, notes = changed(source.replace("val", "train").replace("mean_loss", "step"))
    told = [note for note in notes if note.endswith(" stays as it was, and there are more now.")]
    assert bool(told) is stays


@pytest.mark.parametrize("bar", ["tqdm(val, total=len(val))", "tqdm(enumerate(val), total=len(val))"])
def test_a_progress_bar_counts_what_it_likes(bar):
    target = "i, (x, y)" if "enumerate" in bar else "x, y"
    after, _ = changed(f"{TRAIN}for {target} in {bar}:\n    mean_loss(x, y)")
    assert "val.rebatch(32)" in after


@pytest.mark.parametrize(
    ("cell", "edited"),
    [
        (
            "losses = np.zeros(len(train))\nfor i, (x, y) in enumerate(train):\n    losses[i] = step(x, y)\ntell(sum(losses) / len(losses))",
            "np.zeros(2 * len(train))",
        ),
        (
            "n = len(train)\nlosses = np.zeros(n + 1)\nfor i, (x, y) in enumerate(train):\n    losses[i] = step(x, y)\ntell(losses[3])",
            "np.zeros((2 * n) + 1)",
        ),
        (
            "losses = []\nfor e in range(2):\n    for x, y in train:\n        losses.append(step(x, y))\n    tell(np.mean(losses[-len(train):]))",
            "losses[-(2 * len(train)):]",
        ),
    ],
)
def test_what_is_as_long_as_there_are_batches_grows_too(cell, edited):
    after, notes = same(cell)
    assert edited in after
    assert any(note.startswith("What is as long as there are batches in ") for note in notes)


@pytest.mark.parametrize("limit", ["n", "200", "n // 2"])
def test_a_counter_that_ends_both_loops_ends_them_after_as_many_samples(limit):
    source = (
        f"seen, steps = 0, 0\nfor e in range(9):\n    for x, y in train:\n        step(x, y)\n        seen += len(x)\n"
        f"        steps += 1\n        if steps >= {limit}:\n            break\n    if steps >= {limit}:\n        break\ntell(seen)"
    )
    same(source, "n = 250", scalars=(ScalarFact("n", 250),))


@pytest.mark.parametrize("limit", ["3200", "len(paths) // 2"])
@pytest.mark.parametrize("adds", ["seen += 64", "seen = seen + 64", "seen = 64 + seen"])
def test_samples_that_are_counted_by_the_size_as_a_number_are_counted_by_the_new_one(limit, adds):
    after, _ = same(
        f"seen = 0\nfor x, y in train:\n    step(x, y)\n    {adds}\n    if seen >= {limit}:\n        break\ntell(seen)"
    )
    assert adds.replace("64", "32") in after


@pytest.mark.parametrize("size", ["BATCH", "(BATCH * 1)"])
def test_a_loop_that_stays_beside_a_count_that_follows_is_said(size):
    source = (
        f"BATCH = 64\ndata = tf.data.Dataset.from_tensor_slices(paths).batch(BATCH)\nn = len(x_val) // {size}\ntotal = 0.0\n"
        "for x in data:\n    step(x, x)\nfor x, y in val:\n    out = mean_loss(x, y)\n    total += out\ntell([total / n, out])"
    )
    after, notes = changed(source)
    assert "in val:" in after
    assert "Line 10 counts smaller batches than its loop gets: look at what it tells." in notes


@pytest.mark.parametrize(
    "source",
    [
        "bar = tqdm(train, total=100)",
        "bar = tqdm(train, total=len(train))",
        "n = len(train)\nbar = tqdm(train, total=n)",
        "bar = tqdm(total=len(train))\nfor x, y in train:\n    step(x, y)\n    bar.update(1)",
        "bar = tqdm(total=100)\nfor x, y in train:\n    step(x, y)\n    bar.update(1)",
        "bar = Progbar(len(train))\nfor i, (x, y) in enumerate(train):\n    step(x, y)\n    bar.update(i)",
    ],
)
def test_a_bar_is_told_of_more_batches(source):
    if "for" not in source:
        made = source.rpartition("bar = ")
        source = f"{made[0]}for x, y in {made[2]}:\n    step(x, y)"
    after, _ = changed(source)
    total = after.partition("total=")[2].partition(")\n")[0].rstrip(":)") or after.partition("Progbar(")[2]
    assert total.startswith(("200", "2 * "))


@pytest.mark.parametrize(
    "bar", ["tqdm(range(100), total=100)", "tqdm(names, total=100)", "trange(100)", "tqdm(names, total=len(names))"]
)
def test_a_bar_over_something_else_stays(bar):
    source = f"for epoch in {bar}:\n    for x, y in train:\n        step(x, y)"
    after, _ = changed(source)
    assert after == source.replace("in train:", "in train.rebatch(32):")
