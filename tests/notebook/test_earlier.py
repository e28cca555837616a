"""The earlier cells: which of them matter to a question is told by their text, once for a notebook that grows."""

from __future__ import annotations

import re

import pytest

from tf_mem_magic.notebook import earlier
from tf_mem_magic.notebook.bindings import last_bindings
from tf_mem_magic.notebook.earlier import EarlierCells, earlier_cells
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """Begin with nothing known of any cell."""
    monkeypatch.setattr(earlier, "_LISTS", [])
    earlier_cells.cache_clear()
    yield
    earlier_cells.cache_clear()


def cells(*texts: str) -> EarlierCells:
    return earlier_cells(texts)


def numbers(found) -> list[int]:
    return [number for number, _ in found]


def test_a_notebook_that_grew_asks_only_the_new_cells_of_a_word(monkeypatch):
    asked = []
    matters = earlier.may_bind
    monkeypatch.setattr(earlier, "may_bind", lambda name, text: asked.append(text) or matters(name, text))
    assert 1 == len(cells("x = 1", "y = 2").binding("x"))
    assert 2 == len(cells("x = 1", "y = 2", "x = 3").binding("x"))
    assert ["x = 1", "x = 3"] == asked


def test_a_notebook_that_was_longer_is_asked_without_its_last_cells():
    long = cells("x = 1", "y = x", "x = 3")
    assert [0, 1, 2] == long.places_with("x")
    assert [0, 1] == cells("x = 1", "y = x").places_with("x")
    assert not cells("x = 1").mentions("y")


def test_two_notebooks_that_begin_alike_are_kept_apart():
    cells("x = 1", "y = 2")
    assert [0, 1] == cells("x = 1", "x = 2").places_with("x")
    assert [0] == cells("x = 1", "y = 2").places_with("x")


def test_a_pattern_is_looked_for_in_every_cell_also_in_those_that_came_later():
    pattern = re.compile(r"\bfit\(")
    assert not cells("x = 1").matches(pattern)
    assert cells("x = 1", "m.fit(x)").matches(pattern)
    assert cells("x = 1", "m.fit(x)").matches(pattern, "fit(")
    assert not cells("x = 1", "m.fit(x)").matches(pattern, "predict")


def test_what_a_text_says_of_keras_is_followed_through_imports_and_definitions():
    found, known = cells(
        "import numpy as np",
        "import keras, numpy as np",
        "from keras import layers as L",
        "def block(x):\n    return L.Dense(3)(x)",
        "y = block(x)",
        "z = np.ones(3)",
        "a = z",
    ).reached_from("keras")
    assert {1, 2, 3, 4} == set(found)
    assert {"keras", "L", "layers", "block"} <= known
    assert "np" not in known


ON_TOP = (
    "x = 1",
    "if a:\n    x = 1",
    "for x in y:\n    pass",
    "with open(p) as x:\n    pass",
    "def x(a):\n    return a",
    "class x:\n    pass",
    "async def x():\n    pass",
    "@wrap\ndef x():\n    pass",
    "def f():\n    pass\nx = 1",
    "def f():\n\n    pass\n\n\nx = 1",
    "def f():\n    '''a\nb'''\n    y = 1\nx = 1",
    "def f(\n    a,\n):\n    return a\nx = 1",
    "def f(): return 1\nx = 1",
    "class A:\n    y = 1\n\n    def f(self):\n        return 1\nx, y = 1, 2",
    'text = """\ndef f():\n    a\n"""; x = 1',
    "import x",
    "from m import y as x",
    "(y, x) = 1, 2",
    "print(x := 3)",
    "try:\n    x = 1\nexcept E:\n    pass",
    "\r\nx = 1\r\ndef f():\r\n    pass\r\nx = 2",
    "%time x = f()",
    "%%tfmem\nx = 1",
    "del x",
    "x += 1",
    "[x for x in y]",
    "f([x for x in y])",
    "f(lambda x: 1)",
    "f(x := 1)",
    "f(y); x = 1",
    "del(x)",
    "from m import(x, y)",
    "with f() as(x, y): pass",
    "for(x) in y: pass",
    "if(x := 1): pass",
    "f(g(y)) ; x = 1",
    "a[f(1)], x = 1, 2",
    "(f(1).a, x) = y",
    "f(y)[x] = 1; x = 2",
    "print('('); x = 1",
    "print('f('); x = 1",
    "y = 1  # f(\nx = 1",
    "f(y, x=1); x = 2",
    "(y, x) = f(z)",
    "for y, x in f(z): pass",
    "with f(y) as (z, x): pass",
    "f(\n    y,\n); x = 1",
    "f(x[0]).y = x = 1",
)


@pytest.mark.parametrize("text", ON_TOP)
def test_a_cell_that_binds_a_name_of_the_notebook_is_among_those_that_may(text):
    cell = read_cell(text)
    assert isinstance(cell, PythonCell)
    assert "x" in last_bindings(cell)
    assert [0] == numbers(cells(text).binding_on_top("x"))


@pytest.mark.parametrize("text", [*ON_TOP, "x.append(1)", "x[0] = 1", "x.a = 1", "if a:\n    x.fit(y)"])
def test_a_cell_that_makes_or_changes_what_a_name_holds_is_among_those_that_may(text):
    assert [0] == numbers(cells(text).making("x"))


@pytest.mark.parametrize("text", ["print(x)", "y = 1", "def f(x):\n    x = 1", "a.x = 1"])
def test_a_cell_that_only_reads_a_name_makes_nothing_of_it(text):
    assert [] == numbers(cells(text).making("x"))


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    x = 1\n    return x",
        "class A:\n    x = 1\n\n    def f(self, x):\n        self.x = x\n",
        "async def f(x):\n    x = 2",
    ],
)
def test_what_only_a_function_or_class_has_inside_binds_nothing_of_the_notebook(text):
    assert [] == numbers(cells(text).binding_on_top("x"))


@pytest.mark.parametrize("text", ["def f():\n    global x\n    x = 1", "x.a = 1", "x['a'] = 1", "x.b.c = 2", "x = 1"])
def test_a_cell_that_sets_a_name_or_a_part_of_it_is_among_those_that_may(text):
    assert 1 == len([*cells(text).setting("x")])


@pytest.mark.parametrize("text", ["import x", "from m import x", "y = x.f(axis=0)", "import x as x\nx.seed(1)"])
def test_what_only_imports_or_uses_a_name_does_not_set_it(text):
    assert [] == [*cells(text).setting("x")]


@pytest.mark.parametrize(
    "text", ["f(x)", "m.fit(x, y, epochs=2)", "z = m.fit(y, x)", "f(y, x=1)", "a[0] = f(1, x)", "f(g(y) - x)"]
)
def test_a_name_that_is_only_an_argument_is_neither_set_nor_changed(text):
    assert [] == numbers(cells(text).binding_on_top("x"))
    assert [] == numbers(cells(text).making("x"))
    assert [] == [*cells(text).setting("x")]


def test_cells_are_parsed_as_they_are_asked_for(monkeypatch):
    read = []
    monkeypatch.setattr(earlier, "read_cell", lambda text: read.append(text) or read_cell(text))
    found = cells("x = 1", "x = 2", "x = 3").binding_on_top("x")
    assert 2 == next(iter(found))[0]
    assert ["x = 3"] == read


def test_what_is_worked_out_of_the_cells_is_worked_out_once():
    worked = []
    for _ in range(2):
        assert 3 == cells("x = 1").once("question", lambda: worked.append(1) or 3)
    assert [1] == worked
