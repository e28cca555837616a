"""Data whose length a cell asks for: run, the edited cell still gets it."""

from __future__ import annotations

import pytest

from tests.notebook.batch.means.runs import ADDS, asked, same
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch

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
