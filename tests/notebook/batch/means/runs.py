"""Cells that are run as they were and as they are edited, on datasets that know how large their batches are."""

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
ADDS = "total = 0.0\nfor x, y in train:\n    total += step(x, y)\n"
LOOK = "may count batches, of which there are more now: look at what it tells."


def same(source, *earlier, batch=32, batches=None, scalars=()):
    """Check that a cell tells the same after the edit; give the edit and its notes."""
    batches = batches or {"train": 64, "val": 64}
    after, notes = changed(source, *earlier, batch=batch, batches=batches, scalars=scalars)
    before, now = run(source, earlier, batches), run(after, earlier, batches)
    assert now[0] == pytest.approx(before[0]), after
    assert max(now[1]) <= batch
    return after, notes
