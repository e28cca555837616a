"""The line that names what a failed run had already changed."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.outcome import Change, Outcome
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.report.changed import changes_label


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({}, ""),
        ({"model": "steps", "out.csv": "file"}, "Already changed: `model`, perhaps `out.csv`"),
        ({"data": "read-once"}, "Used up: `data`, run the cell that makes it first"),
        ({"a": "read-once", "b": "read-once"}, "Used up: `a`, `b`, run the cell that makes them first"),
        (
            {"model": "steps", "data": "read-once"},
            "Used up: `data`, run the cell that makes it first; already changed: `model`",
        ),
    ],
)
def test_what_can_be_read_only_once_is_not_said_to_be_changed(kinds, said):
    changes = tuple(Change(kind, name, "") for name, kind in kinds.items())
    assert said == changes_label(Outcome(Recording(Cell("x = 1"), status="oom"), changes=changes))
