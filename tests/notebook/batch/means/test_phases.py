"""Loops that go through the data of training and validation in turn: all of them get the smaller batches, or none."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.follow.reader import Unknown
from tf_mem_magic.notebook.text.cell import read_cell

MADE = "first = load('a').batch({0})\nsecond = load('b').map(pair).batch({0}).prefetch(1)\n"
TURNS = [
    "for phase, ds in [('train', first), ('val', second)]:\n    for x, y in ds:\n",
    "for ds, trains in ((first, True), (second, False)):\n    for x, y in tqdm(ds):\n",
    "parts = [('train', first), ('val', second)]\nfor phase, ds in parts:\n    for i, (x, y) in enumerate(ds):\n",
    "for ds in [first, second]:\n    for x, y in ds:\n",
    "data = {'train': first, 'val': second}\nfor phase in ['train', 'val']:\n    for x, y in data[phase]:\n",
    "data = {'train': first, 'val': second}\nfor phase, ds in data.items():\n    for x, y in ds:\n",
    "for ds in {'train': first, 'val': second}.values():\n    for x, y in ds:\n",
]
BODY = "        model.train_on_batch(x, y)\n"


def found_in(source, facts=None):
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "train_on_batch" in text)
    return find_batch(read_cell(source), facts or Facts(), frozenset({line}))


@pytest.mark.parametrize("turns", TURNS)
def test_all_data_of_the_cell_get_smaller_batches(turns):
    source = MADE.format(64) + turns + BODY
    found = found_in(source)
    assert isinstance(found, BatchFound), found.reason
    assert set_batch(found, 32)[0] == MADE.format(32) + turns + BODY
    named = found_in("BATCH = 64\n" + MADE.format("BATCH") + turns + BODY)
    assert isinstance(named, BatchFound), named.reason
    assert set_batch(named, 32)[0] == "BATCH = 32\n" + MADE.format("BATCH") + turns + BODY


@pytest.mark.parametrize("turns", TURNS)
def test_two_sizes_or_data_of_earlier_cells_are_declined_with_the_true_reason(turns):
    other = found_in(MADE.format(64).replace("64", "16", 1) + turns + BODY)
    assert isinstance(other, Unknown)
    assert "several batch sizes here (16 and 64)" in other.reason
    known = tuple(DatasetFacts(name, batch=64, cardinality=10, samples=640) for name in ("first", "second"))
    earlier = found_in(turns + BODY, Facts(datasets=known, earlier_cells=(MADE.format(64),)))
    assert isinstance(earlier, Unknown), set_batch(earlier, 32)
    assert "several datasets in turn, and `first` was made in an earlier cell" in earlier.reason


@pytest.mark.parametrize("change", ["data['test'] = load('c').batch(64)", "data = make(first)", "data.update(more)"])
def test_a_dict_that_changes_is_not_followed(change):
    assert isinstance(found_in(MADE.format(64) + TURNS[4].replace("\nfor", f"\n{change}\nfor") + BODY), Unknown)
