"""Means over the batches of a loop: the edited cell, run with smaller batches, tells what it told before."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

SAMPLES = {"train": 6400, "val": 1280}


class Data:
    """A dataset whose elements are the sizes of its batches."""

    def __init__(self, name, batch):
        self.sizes = [batch] * (SAMPLES[name] // batch)
        self.name = name

    def rebatch(self, size):
        split = Data(self.name, size)
        split.sizes = [size] * (sum(self.sizes) // size)
        return split

    map = shuffle = prefetch = lambda self, _: self

    def take(self, count):
        taken = Data(self.name, self.sizes[0])
        taken.sizes = self.sizes[:count]
        return taken

    def cardinality(self):
        return Number(len(self.sizes))

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        return iter([(Batch(size), Batch(size)) for size in self.sizes])


class Batch:
    """A batch that knows its size; added up it gives that."""

    def __init__(self, size):
        self.shape = (size, 8)

    def __len__(self):
        return self.shape[0]


class Number(float):
    """A number as TensorFlow has it."""

    def numpy(self):
        return float(self)

    def __add__(self, other):
        return Number(float(self) + other)

    __radd__ = __add__


TF = SimpleNamespace(
    reduce_mean=lambda _: Number(1.5),
    reduce_sum=lambda batch: Number(sum(batch) if isinstance(batch, list) else 1.5 * len(batch)),
    divide=lambda a, b: Number(a / b),
    cast=lambda value, _: value,
    float32="float32",
    shape=lambda batch: batch.shape,
)
FUNCTIONS = (
    "def mean_loss(x, y):\n    return tf.reduce_mean(x)",
    "def sum_loss(x, y):\n    total = tf.reduce_sum(x)\n    return total",
    "def step(x, y):\n    return measure(x)",
)


def run(source, earlier, batches):
    """Run a notebook; give what its last cell has told, and the largest batch that its steps saw in each loop."""
    told: list[object] = []
    seen: list[int] = []

    def measure(batch):
        seen.append(len(batch))
        return Number(1.5)

    names = {
        **{name: Data(name, batch) for name, batch in batches.items()},
        "tf": TF, "np": SimpleNamespace(zeros=lambda n: [0.0] * n, ceil=math.ceil, mean=lambda v: sum(v) / len(v), divide=lambda a, b: a / b, sum=sum),
        "math": math, "told": told, "tell": told.append, "measure": measure, "tqdm": iter, "paths": [0] * 6400,
        "x_val": [0] * 1280, "batch_size": batches["train"],
    }  # fmt: skip
    for cell in (*FUNCTIONS, *earlier, source):
        exec(compile(cell, "cell", "exec"), names)  # the point: the edited cell is run
    return [float(one) for one in told], seen


def asked(source, *earlier, batches=None, line=None, scalars=()):
    batches = batches or {"train": 64, "val": 64}
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = Facts(
        datasets=tuple(DatasetFacts(n, "tf.data", b, SAMPLES[n] // b) for n, b in batches.items()),
        earlier_cells=("import tensorflow as tf\nimport numpy as np\nimport math", *FUNCTIONS, *earlier),
        scalars=(ScalarFact("batch_size", batches["train"]), *scalars),
    )
    line = line or next(n for n, text in enumerate(source.split("\n"), 1) if "step(" in text)
    return find_batch(cell, facts, frozenset({line}))


def changed(source, *earlier, batch=32, **known):
    found = asked(source, *earlier, **known)
    assert isinstance(found, BatchFound), found
    return set_batch(found, batch)


TRAIN = "for x, y in train:\n    step(x, y)\n"
TOLD = "What divides a sum over batches in "
LOOK = "may count batches, of which there are more now: look at what it tells."


def same(source, *earlier, batch=32, batches=None, scalars=()):
    """Check that a cell tells the same after the edit; give the edit and its notes."""
    batches = batches or {"train": 64, "val": 64}
    after, notes = changed(source, *earlier, batch=batch, batches=batches, scalars=scalars)
    before, now = run(source, earlier, batches), run(after, earlier, batches)
    assert now[0] == pytest.approx(before[0]), after
    assert max(now[1]) <= batch
    return after, notes


# -- each loop by the batches of its own data -----------------------------------------------------------------------------

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


# -- a loop that validates stays where what it tells would not ---------------------------------------------------------

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


# -- what divides a sum over the training data ----------------------------------------------------------------------------

ADDS = "total = 0.0\nfor x, y in train:\n    total += step(x, y)\n"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        ("n = len(paths) // 64", "total / n"),
        ("n = int(np.ceil(len(paths) / batch_size))", "total / n"),
        ("n = -(-len(paths) // 64)", "total / n"),
        ("n = (len(paths) + batch_size - 1) // batch_size", "total / n"),
        ("n = len(train)", "total / n"),
        ("n = math.ceil(len(paths) / 64)", "total / (1.0 * n)"),
        ("steps = len(paths) // 64\nn = steps", "total / n"),
        ("n = 100", "total / n"),
        ("", "total / 100"),
        ("", "total / len(train)"),
        ("", "total / train.cardinality().numpy()"),
        ("", "float(total) / float(len(train))"),
        ("", "total / (len(paths) // 64)"),
    ],
)
def test_a_count_of_batches_grows(count, told):
    scalars = (ScalarFact("n", 100),) if count else ()
    after, notes = same(f"{ADDS}tell({told})", *([count] if count else []), scalars=scalars)
    assert any(note.startswith(TOLD) for note in notes)
    assert "rebatch(32)" in after


@pytest.mark.parametrize(
    ("adds", "count", "told"),
    [
        # Sums over samples, divided by their number or by that of batches, are right as they are.
        ("sum_loss(x, y)", "n = len(paths) // 64", "total / n"),
        ("sum_loss(x, y)", "n = len(paths)", "total / n"),
        ("sum_loss(x, y)", "n = len(paths) // 64 * 64", "total / n"),
        ("sum_loss(x, y)", "steps = len(paths) // 64\nn = steps * 64", "total / n"),
        ("tf.reduce_sum(x)", "", "total / len(train)"),
        ("len(x)", "", "total / len(paths)"),
        ("mean_loss(x, y) * len(x)", "n = len(paths)", "total / n"),
    ],
)
def test_a_sum_over_samples_is_divided_as_before(adds, count, told):
    source = ADDS.replace("step(x, y)", f"{adds}; step(x, y)") + f"tell({told})"
    after, notes = same(source, *([count] if count else []))
    assert after == source.replace("in train:", "in train.rebatch(32):")
    assert not any(note.startswith(TOLD) or LOOK in note for note in notes)


@pytest.mark.parametrize(
    "count",
    [
        "n = len(paths) // 64 * 64",
        "steps = len(paths) // 64\nn = steps * 64",
        "n = 64 * (len(paths) // batch_size)",
    ],
)
def test_a_number_of_samples_is_no_count_of_batches(count):
    after, _ = changed(f"{ADDS}tell(total / n)", count)
    assert after.endswith("tell(total / n)")


@pytest.mark.parametrize(
    "earlier",
    [
        ("n = len(train)", "train = train.batch(64)"),
        ("n = len(train)\ntrain = train.batch(64)",),
        ("n = train.cardinality().numpy()", "train = train.shuffle(9).batch(64)"),
    ],
)
def test_the_length_that_data_had_before_they_were_batched_is_no_count_of_batches(earlier):
    cell = read_cell(f"{ADDS}tell(total / n)")
    assert isinstance(cell, PythonCell)
    for known in ((), (ScalarFact("n", 6400),)):
        facts = Facts(
            datasets=(DatasetFacts("train", batch=64, cardinality=100),), earlier_cells=earlier, scalars=known
        )
        found = find_batch(cell, facts, frozenset({3}))
        assert isinstance(found, BatchFound), found
        after, notes = set_batch(found, 32)
        assert after.endswith("tell(total / n)")
        assert any(LOOK in note for note in notes)


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


LENGTHS = ["tell(total / len(data))", "steps = len(data)\ntell(total / steps)", "total /= len(data)\ntell(total)"]


@pytest.mark.parametrize("counted", LENGTHS)
@pytest.mark.parametrize("way", ["train.map(print)", "train.shuffle(9).prefetch(2)"])
def test_data_whose_length_is_asked_for_are_split_where_the_loop_takes_them(counted, way):
    """TensorFlow does not know how many batches data have that are split again: ``len`` would raise."""
    source = f"data = {way}\n{ADDS.replace('in train', 'in data')}{counted}"
    after, _ = same(source)
    assert after.startswith(f"data = {way}\n")
    assert "in data.rebatch(32):" in after
    again = f"{source}\nfor x, y in data:\n    step(x, y)"
    found = asked(again, line=4)
    assert not isinstance(found, BatchFound)
    assert found.reason.startswith("`len(data)` in line 5 would fail: ")


@pytest.mark.parametrize("counted", LENGTHS)
def test_so_are_those_that_a_function_is_given(counted):
    body = f"{ADDS.replace('in train', 'in data')}{counted}".replace("\n", "\n    ")
    after, _ = same(f"def run(data):\n    {body}\nrun(train)")
    assert after.endswith("\nrun(train)")
    found = asked(f"def run(data):\n    {body}\nrun(train)\nrun(val)", line=4)
    assert not isinstance(found, BatchFound) or "run(val)" in set_batch(found, 32)[0]


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
    ("adds", "told"),
    [
        ("step(x, y) * batch_size", "total / len(paths)"),
        ("step(x, y) * 64", "total / len(paths)"),
        ("mean_loss(x, y) * batch_size", "total / (len(train) * batch_size)"),
        ("64 * mean_loss(x, y)", "total / (100 * 64)"),
        ("mean_loss(x, y) * len(x)", "total / (len(train) * batch_size)"),
    ],
)
def test_a_mean_that_is_made_a_sum_by_a_size_that_stays_still_adds_up_more(adds, told):
    same(f"total = 0.0\nfor x, y in train:\n    total += {adds}; step(x, y)\ntell({told})")


@pytest.mark.parametrize(
    "adds",
    [
        "total, other = total + step(x, y), 3",
        "(total, other) = (step(x, y) + total, 3)",
        "other, total = 3, total + step(x, y)",
    ],
)
def test_sums_that_are_set_together_are_sums(adds):
    same(f"total = 0.0\nfor x, y in train:\n    {adds}\ntell(total / len(train))")


@pytest.mark.parametrize("made", ["n = len(paths) // 128", "n = 50", "n = len(paths[:3200]) // 64", "n = int('50')"])
@pytest.mark.parametrize(
    "loop",
    [
        "for x, y in train.take(n):\n    total += step(x, y)",
        "for i, (x, y) in enumerate(train.take(n)):\n    total = total + step(x, y)",
        "for i, (x, y) in zip(range(n), train):\n    total += step(x, y)",
        "for i, (x, y) in enumerate(train):\n    if i >= n:\n        break\n    total += step(x, y)",
    ],
)
def test_as_many_batches_as_a_loop_takes_are_counted_by_the_same_name(made, loop):
    after, _ = same(f"total = 0.0\n{loop}\ntell(total / n)", made, scalars=(ScalarFact("n", 50),), batch=32)
    assert after.endswith("tell(total / (2 * n))")


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


@pytest.mark.parametrize(
    "made", ["keras.losses.MeanSquaredError()", "keras.losses.Huber(delta=2.0)", "tf.keras.losses.MeanSquaredError()"]
)
@pytest.mark.parametrize("count", ["len(paths)", "n"])
def test_a_mean_by_the_number_of_samples_is_what_it_was(made, count):
    cell = read_cell(f"total = 0.0\nfor x, y in train:\n    total += step(x, y)\ntell(total / {count})")
    assert isinstance(cell, PythonCell)
    earlier = (
        "import keras\nimport tensorflow as tf",
        "n = len(paths)",
        f"mse = {made}",
        "def step(x, y):\n    loss = mse(y, model(x))\n    return loss",
    )
    facts = Facts(datasets=(DatasetFacts("train", batch=64, cardinality=100),), earlier_cells=earlier)
    found = find_batch(cell, facts, frozenset({3}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0].endswith(f"tell(total / (2 * {count}))")
    summed = (
        *facts.earlier_cells[:2],
        f"mse = {made[:-1]}{', ' if 'delta' in made else ''}reduction='sum')",
        earlier[3],
    )
    found = find_batch(cell, Facts(datasets=facts.datasets, earlier_cells=summed), frozenset({3}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0].endswith(f"tell(total / {count})")


@pytest.mark.parametrize("limit", ["3200", "len(paths) // 2"])
@pytest.mark.parametrize("adds", ["seen += 64", "seen = seen + 64", "seen = 64 + seen"])
def test_samples_that_are_counted_by_the_size_as_a_number_are_counted_by_the_new_one(limit, adds):
    after, _ = same(
        f"seen = 0\nfor x, y in train:\n    step(x, y)\n    {adds}\n    if seen >= {limit}:\n        break\ntell(seen)"
    )
    assert adds.replace("64", "32") in after


@pytest.mark.parametrize(
    "loop",
    [
        "for x, y in train.take(50):\n    total += step(x, y)",
        "for i, (x, y) in enumerate(train):\n    if i == 50:\n        break\n    total += step(x, y)",
        "for i, (x, y) in zip(range(50), train):\n    total += step(x, y)",
    ],
)
def test_the_number_of_batches_that_a_loop_takes_is_known_where_it_is_written_out(loop):
    after, _ = same(f"total = 0.0\n{loop}\ntell(total / 50)")
    assert after.endswith("tell(total / 100)")


@pytest.mark.parametrize("told", ["total / bar.n", "total / bar.samples", "total / meter[0]"])
def test_an_attribute_of_something_else_counts_no_samples(told):
    source = (
        f"bar = make_bar()\ntotal = 0.0\nfor x, y in train:\n    total += mean_loss(x, y)\n    step(x, y)\ntell({told})"
    )
    after, notes = changed(source)
    assert after.endswith(f"tell({told})")
    assert f"Line 6 {LOOK}" in notes


@pytest.mark.parametrize("size", ["BATCH", "(BATCH * 1)"])
def test_a_loop_that_stays_beside_a_count_that_follows_is_said(size):
    source = (
        f"BATCH = 64\ndata = tf.data.Dataset.from_tensor_slices(paths).batch(BATCH)\nn = len(x_val) // {size}\ntotal = 0.0\n"
        "for x in data:\n    step(x, x)\nfor x, y in val:\n    out = mean_loss(x, y)\n    total += out\ntell([total / n, out])"
    )
    after, notes = changed(source)
    assert "in val:" in after
    assert "Line 10 counts smaller batches than its loop gets: look at what it tells." in notes


@pytest.mark.parametrize("loss", ["tf.reduce_sum(per) / 64", "tf.reduce_sum(per) * (1. / 64)", "np.sum(per) / 64.0"])
def test_a_loss_that_is_divided_by_the_size_as_a_number_stops_the_edit(loss):
    found = asked(f"for x, y in train:\n    per = step(x, y)\n    loss = {loss}")
    assert not isinstance(found, BatchFound)
    assert found.reason == "line 3 divides by 64 too, which may be the batch size, and would stay"
    found = asked(TRAIN, f"def step(x, y):\n    per = x\n    return {loss}")
    assert not isinstance(found, BatchFound)
    assert found.reason.startswith("an earlier cell divides by 64 too")
    assert isinstance(
        asked(f"for x, y in train:\n    per = step(x, y)\n    loss = {loss.replace('64', '255')}"), BatchFound
    )


@pytest.mark.parametrize(
    "loss", ["tf.reduce_sum(p - y) / 64", "K.sum(K.square(p - y)) * (1 / 64)", "ops.sum(p - y) / 64.0"]
)
@pytest.mark.parametrize("compiled", ["model.compile('adam', loss=own)", "model.compile(loss=[own, 'mse'])"])
def test_a_loss_of_fit_that_is_divided_by_the_size_as_a_number_stops_the_edit(loss, compiled):
    cell = read_cell("model.fit(x, y, batch_size=64)")
    assert isinstance(cell, PythonCell)
    earlier = ("model = keras.Sequential([])", f"def own(y, p):\n    return {loss}", compiled)
    found = find_batch(cell, Facts(earlier_cells=earlier), frozenset({1}))
    assert not isinstance(found, BatchFound)
    assert found.reason == "an earlier cell divides by 64 too, which may be the batch size, and would stay"
    other = (earlier[0], earlier[1], compiled.replace("own", "'mae'"))
    assert isinstance(find_batch(cell, Facts(earlier_cells=other), frozenset({1})), BatchFound)


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
