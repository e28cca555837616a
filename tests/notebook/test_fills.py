"""Statements that add one entry to a list or dict."""

from __future__ import annotations

import ast

import pytest

from tf_mem_magic.notebook.fills import fills_of
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell


def found(source):
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    return [(ast.unparse(fill.entry), fill.at_end) for fill in fills_of(cell, "held")]


@pytest.mark.parametrize(
    ("source", "entry", "at_end"),
    [
        ("held.append(model)", "model", True),
        ("if good:\n    held.append(build(3))", "build(3)", True),
        ("held += [model]", "model", True),
        ("held += (model,)", "model", True),
        ("held = held + [model]", "model", True),
        ("held[name] = model", "model", False),
        ("held['a', 3] = model", "model", False),
    ],
)
def test_an_entry_is_found_in_every_spelling(source, entry, at_end):
    assert [(entry, at_end)] == found(source)


@pytest.mark.parametrize(
    "source",
    [
        "held.append(*models)",
        "held.extend(models)",
        "held += models",
        "held += [*models]",
        "held += [one, two]",
        "held -= [model]",
        "held = [model] + held",
        "held = other + [model]",
        "other.append(model)",
        "run.held.append(model)",
        "x = held.append(model)",
        "held.best[0] = model",
    ],
)
def test_what_adds_several_or_elsewhere_is_none(source):
    assert [] == found(source)
