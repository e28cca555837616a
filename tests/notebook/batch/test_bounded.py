"""Finding a batch size takes work in proportion to the cell, whatever the cell; counted in calls, not in seconds."""

import ast
import sys

import pytest

from tf_mem_magic.core.facts import Facts, ScalarFact
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import MOST_STEPS, Reader, Unknown
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

FIT = "model.fit(x, y, batch_size=bs)"


def nested(depth, inner, lead="if a"):
    lines = [f"{' ' * i}{lead}{i}:" for i in range(depth)]
    return "\n".join([*lines, " " * depth + inner])


def doubling(n):
    """Each function calls the next in two places: without a memory 2 ** n ways lead to the end."""
    calls = [f"def f{i}(b):\n    f{i + 1}(b)\n    f{i + 1}(b)" for i in range(n)]
    return "\n".join([*calls, f"def f{n}(bs):\n    {FIT}", "f0(64)"])


SOURCES = {
    "a function that calls itself": lambda n: (
        f"def train(bs, k):\n    {FIT}\n    train(bs, k - 1)\n" + "x = 1\n" * n + "train(64, 3)"
    ),
    "functions that call each other": lambda n: "\n".join(
        [*(f"def f{i}(bs):\n    f{(i + 1) % n}(bs)" for i in range(n)), f"def train(bs):\n    {FIT}", "train(f0(64))"]
    ),
    "a generator that calls itself": lambda n: (
        "def data(k):\n    ds = data(k - 1)\n    return ds\n" + "z = 1\n" * n + "model.fit(data(3))"
    ),
    "data sets that are made from each other": lambda n: "\n".join(
        [*(f"def d{i}():\n    return d{(i + 1) % n}()" for i in range(n)), "model.fit(d0())"]
    ),
    "names that are set from each other": lambda n: "\n".join(
        [*(f"a{i} = a{i + 1}" for i in range(n)), f"a{n} = 64", "model.fit(x, y, batch_size=a0)"]
    ),
    "sums of a name with itself": lambda n: "\n".join(
        ["a0 = 1", *(f"a{i + 1} = a{i} + a{i}" for i in range(n)), f"model.fit(x, y, batch_size=a{n})"]
    ),
    "two calls of each function": lambda n: doubling(n // 10),
    "a long cell": lambda n: "bs = 64\n" + "y = g(x, 3)\n" * n + FIT,
    "a long function": lambda n: "def run(bs):\n" + "    y = g(x, 3)\n" * n + f"    {FIT}\nrun(64)",
    "many assignments of one name": lambda n: "bs = 64\n" * n + FIT,
    "many assignments of one name, each from the last": lambda n: "bs = 64\n" + "bs = bs + 1\n" * n + FIT,
    "many uses of the name": lambda n: "bs = 64\n" + "print(bs)\n" * n + FIT,
    "many calls of fit": lambda n: "bs = 64\n" + f"{FIT}\n" * n,
    "many attributes": lambda n: (
        "class C:\n    bs = 64\nc = C()\n" + "c.a = 1\nc.b.d = c.a\n" * n + "model.fit(x, y, batch_size=c.bs)"
    ),
    "a long chain of methods": lambda n: (
        "ds = d.batch(64)" + ".map(f)" * min(n // 4, 150) + "\n" + "z = 1\n" * n + "model.fit(ds)"
    ),
    "a dataset wrapped again and again": lambda n: (
        "ds = d.batch(64)\n" + "ds = ds.map(f)\n" * n + "model.fit(ds, steps_per_epoch=len(x) // bs)"
    ),
    "steps from many names": lambda n: "\n".join(
        ["s0 = 9", *(f"s{i + 1} = s{i} * s{i}" for i in range(n)), f"model.fit(d.batch(64), steps_per_epoch=s{n})"]
    ),
    "deep blocks": lambda n: "bs = 64\n" + nested(min(n // 4, 60), FIT) + "\n" + "z = 1\n" * n,
    "deep functions": lambda n: "bs = 64\n" + nested(min(n // 4, 60), FIT, "with b") + "\n" + "z = 1\n" * n,
    "deep brackets": lambda n: "model.fit(x, y, batch_size=" + "(" * 60 + "64" + ")" * 60 + ")\n" + "z = 1\n" * n,
    "a table": lambda n: "table = [" + ", ".join(f"({i}, {i})" for i in range(n)) + f"]\nbs = 64\n{FIT}",
    "a loop over slices": lambda n: (
        "batch_size = 64\n"
        + "z = batch_size * 2\n" * n
        + "for i in range(0, 9, batch_size):\n    step(x[i:i+batch_size])"
    ),
}


def ask(source, last=True):
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    lines = frozenset({len(cell.starts)}) if last else frozenset()
    return find_batch(cell, Facts(scalars=(ScalarFact("g", 1),)), lines)


def calls_of(source, last=True):
    """Count the calls of functions of Python while the batch size is looked for."""
    count = 0

    def counted(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        ask(source, last)
    finally:
        sys.setprofile(before)
    return count


MOST_CALLS = 300
"""So many calls for each node of the tree: the tree is walked some forty times, whatever is in it."""


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("last", [True, False], ids=["line", "no line"])
def test_the_work_grows_with_the_cell_and_no_faster(name, last):
    source = SOURCES[name](150)
    nodes = len(list(ast.walk(ast.parse(source))))
    assert calls_of(source, last) < MOST_CALLS * nodes


@pytest.mark.parametrize("name", ["a long cell", "many assignments of one name, each from the last"])
def test_three_thousand_lines_take_no_more_for_each_node(name):
    source = SOURCES[name](3_000)
    nodes = len(list(ast.walk(ast.parse(source))))
    assert calls_of(source) < MOST_CALLS * nodes


def sums(n):
    """Write a loop that adds up ``n`` losses, each of them read in a mean."""
    means = [f"    print(t{i} / len(ds))\n    t{i} = 0" for i in range(n)]
    adds = [f"        t{i} += f(x)" for i in range(n)]
    return "\n".join(["ds = d.batch(64)\nfor e in range(3):", *means, "    for x in ds:", *adds])


def test_many_sums_in_one_loop_take_no_more_for_each():
    few, many = (calls_of(sums(n)) / n for n in (50, 400))
    assert many < 2 * few


def test_what_waits_for_itself_is_unknown():
    cell = read_cell("def train(bs):\n    return train(train(bs))\nn = train(64)\nmodel.fit(x, y, batch_size=n)")
    reader = Reader(cell, Facts())
    found = resolve(reader, cell.tree.body[-1].value.keywords[0].value)
    assert isinstance(found, Unknown)


def test_a_question_is_worked_out_once():
    cell = read_cell("a = 64\nb = a + a\nc = b + b\nn = c + c")
    reader = Reader(cell, Facts())
    assert 512 == evaluate(reader, cell.tree.body[-1].value)
    before = reader.steps
    evaluate(reader, cell.tree.body[-1].value)
    assert before == reader.steps <= 9


def test_no_cell_takes_more_questions_than_the_bound():
    cell = read_cell("\n".join(f"a{i} = b{i} = {i}\nprint(a{i})" for i in range(9_000)))
    reader = Reader(cell, Facts())
    for statement in cell.tree.body[1::2]:
        resolve(reader, statement.value.args[0])
    assert MOST_STEPS == reader.steps


def test_a_function_that_calls_itself_with_what_it_got_takes_its_batch_from_the_first_call():
    source = f"def train(bs, k):\n    if k:\n        train(bs, k - 1)\n    {FIT}\ntrain(64, 3)"
    found = find_batch(read_cell(source), Facts(), frozenset({3, 4, 5}))
    assert 64 == getattr(found, "value", found)


@pytest.mark.parametrize("again", ["train(bs // 2)", "train(bs=bs / 2)", "train(32)"])
def test_a_function_that_calls_itself_with_another_batch_is_refused(again):
    source = f"def train(bs):\n    try:\n        {FIT}\n    except E:\n        {again}\ntrain(64)"
    cell = read_cell(source)
    assert isinstance(find_batch(cell, Facts(), frozenset({3})), Unknown)
