"""Data of which only so many batches are taken: after the edit, run for real, as many samples are seen as before."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from textwrap import indent as indented

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

SAMPLES = 6400


class Data:
    """A dataset as TensorFlow has it: elements, split and counted in the order of the calls."""

    def __init__(self, elements):
        self.elements = elements

    def batch(self, size):
        return Data([sum(self.elements[n : n + size]) for n in range(0, len(self.elements), size)])

    def rebatch(self, size):
        if self.elements and isinstance(self.elements[0], tuple):
            return Data.zip([Data(part).rebatch(size) for part in zip(*self.elements)])
        return Data([1] * sum(self.elements)).batch(size)

    @staticmethod
    def zip(*given):
        return Data(list(zip(*(given if len(given) > 1 else given[0]))))

    @staticmethod
    def range(stop):
        return Data(list(range(stop)))

    def take(self, count):
        return Data(self.elements[:count] if count >= 0 else self.elements)

    def skip(self, count):
        return Data(self.elements[count:])

    def cache(self):
        return self

    prefetch = shuffle = lambda self, _: self

    def __iter__(self):
        return iter(self.elements)


def seen_by(source, debug=False):
    """Run a cell; give the batches that its step or its ``fit`` saw."""
    seen = []
    model = type("Model", (), {"fit": lambda self, data, **_: seen.extend(data)})()
    names = {
        "model": model, "train_step": seen.append, "islice": itertools.islice, "itertools": itertools,
        "whole": lambda: Data([1] * SAMPLES), "x": [0] * SAMPLES, "enumerate": enumerate, "steps": 20, "debug": debug,
        "train_ds": Data([1] * SAMPLES).batch(64), "random": random,
        "Dataset": Data,
    }  # fmt: skip
    exec(compile(source, "cell", "exec"), names)  # the point: the edited cell is run
    return seen


def asked(source):
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = Facts("2.21.0", "3.15.1", True, datasets=(DatasetFacts("train_ds", batch=64, cardinality=100),))
    trains = ("fit(", "train_step(", "run(")
    lines = frozenset(n for n, line in enumerate(source.splitlines(), 1) if any(word in line for word in trains))
    return find_batch(cell, facts, lines)


def changed(source, batch=32):
    found = asked(source)
    assert isinstance(found, BatchFound), found
    return set_batch(found, batch)


LITERAL = "ds = whole().batch(64)\n"
NAMED = "BATCH_SIZE = 64\nds = whole().shuffle(9).batch(BATCH_SIZE)\n"
STEP = "\n    train_step(b)"
DEEP = "\n        train_step(b)"

TURNS = """class Turns:
    at = 0
    def assign_add(self, more):
        self.at = self.at + more
    def __ge__(self, other):
        return self.at >= other
"""

COUNTED = {
    "rebound": "ds = ds.take(20)\nmodel.fit(ds)",
    "rebound in a chain": "ds = ds.cache().take(20).prefetch(1)\nmodel.fit(ds)",
    "rebound twice": "ds = ds.skip(3)\nds = ds.take(20)\nfor b in ds:" + STEP,
    "rebound, then handed on": "ds = ds.take(20)\nds = ds.prefetch(2)\nfor b in ds:" + STEP,
    "rebound in a function": "def run(ds):\n    ds = ds.take(20)\n    for b in ds:\n        train_step(b)\nrun(ds)",
    "two names": "short = ds.skip(3)\nshorter = short.take(20)\nfor b in shorter:" + STEP,
    "islice": "for b in islice(ds, 20):" + STEP,
    "islice, counted": "for i, b in enumerate(itertools.islice(ds, steps)):" + STEP,
    "zip": "for i, b in zip(range(20), ds):" + STEP,
    "zip, the range last": "for b, i in zip(ds, range(steps)):" + STEP,
    "datasets zipped": "for b, _ in Dataset.zip((ds, ds)):" + STEP,
    "datasets zipped, one after another": "for b, _ in Dataset.zip(ds, ds):" + STEP,
    "datasets zipped, then taken": "for b, _ in Dataset.zip((ds, ds)).take(20):" + STEP,
    "datasets zipped under a name": "both = Dataset.zip((ds, ds)).cache()\nfor b, _ in both:" + STEP,
    "datasets zipped, with a range": "for b, i in Dataset.zip((ds, Dataset.range(20))):" + STEP,
    "datasets zipped, with a break": "for i, (b, _) in enumerate(Dataset.zip((ds, ds))):\n    if i == 20:\n        break" + STEP,
    "break at a number": "for i, b in enumerate(ds):\n    if i == 20:\n        break" + STEP,
    "break at a name": "for i, b in enumerate(ds):\n    if i >= steps:\n        break" + STEP,
    "break after the step": "for i, b in enumerate(ds):" + STEP + "\n    if i + 1 >= steps:\n        break",
    "break at a counter": "n = 0\nfor b in ds:" + STEP + "\n    n += 1\n    if 20 <= n: break",
    "break at a counter, written out": "n = 0\nfor b in ds:" + STEP + "\n    n = n + 1\n    if n >= 20: break",
    "break at a counter, the other way round": "n = 0\nfor b in ds:" + STEP + "\n    n = 1 + n\n    if n == 20: break",
    "break at a variable": TURNS + "n = Turns()\nfor b in ds:" + STEP + "\n    n.assign_add(1)\n    if n >= 20: break",
    "break at samples over the size": "n = 0\nfor b in ds:" + STEP + "\n    n += 1\n    if n >= len(x[:1280]) / 64:\n        break",
    "break with another reason": "for i, b in enumerate(ds):\n    if i >= 20 or b > 999:\n        break" + STEP,
    "while with a break": "it = iter(ds)\nn = 0\nwhile True:\n    b = next(it)" + STEP + "\n    n += 1\n    if n == 20:\n        break",
    "inner loop": "for epoch in range(2):\n    for i, b in enumerate(ds):\n        if i == 20:\n            break\n        train_step(b)",
}  # fmt: skip


@pytest.mark.parametrize("made", [LITERAL, NAMED], ids=["number", "name"])
@pytest.mark.parametrize("cell", COUNTED.values(), ids=COUNTED)
def test_as_many_samples_are_seen_as_before(made, cell):
    source = made + cell
    after, _ = changed(source)
    before, now = seen_by(source), seen_by(after)
    assert max(now) == 32
    assert sum(now) == sum(before)


@pytest.mark.parametrize("name", [name for name in COUNTED if "rebound" not in name])
def test_a_dataset_of_an_earlier_cell_loses_no_samples_either(name):
    source = COUNTED[name].replace("(ds", "(train_ds").replace(" ds", " train_ds")
    after, _ = changed(source, 16)
    assert sum(seen_by(after)) == sum(seen_by(source))
    assert max(seen_by(after)) == 16


def test_an_earlier_dataset_that_the_cell_binds_anew_is_split_where_it_is_used():
    source = "train_ds = train_ds.take(20)\nfor b in train_ds:" + STEP
    after, _ = changed(source)
    assert "train_ds = train_ds.take(20)\n" in after
    assert sum(seen_by(after)) == sum(seen_by(source)) == 20 * 64


FOLLOWING = {
    "take": "n = len(x) // BATCH_SIZE - 3\nds = ds.take(n)\nmodel.fit(ds)",
    "islice": "for b in islice(ds, len(x) // BATCH_SIZE):" + STEP,
    "break": "n = len(x) // BATCH_SIZE\nfor i, b in enumerate(ds):\n    if i >= n:\n        break" + STEP,
    "zip": "for i, b in zip(range(len(x) // BATCH_SIZE), ds):" + STEP,
    "a default": "n = 2 * (len(x) // BATCH_SIZE)\ndef run(ds, n=n):\n    for b in ds.take(n + 1):" + DEEP + "\nrun(ds)",
    "an argument": "def run(ds, n):\n    for b in ds.take(n):" + DEEP + "\nrun(ds, len(x) // BATCH_SIZE)",
    "a keyword": "def run(ds, *, n=9):\n    for b in islice(ds, n):" + DEEP + "\nrun(ds, n=len(x) // BATCH_SIZE)",
    "two calls": "n = len(x) // BATCH_SIZE\ndef run(d, n):\n    for b in d.take(n):"
    + DEEP
    + "\nrun(ds, n)\nrun(ds, n - 1)",
}


@pytest.mark.parametrize("cell", FOLLOWING.values(), ids=FOLLOWING)
def test_a_number_that_follows_the_batch_size_is_left_alone(cell):
    assert changed(NAMED + cell)[0] == (NAMED + cell).replace("= 64", "= 32")


NOT_COUNTED = {
    "patience": "wait = 0\nfor b in ds:" + STEP + "\n    if b < 9:\n        wait += 1\n    if wait >= 5:\n        break",
    "a sum": "n = 0\nfor b in ds:" + STEP + "\n    n = n + 9\n    if n > 10**9:\n        break",
    "another name": "n, m = 0, 0\nfor b in ds:" + STEP + "\n    n = m + 1\n    if n > 20:\n        break",
    "a counter that begins anew": "n = 0\nfor b in ds:" + STEP + "\n    n += 1\n    if b > 99:\n        n = 0\n    if n == 5:\n        break",
    "a break of the loop around": "for e, _ in enumerate(x[:9]):\n    for b in ds:\n        train_step(b)\n    if e == 3:\n        break",
    "a break of a loop inside": "for i, b in enumerate(ds):" + STEP + "\n    for j in range(9):\n        if j == 3:\n            break",
    "the first turn": "for i, b in enumerate(ds):" + STEP + "\n    if i == 7:\n        print(b)",
    "a loss": "for i, b in enumerate(ds):" + STEP + "\n    if random.random() < 0:\n        break",
}  # fmt: skip


@pytest.mark.parametrize("cell", NOT_COUNTED.values(), ids=NOT_COUNTED)
def test_what_does_not_count_batches_is_left_alone(cell):
    assert changed(NAMED + cell)[0] == (NAMED + cell).replace("= 64", "= 32")


@pytest.mark.parametrize("adds", ["n += 1", "n = n + 1"])
@pytest.mark.parametrize("limit", ["n < 20", "20 > n", "n <= steps"])
def test_a_while_over_a_number_of_steps_says_that_it_takes_as_many(limit, adds):
    cell = f"it = iter(ds)\nn = 0\nwhile {limit}:\n    b = next(it)" + STEP + f"\n    {adds}"
    after, notes = changed(LITERAL + cell)
    assert after == (LITERAL + cell).replace("64", "32")
    assert notes == ("The loop in line 4 takes as many steps as before, each with fewer samples.",)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("for b in islice(ds, 3, 20):" + STEP, "`islice` in line 2 counts batches"),
        ("for i, b in zip(range(3, 20), ds):" + STEP, "`range` in line 2 counts batches"),
        ("for b in islice(*given):" + STEP, ""),
        ("for b, i in Dataset.zip((ds, Dataset.range(3, 20))):" + STEP, "`range` in line 2 counts batches"),
        ("for b, i in Dataset.zip((ds, whole().batch(9))):" + STEP, "several batch sizes here (9 and 64)"),
        ("for b, i in Dataset.zip((ds, whole())):" + STEP, "how it batches is not known"),
        ("if debug:\n    ds = ds.take(20)\nfor b in ds:" + STEP, "only under a condition"),
    ],
)
def test_a_count_that_cannot_be_followed_is_refused(cell, reason):
    found = asked(LITERAL + cell)
    assert not isinstance(found, BatchFound)
    assert reason in found.reason


FURTHER = "samples of a further pass may follow"


@pytest.mark.parametrize(
    ("call", "data", "told"),
    [
        ("model.predict(gen, steps=n)", DatasetFacts("gen", "generator", 64), True),
        ("model.predict(gen, steps=17)", DatasetFacts("gen", "tf.data", 64, None), True),
        ("model.evaluate(gen, steps=n)", DatasetFacts("gen", "generator", 64), True),
        ("model.predict(gen, steps=n)", DatasetFacts("gen", "tf.data", 64, 9), False),
        ("model.predict(gen, steps=n)", DatasetFacts("gen", "PyDataset", 64), False),
        ("model.fit(gen, steps_per_epoch=17)", DatasetFacts("gen", "tf.data", 64, None), False),
    ],
)
def test_results_that_may_become_more_are_told_where_the_data_do_not_end(call, data, told):
    made = {"generator": "gen = batches(x, batch_size=64)\n", "PyDataset": "gen = flow(x, batch_size=64)\n"}
    source = made.get(data.kind, "") + call
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = Facts(datasets=(data,), scalars=(ScalarFact("n", 17),))
    found = find_batch(cell, facts, frozenset({source.count("\n") + 1}))
    assert isinstance(found, BatchFound), found
    changed, notes = set_batch(found, 32)
    assert "34" in changed or "2 * n" in changed
    assert any(FURTHER in note for note in notes) is told


DRAWN = "BATCH = 64\n{}\n    b = x[np.random.choice(n, size=BATCH)]" + STEP


@pytest.mark.parametrize(
    ("loop", "same"),
    [
        ("for i in range(100):", True),
        ("for episode in range(9):", True),
        ("while not done:", True),
        ("for i in range(n // BATCH):", False),
        ("steps = n // BATCH\nfor i in range(steps):", False),
        ("for i in tqdm(range(0, n, BATCH)):", False),
        ("while seen < n:\n    seen += BATCH", False),
        ("while at < n:\n    y = labels[at : at + BATCH]", False),
    ],
)
def test_a_loop_whose_steps_do_not_go_by_the_batch_size_takes_as_many(loop, same):
    source = DRAWN.format(loop)
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, Facts(), frozenset({source.count("\n") + 1}))
    assert isinstance(found, BatchFound), found
    assert (found.same_steps, any("as many steps as before" in note for note in found.notes)) == (same, same)


@pytest.mark.parametrize(
    ("call", "right"),
    [
        ("model.fit_generator(train_ds, 5000, epochs=3)", "model.fit_generator(train_ds.rebatch(32), 10000, epochs=3)"),
        ("model.fit_generator(train_ds, len(x) // 64)", "model.fit_generator(train_ds.rebatch(32), len(x) // 32)"),
        (
            "model.fit_generator(train_ds, 10, 3, 1, None, val_ds, 4)",
            "model.fit_generator(train_ds.rebatch(32), 20, 3, 1, None, val_ds.rebatch(32), 8)",
        ),
        ("model.evaluate_generator(val_ds, 7)", "model.evaluate_generator(val_ds.rebatch(32), 14)"),
        ("model.predict(val_ds, None, 0, 7)", "model.predict(val_ds.rebatch(32), None, 0, 14)"),
        (
            "model.fit(train_ds, None, None, 3, 1, cbs, 0.0, val_ds)",
            "model.fit(train_ds.rebatch(32), None, None, 3, 1, cbs, 0.0, val_ds.rebatch(32))",
        ),
        ("model.fit(train_ds, steps_per_epoch=10)", "model.fit(train_ds.rebatch(32), steps_per_epoch=20)"),
    ],
)
def test_steps_and_data_given_by_position_are_those_of_keras(call, right):
    cell = read_cell(call)
    assert isinstance(cell, PythonCell)
    data = (DatasetFacts("train_ds", batch=64, cardinality=9), DatasetFacts("val_ds", batch=64, cardinality=5))
    found = find_batch(cell, Facts(datasets=data), frozenset({1}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0] == right


FLOW = "g = ImageDataGenerator()\ntrain = g.flow_from_directory('a', batch_size=64)\nval = g.flow_from_directory('b', batch_size={})"


@pytest.mark.parametrize(
    ("batch", "after", "right"),
    [
        (64, "model.evaluate(val, steps=30)", "model.evaluate(val, steps=60)"),
        (64, "p = model.predict(val, None, 0, 30)", "p = model.predict(val, None, 0, 60)"),
        (48, "model.evaluate(val, steps=20)", "model.evaluate(val, steps=30)"),
        (32, "model.evaluate(val, steps=20)", "model.evaluate(val, steps=20)"),
        (64, "model.evaluate(other, steps=20)", "model.evaluate(other, steps=20)"),
    ],
)
def test_what_is_taken_later_from_the_validation_data_covers_as_many_samples(batch, after, right):
    source = f"model.fit(train, validation_data=val)\n{after}"
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    data = (DatasetFacts("train", "PyDataset", 64, 9), DatasetFacts("val", "PyDataset", batch, 9))
    facts = Facts(datasets=data, earlier_cells=(FLOW.format(batch),))
    found = find_batch(cell, facts, frozenset({1}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 32)[0].splitlines()[-1] == right


LOOP = "total = 0\nfor x, y in ds:\n    total += step(x, y)\n"
LENGTH = "BATCH_SIZE = 64\nn = len(paths) // BATCH_SIZE"


def summed_in(source, *earlier, line=3, scalars=()):
    """Give a cell with half the batch where its loop over a dataset of an earlier cell, `ds`, ran out of memory."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = Facts(
        datasets=(DatasetFacts("ds", "tf.data", 64, 20),),
        earlier_cells=earlier,
        scalars=tuple(ScalarFact(name, value) for name, value in scalars),
    )
    found = find_batch(cell, facts, frozenset({line}))
    assert isinstance(found, BatchFound), found
    return set_batch(found, 32)[0]


@pytest.mark.parametrize(
    ("source", "line", "changed"),
    [
        (LOOP + "print(f'a {total/n:.4f} b', 1)", 3, "print(f'a {total/(2 * n):.4f} b', 1)"),
        (LOOP + "means.append(float(total) / len(ds))", 3, "means.append(float(total) / (2 * len(ds)))"),
        (LOOP + "history['loss'] += [total.numpy() / n]", 3, "history['loss'] += [total.numpy() / (2 * n)]"),
        (f"steps = len(paths) // 64\n{LOOP}total / steps", 4, "total / (2 * steps)"),
        (f"steps = len(ds)\n{LOOP}total / steps", 4, "total / (2 * steps)"),
        (LOOP.replace("in ds", "in enumerate(ds)") + "total = total / n", 3, "total = total / (2 * n)"),
        (
            "def run(data):\n" + indented(LOOP.replace("ds", "data"), "    ") + "    return total / n\nrun(ds)",
            4,
            "total / (2 * n)",
        ),
        (f"for epoch in range(3):\n{indented(LOOP, '    ')}    print('mean', total / n)", 4, "total / (2 * n))"),
    ],
)
def test_a_sum_over_the_batches_is_divided_by_as_many_as_there_are_now(source, line, changed):
    assert changed in summed_in(source, LENGTH, line=line)


@pytest.mark.parametrize(
    ("count", "known"),
    [
        ("n = len(ds)", ()),
        ("n = int(np.ceil(len(paths) / batch_size))", (("batch_size", 64),)),
        ("n = -(-len(paths) // 64)", ()),
    ],
)
def test_whatever_way_an_earlier_cell_counted_them(count, known):
    assert summed_in(LOOP + "print(total / n)", count, scalars=known).endswith("print(total / (2 * n))")


@pytest.mark.parametrize(
    ("source", "earlier", "line"),
    [
        (LOOP + "print(total / n)", ("n = 100",), 3),
        (LOOP + "print(total / n)", ("n = len(other)",), 3),
        (LOOP + "print(total / n)", ("n = len(paths) // 8",), 3),
        (LOOP + "print(total / n)", ("batch_size = 8", "n = len(paths) // batch_size"), 3),
        (LOOP + "print(total / count(ds))", (), 3),
        (LOOP + "print(other / n)", (LENGTH,), 3),
        ("turns = 0\nfor x, y in ds:\n    step(x, y)\n    turns += 1\nprint(turns / n)", (LENGTH,), 3),
        (f"test = 0\nfor x in tests:\n    test += step(x)\nprint(test / n)\n{LOOP}", (LENGTH,), 7),
        (LOOP + "print(f'total / n {total / n}')", (LENGTH,), 3),  # a place that Python before 3.12 does not tell
    ],
)
def test_what_is_no_such_count_or_no_such_sum_stays(source, earlier, line):
    assert summed_in(source, *earlier, line=line) == source.replace("in ds:", "in ds.rebatch(32):")


@pytest.mark.parametrize(
    "call",
    [
        "train(gan, ds, batch_size)",
        "train(gan, data=ds, bs=batch_size)",
        "history = train(batch_size, 3, data=ds)",
        "for epoch in range(3):\n    train(gan, ds, batch_size)",
        "gan.train(iter(ds), batch_size, 500)",
        "trainer = Trainer(gan)\ntrainer.run(data=ds.repeat(), epochs=3, batch_size=batch_size)",
        "batches = iter(ds)\ngan.train(batches, 500, batch_size)",
        "train(gan, enumerate(ds), bs=batch_size)",
    ],
)
def test_a_dataset_handed_on_beside_its_batch_size_is_not_left_behind(call):
    cell = read_cell(call)
    assert isinstance(cell, PythonCell)
    facts = Facts(datasets=(DatasetFacts("ds", "tf.data", 64, 20),), scalars=(ScalarFact("batch_size", 64),))
    found = find_batch(cell, facts, frozenset({call.count("\n") + 1}))
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
    found = find_batch(cell, Facts(scalars=(ScalarFact("batch_size", 64),)), frozenset({call.count("\n") + 1}))
    assert isinstance(found, BatchFound), "nothing of an earlier cell has batches"


def test_an_iterator_of_an_earlier_cell_is_not_left_behind_either():
    cell = read_cell("gan.train(batches, batch_size)")
    assert isinstance(cell, PythonCell)
    facts = Facts(datasets=(DatasetFacts("ds", "tf.data", 64, 20),), scalars=(ScalarFact("batch_size", 64),))
    for made, left in (
        ("batches = iter(ds)", True),
        ("batches = ds.as_numpy_iterator()", True),
        ("batches = 3", False),
    ):
        found = find_batch(cell, replace(facts, earlier_cells=("ds = load()", made)), frozenset({1}))
        assert isinstance(found, BatchFound) is not left, made


@pytest.mark.parametrize("call", ["gan.train(len(ds), batch_size)", "gan.train(x, int(len(ds) / 2), batch_size)"])
def test_a_number_of_the_batches_is_no_data(call):
    cell = read_cell(call)
    assert isinstance(cell, PythonCell)
    facts = Facts(datasets=(DatasetFacts("ds", "tf.data", 64, 20),), scalars=(ScalarFact("batch_size", 64),))
    found = find_batch(cell, facts, frozenset({1}))
    assert isinstance(found, BatchFound) or "beside its batch size" not in found.reason


@pytest.mark.parametrize(
    "call",
    [
        "gan.train(iter(ds), batch_size)",
        "gan.train(list(ds)[0], batch_size)",
        "run(enumerate(ds), batch_size=batch_size)",
        "trainer.train(batch_size, list(ds))",
    ],
)
def test_what_python_itself_does_with_a_dataset_is_not_unknown(call):
    cell = read_cell(call)
    assert isinstance(cell, PythonCell)
    facts = Facts(datasets=(DatasetFacts("ds", "tf.data", 64, 20),), scalars=(ScalarFact("batch_size", 64),))
    found = find_batch(cell, facts, frozenset({1}))
    assert not isinstance(found, BatchFound)
    assert "`ds` is handed on beside its batch size" in found.reason


@pytest.mark.parametrize("call", ["gan.train(iter(ds), batch_size)", "run(ds, batch_size=batch_size)", "go(1, ds, 1)"])
def test_beside_a_batch_of_one_the_dataset_is_not_the_reason(call):
    cell = read_cell(call)
    assert isinstance(cell, PythonCell)
    facts = Facts(datasets=(DatasetFacts("ds", "tf.data", 1, 20),), scalars=(ScalarFact("batch_size", 1),))
    found = find_batch(cell, facts, frozenset({1}))
    assert isinstance(found, BatchFound) or "beside its batch size" not in found.reason


DRAWS = "def get_batch(batch_size):\n    at = np.random.choice(900, batch_size)\n    return x[at], y[at]"
TURN = "    a, b = get_batch({})\n    model.train_on_batch(a, b)\n"


@pytest.mark.parametrize("size", ["batch_size", "batch_size=batch_size"])
@pytest.mark.parametrize(
    ("head", "rest", "same"),
    [
        ("while epoch < epochs:", "    if i % length == 0:\n        epoch += 1\n    i += 1", True),
        ("while not done():", "    print('.')", True),
        ("while True:", "    if stop():\n        break", True),
        ("while seen < 900:", "    seen += batch_size", False),
        ("while seen < 900:", "    i += 1\n    seen = i * batch_size", True),
        ("while i < 900 // batch_size:", "    i += 1", False),
    ],
)
def test_a_while_that_draws_batches_without_an_end_takes_as_many(size, head, rest, same):
    source = f"{head}\n{TURN.format(size)}{rest}"
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    facts = Facts(
        models=(ModelFacts("model"),), scalars=(ScalarFact("batch_size", 64),), earlier_cells=(DRAWS, "batch_size = 64")
    )
    found = find_batch(cell, facts, frozenset({3}))
    assert isinstance(found, BatchFound), found
    told = [note for note in found.notes if "as many steps as before" in note]
    assert (found.same_steps, len(told)) == (same, int(same))


HALVES = """def train(data, epochs, {size}=64):
    half = {half}
    for step in range(epochs * 10):
        a, b = make_real_samples(data, half)
        critic.train_on_batch(a, b)
        both.train_on_batch(make_noise({size}), np.ones(({size}, 1)))
def make_real_samples(data, n_samples):
    return data[np.random.randint(0, 900, n_samples)], np.ones((n_samples, 1))
def make_noise(n):
    return np.random.randn(n, 8)
train(x, 20{given})"""


@pytest.mark.parametrize("size", ["n_batch", "batch_size", "bs"])
@pytest.mark.parametrize("half", ["int({0} / 2)", "{0} // 2", "int({0} // 2)"])
@pytest.mark.parametrize("given", ["", ", {0}=64"])
def test_where_a_half_runs_out_the_whole_is_made_smaller(size, half, given):
    source = HALVES.format(size=size, half=half.format(size), given=given.format(size))
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, Facts(), frozenset({5, source.count("\n") + 1}))
    assert isinstance(found, BatchFound), found
    head, _, tail = source.rpartition("64") if given else source.partition("64")
    assert set_batch(found, 32)[0] == f"{head}32{tail}"


@pytest.mark.parametrize(
    "use", ["model = build(n_batch)", "keras.layers.Dense(n_batch)", "model = make_model(n_batch, 3)"]
)
def test_where_the_whole_decides_something_else_its_half_is_not_changed_alone(use):
    source = HALVES.format(size="n_batch", half="n_batch // 2", given="").replace(
        "    half =", f"    {use}\n    half ="
    )
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, Facts(), frozenset({6, source.count("\n") + 1}))
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
