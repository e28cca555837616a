"""Pipelines of earlier cells: made once more in the cell that uses them, or a reason and the change to copy."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import pytest

from tests.remedies.stream_data.test_remedy import array
from tests.stream_runtime import run_cells
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.stream_data.remedy import propose

IMPORTS = "import glob, random\nimport tensorflow as tf\nimport keras"
TEMP = "import tempfile\n"
DISK = 'cache(tempfile.mkdtemp() + "/cache")'


def ask(source, *earlier, datasets=("ds",), line=None):
    facts = Facts(
        models=(ModelFacts("model"),),
        values=tuple(array(name) for name in "xy"),
        datasets=tuple(DatasetFacts(name, batch=8) for name in datasets),
        earlier_cells=(IMPORTS, *earlier),
    )
    cell = Cell(source)
    diagnosis = Diagnosis("host", line=line, limit=16 << 30, cause="host")
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


FILES = "files = ['a', 'b', 'c']\nBATCH = 2\ndef load(p):\n    return p * 2"

TAKEN = {
    "one line": (
        [FILES, "ds = tf.data.TFRecordDataset(files).map(load).cache().batch(BATCH)", "z = 1"],
        "model.fit(ds)",
        TEMP + f"ds = tf.data.TFRecordDataset(files).map(load).{DISK}.batch(BATCH)\nmodel.fit(ds)",
    ),
    "statement by statement, in brackets": (
        [FILES, "ds = tf.data.TFRecordDataset(files)\nds = (\n    ds.map(load)  # reads\n    .cache()\n)\nds = ds.batch(BATCH).prefetch(2)"],
        "%%tfmem\nfor epoch in range(2):\n    model.fit(ds)",
        f"%%tfmem\n{TEMP}ds = tf.data.TFRecordDataset(files)\nds = (\n    ds.map(load)  # reads\n    .{DISK}\n)\nds = ds.batch(BATCH).prefetch(2)\nfor epoch in range(2):\n    model.fit(ds)",
    ),
    "over two cells": (
        [FILES, "ds = tf.data.TFRecordDataset(files).map(load)", "ds = ds.cache()\nds = ds.batch(BATCH)"],
        "model.fit(ds)",
        f"{TEMP}ds = tf.data.TFRecordDataset(files).map(load)\nds = ds.{DISK}\nds = ds.batch(BATCH)\nmodel.fit(ds)",
    ),
    "made by a function": (
        [FILES, "def pipeline(names, training=False):\n    d = tf.data.TFRecordDataset(names).map(load)\n    d = d.cache()\n    return d.batch(BATCH)", "ds = pipeline(files)"],
        "model.fit(ds, epochs=2)",
        f"{TEMP}def pipeline(names, training=False):\n    d = tf.data.TFRecordDataset(names).map(load)\n    d = d.{DISK}\n    return d.batch(BATCH)\nds = pipeline(files)\nmodel.fit(ds, epochs=2)",
    ),
    "what it is made of is still there": (
        [FILES, "raw = tf.data.TFRecordDataset(files)\nds = raw.map(load).cache().batch(BATCH)"],
        "model.fit(ds)",
        f"{TEMP}ds = raw.map(load).{DISK}.batch(BATCH)\nmodel.fit(ds)",
    ),
    "the cache is further up": (
        [FILES, "raw = tf.data.TFRecordDataset(files).cache()", "ds = raw.map(load).batch(BATCH)\nfor b in ds.take(1):\n    print(b)"],
        "model.fit(ds)",
        f"{TEMP}raw = tf.data.TFRecordDataset(files).{DISK}\nds = raw.map(load).batch(BATCH)\nmodel.fit(ds)",
    ),
    "a function of the cell reads it": (
        [FILES, "ds = tf.data.TFRecordDataset(files).map(load).cache().batch(BATCH)"],
        "def run(m):\n    m.fit(ds)\nrun(model)",
        f"{TEMP}ds = tf.data.TFRecordDataset(files).map(load).{DISK}.batch(BATCH)\ndef run(m):\n    m.fit(ds)\nrun(model)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_the_statements_are_written_into_the_cell_and_changed_there(name):
    earlier, source, changed = TAKEN[name]
    answer = ask(source, *earlier, datasets=("ds", "raw"), line=source.count("\n") + 1)
    assert isinstance(answer, Proposal), answer.reason
    assert (changed, "same results") == (answer.source, answer.preserves)
    assert "made anew in this one" in answer.caveats[0]


class Data:
    """A stand-in for ``tf.data.Dataset`` that says where its cache lies."""

    def __init__(self, items, cached=()):
        self.items, self.cached = list(items), list(cached)

    def map(self, function, **_):
        return Data(map(function, self.items), self.cached)

    def cache(self, path=""):
        return Data(self.items, [*self.cached, path])

    def batch(self, n):
        rest = iter(self.items)
        return Data(iter(lambda: list(itertools.islice(rest, n)), []), self.cached)

    def prefetch(self, _):
        return self

    def take(self, n):
        return Data(self.items[:n], self.cached)

    def __iter__(self):
        return iter(self.items)


@pytest.mark.parametrize("name", TAKEN)
def test_the_changed_cell_trains_on_the_same_with_its_cache_on_disk(name):
    earlier, source, _ = TAKEN[name]
    changed = ask(source, *earlier, datasets=("ds", "raw"), line=source.count("\n") + 1).source
    seen = {}
    for which, cell in (("before", source), ("after", changed)):
        fitted = seen.setdefault(which, [])
        model = SimpleNamespace(fit=lambda d, epochs=1, to=fitted: to.append((d.items, [p[:1] for p in d.cached])))
        names = {"model": model, "tf": SimpleNamespace(data=SimpleNamespace(TFRecordDataset=Data))}
        for one in (*earlier, cell.replace("%%tfmem\n", "")):
            exec(one, names)
    assert [items for items, _ in seen["before"]] == [items for items, _ in seen["after"]] != []
    assert {("",)} == {tuple(cached) for _, cached in seen["before"]}
    assert {("/",)} == {tuple(cached) for _, cached in seen["after"]}


def test_all_parts_of_one_dataset_are_made_anew_together():
    whole = "full = tf.data.Dataset.from_tensor_slices((x, y))\n"
    parts = "train = full.take(8).shuffle(9).batch(2)\nval = full.skip(8).batch(2)"
    answer = ask("model.fit(train)", whole + parts, datasets=("full", "train", "val"))
    rows = "full = tf.data.Dataset.range(len(x)).map(apply.rows((x, y)))\n"
    assert f"{rows}{parts}\nmodel.fit(train)" in answer.source
    assert answer.preserves == "same effective batch"  # `shuffle` has no seed
    assert answer.caveats[0].startswith("`full`, `train` and `val`, made in an earlier cell, are made anew")


def test_what_hinders_the_change_itself_is_said():
    cell = "full = tf.data.TFRecordDataset(p).cache()\ntrain = full.take(8)\nval = full.skip(8)"
    answer = ask("model.fit(train)", cell, datasets=("full", "train", "val"))
    assert answer.reason == "several readings at once may fill the cache, which one on disk does not allow"


def test_what_a_dataset_is_made_of_may_have_changed_where_that_is_only_read():
    answer = ask(
        "model.fit(ds)",
        "for name in names:\n    raw = tf.data.TFRecordDataset(name)",
        "ds = raw.map(f).cache()",
        "names.append(3)",
        datasets=("ds", "raw"),
    )
    assert answer.source == f"{TEMP}ds = raw.map(f).{DISK}\nmodel.fit(ds)"


def test_what_was_cut_off_a_shuffled_dataset_is_not_drawn_again():
    cell = "full = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(99)\ntrain = full.take(8).batch(2)\nval = full.skip(8)"
    answer = ask("model.fit(train)", cell, datasets=("full", "train", "val"))
    assert "and shuffled before it was split: made once more, the parts would be other samples" in answer.reason


@pytest.mark.parametrize(
    ("cell", "same"), [("model.fit(train)", True), ("tf.random.set_seed(1)\nmodel.fit(train)", False)]
)
def test_a_shuffle_with_a_seed_draws_the_same_unless_the_seed_of_all_is_set_since(cell, same):
    made = "full = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(99, seed=4)\ntrain = full.take(8)\nval = full.skip(8)"
    answer = ask(cell, "tf.random.set_seed(1)", made, datasets=("full", "train", "val"))
    assert isinstance(answer, Proposal) is same


CACHED = "ds = tf.data.TFRecordDataset(files).map(f).cache().batch(B)"
LEFT = {
    "a number that is another by now": ([CACHED, "B = 1"], "model.fit(ds)", "and `B`, which that reads, was changed since"),
    "a number that this cell sets": ([CACHED], "B = 1\nmodel.fit(ds)", "and `B`, which that reads, was changed since"),
    "a function that is another by now": (["def f(x):\n    return x", CACHED, "def f(x):\n    return -x"], "model.fit(ds)", "and `f`, which that reads"),
    "what a function reads": (["SIZE = 8\ndef f(x):\n    return x * SIZE", CACHED, "SIZE = 9"], "model.fit(ds)", "and `SIZE`, which that reads"),
    "a list that was shuffled": ([CACHED + "\nrandom.shuffle(files)"], "model.fit(ds)", "and `files`, which that reads"),
    "a list that grew": ([CACHED, "files.append('d')"], "model.fit(ds)", "and `files`, which that reads"),
    "a loop": (["for B in (1, 2):\n    " + CACHED], "model.fit(ds)", "by code that does more than make `ds`"),
    "a download": ([CACHED.replace("files", "download()")], "model.fit(ds)", "by code that does more than make `ds`"),
    "two at once": ([CACHED.replace("ds =", "ds, n =") + ", 1"], "model.fit(ds)", "by code that does more than make `ds`"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_where_that_may_not_be_the_same_the_change_of_the_earlier_cell_is_there_to_copy(name):
    earlier, source, why = LEFT[name]
    answer = ask(source, *earlier)
    assert isinstance(answer, Declined), answer.source
    assert f"`ds` was made in an earlier cell, {why}" in answer.reason
    assert answer.reason.endswith("change it there and run that")
    assert f"+{'    ' if name == 'a loop' else ''}ds" in answer.patch
    assert DISK in answer.patch


def test_a_dataset_that_the_cell_made_itself_is_left_to_it():
    answer = ask("ds = other()\nmodel.fit(ds)", CACHED, line=2)
    assert isinstance(answer, Declined)
    assert "earlier cell" not in answer.reason


def test_many_earlier_cells_change_nothing():
    cells = [f"note_{n} = {n}\nprint(note_{n})" for n in range(60)]
    random.Random(4).shuffle(cells)
    assert ask("model.fit(ds)", FILES, CACHED, *cells).source == ask("model.fit(ds)", FILES, CACHED).source


SETUP = """
import keras, numpy as np, os, tensorflow as tf
x = np.random.default_rng(0).standard_normal((103, 6)); y = np.arange(103) % 2
with tf.io.TFRecordWriter('r') as out:
    for i in range(50): out.write(np.full(6, i / 50, 'float32').tobytes())
def load(s):
    row = tf.io.decode_raw(s, tf.float32)
    return row, row[0]
def pipeline(names, batch=8):
    d = tf.data.TFRecordDataset(names)
    d = d.map(load, num_parallel_calls=tf.data.AUTOTUNE).cache()
    return d.batch(batch).prefetch(2)
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
model.compile("sgd", "mse")
"""
FIT = "h = model.fit(ds, epochs=2, verbose=0)\nresult = [h.history, model.get_weights()]"
REAL = {
    "records, cached": (SETUP + "ds = tf.data.TFRecordDataset('r').map(load).cache().batch(8)", FIT),
    "by a function": (SETUP + "ds = pipeline('r')", FIT),
    "arrays": (SETUP + "ds = tf.data.Dataset.from_tensor_slices((x, y))\nds = ds.batch(8)", FIT),
    "split": (
        SETUP
        + "full = tf.data.Dataset.from_tensor_slices((x, y))\nds = full.take(80).batch(8)\nval = full.skip(80).batch(8)",
        "h = model.fit(ds, validation_data=val, epochs=2, verbose=0)\nresult = [h.history, model.get_weights()]",
    ),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return run_cells(REAL, tmp_path_factory.mktemp("taken"))


@pytest.mark.tf
@pytest.mark.parametrize("name", REAL)
def test_the_cell_that_makes_it_anew_trains_to_the_same_weights(ran, name):
    one = ran[name]
    assert "same results" == one.get("preserves"), one
    assert one["before"] == one["after"]
    assert "\nds = " in one["source"]
    assert any(word in one["source"] for word in ("mkdtemp", "apply.rows"))
