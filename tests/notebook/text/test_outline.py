"""What a cell's text tells without being parsed: never that something is not there which is."""

from __future__ import annotations

import sys

import pytest

from tf_mem_magic.notebook.text import outline
from tf_mem_magic.notebook.text.outline import (
    calls_of,
    may_bind,
    may_bind_on_top,
    may_import,
    may_make_on_top,
    may_set,
    names_defined,
    times_called,
)

SETS = [
    "x = 1",
    "x, y = 1, 2",
    "y = x = 1",
    "[x, *y] = data",
    "for x in data: pass",
    "for (i, x) in enumerate(data):\n    print(i)",
    "with open(path) as x:\n    pass",
    "print(x := 5)",
    "print((x\n:= 5))",
    "def x():\n    pass",
    "class  x(Base):\n    pass",
    "x: int = 3",
    "x += 1",
    "if True:\n    x = 1",
    "print(1); x = 2",
    "del x",
    "match data:\n    case [x, _]:\n        pass",
]
IMPORTS = [
    "import x",
    "import a, x",
    "import a as x",
    "from a import x",
    "from a import (\n    b,\n    x,\n)",
    "from a import b, \\\n    x",
    "y = 1; import x",
    "if True:\n    import x as z",
    "import a.x",
    "try: import x\nexcept ImportError: pass",
]
READS = [
    "model.fit(x, y)",
    "model.fit(y, x, batch_size=32)",
    "print(float(model.predict(x)))",
    "x.shape",
    "x (3)",
    "a.x = 3",
    "xx = 3",
    "ax, bx = 1, 2",
    "def f(a):\n    x = a\n    return x",
]


@pytest.mark.parametrize("text", SETS)
def test_what_sets_a_name_is_told(text):
    assert may_bind("x", text)
    assert may_bind_on_top("x", text)
    assert may_make_on_top("x", text)
    assert may_set("x", text)


@pytest.mark.parametrize("text", IMPORTS)
def test_what_imports_a_name_is_told_and_sets_nothing_else(text):
    assert may_import("x", text)


@pytest.mark.parametrize("text", [t for t in IMPORTS if t.startswith(("import", "from"))])
def test_an_import_sets_nothing_of_the_notebooks_own(text):
    assert not may_set("x", text)


@pytest.mark.parametrize("text", READS)
def test_what_only_reads_a_name_does_not_set_it_on_top(text):
    assert not may_bind_on_top("x", text)
    assert not may_set("x", text)
    assert not may_import("x", text)


@pytest.mark.parametrize("text", ["x.size = 3", "x . size = 3", "x.part.size += 1", "x.part[0].size = 2"])
def test_an_attribute_that_is_set_changes_what_the_name_holds(text):
    assert may_set("x", text)
    assert may_make_on_top("x", text)
    assert not may_bind("x", text)


def test_a_function_sets_a_name_of_the_notebook_where_it_says_so():
    assert may_set("x", "def f():\n    global x\n    x = 1")
    assert not may_set("x", "def f():\n    x = 1")


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("def f():\n    pass", 0),
        ("f()", 1),
        ("f ()\nself.f()", 2),
        ("f(f(1))", 2),
        ("class f(Base):\n    pass", 0),
        ("of(1); f_2(3)", 0),
        ("subclass f(1)", 1),
    ],
)
def test_calls_are_counted_but_not_where_the_name_is_defined(text, times):
    assert times == times_called("f", text)


@pytest.mark.parametrize(
    ("text", "often"),
    [
        ("f(1)", False),
        ("for i in range(3):\n    f(i)", True),
        ("parts = [f(i) for i in range(3)]", True),
        ("while True: f(1)", True),
        ("def g():\n    return f(1)", True),
        ("class Net:\n    def call(self, x):\n        return f(x)", True),
        ("before = f(1)", False),
        ("for i in range(3):\n    g(i)", False),
    ],
)
def test_a_call_in_a_loop_or_function_may_run_often(text, often):
    assert often is calls_of("f", text)[1]


def test_definitions_at_the_left_edge_are_named():
    text = "def a():\n    def inner(): pass\nclass B:\n    def b(self): pass\nasync  def c(): pass\nx = 'def d'"
    assert frozenset({"a", "B", "c"}) == names_defined(text)


LONG = [
    "data = [" + "1, " * 2000 + "]; ",
    "text = '" + "a b " * 1000 + "'; ",
    "g(" + "x, " * 2000 + "); ",
    "z = 1;" + " " * 5000,
]
"""What may stand in a line before a statement where code was written by code."""


@pytest.mark.parametrize("before", LONG)
def test_behind_a_long_line_nothing_is_told_not_to_be_there(before):
    for text in ("x = 1", "x, y = 1, 2", "print(x := 5)", "x += 1", "for x in data: pass", "del x"):
        assert may_set("x", before + text)
        assert may_bind_on_top("x", before + text)
        assert may_make_on_top("x", before + text)
    for text in ("import x", "import a as x", "from a import b, x", "import " + "a, " * 1000 + "x"):
        assert may_import("x", before + text)
    assert may_set("x", before + "x.part" + "[0].part" * 500 + ".size = 2")


@pytest.mark.parametrize(
    "written",
    [
        lambda n: "cells = [" + "'x = build(x)', " * n + "]",
        lambda n: "rows = (" + "(x, 1), " * n + ")",
        lambda n: "x.a = " + "x.f(x) + " * n + "1",
        lambda n: "import " + "x as y, " * n + "z",
        lambda n: "x; " * n,
    ],
)
def test_a_line_twice_as_long_is_twice_the_work(written):
    def work(n):
        steps = 0

        def count(frame, event, arg):
            nonlocal steps
            if frame.f_code.co_filename != outline.__file__:
                return None
            steps += event == "line"
            return count

        text = written(n)
        before = sys.gettrace()
        sys.settrace(count)
        try:
            may_set("x", text)
            may_make_on_top("x", text)
            may_import("x", text)
        finally:
            sys.settrace(before)
        return steps

    assert work(2000) <= 2.2 * work(1000) + 100
