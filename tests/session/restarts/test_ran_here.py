"""What the cells of a plan are now, as the notebook tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tf_mem_magic.session.restarts.ran_here import PlannedCell, as_it_is_now

CELL = PlannedCell("b", "y = load(x)", ("x = 1", "fit(y)"), frozenset("abc"))
NAMELESS = PlannedCell("", CELL.source, CELL.others)


def now(cell, cells, ran=()):
    session = SimpleNamespace(ran_cells=ran, shell=SimpleNamespace(user_ns={}))
    return as_it_is_now(session, SimpleNamespace(page_cells=cells), cell)


@pytest.mark.parametrize(
    ("cells", "source"),
    [
        ({"a": "x = 1", "b": "y = other(x)"}, "y = other(x)"),
        ({"a": "x = 1", "pasted": "y = load(x)\n"}, "y = load(x)\n"),
        ({"a": "x = 1", "c": "fit(y)"}, None),
        ({"a": "x = 1", "new": "y = load(x, 2)"}, None),
        ({"new 1": "x = 1", "new 2": "y = load(x, 2)", "new 3": "fit(y)"}, "y = load(x, 2)"),
    ],
    ids=["edited", "pasted", "deleted", "deleted, another is like it", "all names are new"],
)
def test_a_cell_with_a_name_is_what_the_page_has_under_it(cells, source):
    assert source == now(CELL, cells)


@pytest.mark.parametrize(
    ("cells", "source"),
    [
        ({"1": "x = 1", "2": "y = load(x)"}, "y = load(x)"),
        ({"1": "x = 1", "2": "y = load(x, 2)"}, "y = load(x, 2)"),
        ({"1": "x = 1", "2": "y = load(x, 2)", "3": "y = load(x, 3)"}, "y = load(x)"),
        ({}, "y = load(x)"),
    ],
    ids=["as it was", "edited", "not clear", "nothing"],
)
def test_a_cell_without_a_name_is_its_only_edited_version(cells, source):
    assert source == now(NAMELESS, cells)
