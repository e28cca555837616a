"""The functions of earlier cells that a cell reaches."""

from __future__ import annotations

import linecache
import types

import pytest

from tf_mem_magic.facts.functions import find_functions

FILE = "/tmp/ipykernel_7/{}.py"
CELL = """import functools

SIZE, KEPT = 4, [1]

def helper(x):
    # a comment
    return x + SIZE

def train(data, epochs=SIZE, *, name="a"):
    return [helper(x) for x in data]

def listed(x, kept=KEPT):
    return kept

def changed(x, size=SIZE):
    return size

def fresh(x, made=[]):
    return made

def noted(x, seen={}):
    return seen

def filled(x, made=[]):
    made.append(x)
    return made

def looked_up(x, *, seen={}):
    seen[x] = x
    return seen

filled(1), looked_up(2)

def twice(f):
    return f

@twice
def decorated(x):
    return x

def outer():
    def inner():
        return data
    data = 3
    return inner

closure = outer()
partial = functools.partial(train, [1])
also = helper
square = lambda x: x * x

class Trainer:
    def fit(self):
        return helper(1)
"""


@pytest.fixture(scope="module")
def namespace():
    module = types.ModuleType("__main__")
    run(module, 1, CELL)
    module.SIZE = 5
    return vars(module)


def run(module, number, source):
    """Run source as IPython runs a cell: under a file name that linecache can read."""
    name = FILE.format(number)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), module.__dict__)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("helper(3)", ["helper"]),
        ("x = 1\nlisted(x)", ["listed"]),
        ("train(x)", []),  # its default is another today
        ("changed(x)", []),
        ("fresh(x)", ["fresh"]),
        ("noted(x)", ["noted"]),
        ("filled(x)", []),
        ("looked_up(x)", []),
        ("decorated(x)", []),
        ("closure()", []),
        ("square(3)", []),
        ("also(3)", []),
        ("print(Trainer().fit())", []),
        ("def helper(x):\n    return x\nhelper(3)", []),
        ("unknown(helper)", ["helper"]),
    ],
)
def test_functions_that_would_be_the_same_today_are_found(namespace, source, expected):
    assert [f.name for f in find_functions(source, namespace)] == expected


def test_a_function_brings_those_that_it_calls(namespace):
    again = dict(namespace, SIZE=4)
    module = types.ModuleType("__main__")
    module.__dict__.update(again)
    run(module, 2, CELL)
    found = find_functions("result = train(data)", vars(module))
    assert [f.name for f in found] == ["train", "helper"]
    assert found[1].source == "def helper(x):\n    # a comment\n    return x + SIZE"
    assert (found[1].file, found[1].line, found[1].staged) == (FILE.format(2), 5, False)


def test_code_of_a_module_is_not_a_cell(namespace):
    module = types.ModuleType("__main__")
    exec(compile("def helper(x):\n    return x", "/home/me/helpers.py", "exec"), module.__dict__)
    assert find_functions("helper(1)", vars(module)) == ()
    assert find_functions("loads('1')", dict(namespace, loads=__import__("json").loads)) == ()


def test_a_function_whose_source_is_gone_is_left_out():
    module = types.ModuleType("__main__")
    exec(compile("def helper(x):\n    return x", FILE.format(99), "exec"), module.__dict__)
    assert find_functions("helper(1)", vars(module)) == ()
