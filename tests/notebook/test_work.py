"""How much work an explanation is: parses and node visits are counted, nothing is timed."""

from __future__ import annotations

import ast
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.notebook_cells import NotebookCell
from tests.remedies.test_edits import KNOWN, facts_of
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording, Series
from tf_mem_magic.explain import explain
from tf_mem_magic.notebook.text import cell
from tf_mem_magic.notebook.text.cell import DEEPEST, read_cell
from tf_mem_magic.notebook.text.mask import NotPython

MIB = 1 << 20
CELL = """%%tfmem
import keras
import numpy as np
class Block(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.inner = keras.layers.Dense(units, "gelu")
        self.outer = keras.layers.Dense(64)
    def call(self, x):
        return x + self.outer(self.inner(x))
x = np.zeros((4096, 64), "float32")
y = np.zeros((4096, 1), "float32")
h = inputs = keras.Input((64,))
for k in range(6):
    h = Block(512)(h)
model = keras.Model(inputs, keras.layers.Dense(1)(h))
model.compile("adam", "mse")
history = model.fit(x, y, batch_size=64, epochs=3)
# {0}
"""
"""A cell about which most remedies have something to say; what is put in makes it one that was never read before."""

PLAIN = """def helper_{0}(a, b):
    c = a + b
    for k in range(10):
        c = c * k
    return c

class Config{0}:
    lr = 0.1
    units = 64

value_{0} = helper_{0}(1, 2)
table_{0} = [helper_{0}(q, q) for q in range(4)]
if value_{0} > 3:
    name_{0} = value_{0} + 1
print(value_{0})
"""
MODELS = """inputs_{0} = keras.Input((64,))
h = keras.layers.Dense(32, activation="relu")(inputs_{0})
for width in (64, 32):
    h = keras.layers.Dense(width)(h)
net_{0} = keras.Model(inputs_{0}, h)
net_{0}.compile("adam", "mse")
x = np.random.rand(100, 64).astype("float32")
history = net_{0}.fit(x, y, batch_size=10, epochs=1, verbose=0)
print(history.history["loss"])
def block_{0}(t):
    t = keras.layers.Dense(8)(t)
    return keras.layers.Dense(8)(t)
def train_{0}(n):
    return train_{0}(n - 1) if n else block_{0}(h)
scores = net_{0}.evaluate(x, y)
model_name = "net_{0}"
"""
TEXT = (
    "OOM when allocating tensor with shape[64,1024] and type float on "
    "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc"
)


def failed(source, earlier=()):
    """Give a run that ran out of memory in the last line that trains, after ``earlier``."""
    lines = source.splitlines()
    line = max((n for n, text in enumerate(lines, 1) if "fit(" in text), default=2) - 1
    known = facts_of(NotebookCell("work", source), KNOWN[0])
    models = tuple(replace(m, layers=("Block", "Dense")) if m.name == "model" else m for m in known.models)
    facts = replace(known, models=models, earlier_cells=(*known.earlier_cells, *earlier), sessions=())
    frames = (Frame("cell.py", line, "<module>", True, True),)
    error = ErrorText(
        "ResourceExhaustedError", TEXT, frames, ("tensorflow.python.framework.errors_impl.ResourceExhaustedError",)
    )
    series = Series("allocator:GPU:0", (0.0, 1.0), (MIB, 500 * MIB), 500 * MIB, "counter", 512 * MIB, "configured")
    return Recording(Cell(source), 1.0, (series,), "oom", (error,), facts=facts)


@contextmanager
def counted(monkeypatch):
    """Count what is parsed, and the nodes whose children are visited."""
    counts = {"parses": 0, "visits": 0}
    parse, children, faster = ast.parse, ast.iter_child_nodes, cell.children

    def counting_parse(*arguments, **more):
        counts["parses"] += 1
        return parse(*arguments, **more)

    def counting_children(node):
        counts["visits"] += 1
        return children(node)

    def counting_faster(node):
        counts["visits"] += 1
        return faster(node)

    with monkeypatch.context() as patch:
        for module in [m for m in [*sys.modules.values()] if getattr(m, "children", None) is faster]:
            patch.setattr(module, "children", counting_faster)
        patch.setattr(ast, "parse", counting_parse)
        patch.setattr(ast, "iter_child_nodes", counting_children)
        yield counts


def work(monkeypatch, source, earlier=()):
    run = failed(source, earlier)
    with counted(monkeypatch) as counts:
        outcome = explain(run)
    broken = [d for d in outcome.declined if "please report" in d.reason]
    assert [] == broken
    return counts, outcome


@pytest.mark.parametrize("kind", ["plain", "models"])
def test_earlier_cells_cost_no_more_than_a_parse_each_and_visits_that_grow_in_line(monkeypatch, kind):
    block = {"plain": PLAIN, "models": MODELS}[kind]
    costs = {}
    for count in (0, 150, 300):
        earlier = tuple(block.format(f"{kind}{count}_{n}") for n in range(count))
        costs[count], outcome = work(monkeypatch, CELL.format(f"{kind} {count}"), earlier)
    assert outcome.offered
    assert costs[300]["parses"] <= 300 + costs[0]["parses"]
    first, second = (costs[count]["visits"] - costs[0]["visits"] for count in (150, 300))
    assert second <= 2.2 * first + 1000


def test_cells_that_do_not_matter_are_not_parsed(monkeypatch):
    without, _ = work(monkeypatch, CELL.format("none"))
    earlier = tuple(PLAIN.format(f"unread_{n}") for n in range(300))
    beside, _ = work(monkeypatch, CELL.format("beside"), earlier)
    assert beside["parses"] <= without["parses"] + 5


def test_a_second_question_about_the_same_run_reads_nothing_again(monkeypatch):
    source = CELL.format("again")
    earlier = tuple(MODELS.format(f"again_{n}") for n in range(20))
    first, _ = work(monkeypatch, source, earlier)
    second, _ = work(monkeypatch, source, earlier)
    assert first["parses"] > 0
    assert second["parses"] == 0


@pytest.mark.parametrize("kind", ["plain", "models", "imports"])
def test_another_cell_after_the_same_ones_reads_nothing_of_them_again(monkeypatch, kind):
    block = {"plain": PLAIN, "models": MODELS, "imports": "import numpy as np\nimport keras\n" + PLAIN}[kind]
    earlier = tuple(block.format(f"same_{kind}_{n}") for n in range(300))
    work(monkeypatch, CELL.format(f"first {kind}"), earlier)
    alone, _ = work(monkeypatch, CELL.format(f"alone {kind}"))
    second, _ = work(monkeypatch, CELL.format(f"second {kind}"), earlier)
    assert second["parses"] <= alone["parses"] + 3
    assert second["visits"] <= 1.2 * alone["visits"] + 500


def test_a_notebook_that_grew_by_a_cell_reads_that_one_only(monkeypatch):
    earlier = tuple(MODELS.format(f"grown_{n}") for n in range(300))
    work(monkeypatch, CELL.format("before it grew"), earlier)
    alone, _ = work(monkeypatch, CELL.format("grown alone"))
    grown, _ = work(monkeypatch, CELL.format("grown"), (*earlier, MODELS.format("grown_last")))
    assert grown["parses"] <= alone["parses"] + 5


RECURSIVE = """%%tfmem
def size(n):
    return size(n - 1) if n else other(n + 1)
def other(n):
    return size(n) if n > 2 else {0}
def data(n):
    return make(n).batch(size(n))
def make(n):
    return data(n - 1) if n else data(n + 1)
def train(n):
    if n:
        train(n - 1)
    model.fit(make(n), batch_size=size(n))
train(3)
model.fit(data(2), batch_size=size(2))
"""


def sources():
    yield "recursive", RECURSIVE.format(4)
    yield "nested", "%%tfmem\n" + "".join(" " * n + f"if a{n}:\n" for n in range(60)) + " " * 60 + "model.fit(x, y)\n"
    yield "calls in calls", "%%tfmem\ns = " + "f(" * 60 + "1" + ")" * 60 + "\nmodel.fit(x, y)\n"
    yield "a long sum", "%%tfmem\ns = " + " + ".join(f"a{n}" for n in range(3000)) + "\nmodel.fit(x, y)\n"
    yield "a long chain", "%%tfmem\nds = d" + "".join(f".map(f{n})" for n in range(900)) + "\nmodel.fit(ds)\n"
    yield (
        "many branches",
        "%%tfmem\nif a:\n    b = 0\n"
        + "".join(f"elif a == {n}:\n    b = {n}\n" for n in range(900))
        + "model.fit(x, y)\n",
    )
    yield "one long line", "%%tfmem\n" + "; ".join(f"a{n} = {n}" for n in range(2000)) + "\nmodel.fit(x, y)\n"
    yield "numbers", "%%tfmem\nx = [" + ", ".join(f"[{n}, {n + 1}]" for n in range(4000)) + "]\nmodel.fit(x, y)\n"
    yield (
        "doubling",
        "%%tfmem\na0 = f(64)\n"
        + "".join(f"a{n + 1} = g(a{n}, a{n})\n" for n in range(60))
        + "model.fit(a60, batch_size=a60)\n",
    )


@pytest.mark.parametrize(("name", "source"), [pytest.param(*one, id=one[0]) for one in sources()])
def test_unusual_code_ends_with_an_outcome(monkeypatch, name, source):
    counts, outcome = work(monkeypatch, source)
    size = len(list(ast.walk(tree))) if (tree := parsed(source)) is not None else 0
    assert outcome.diagnosis is not None
    assert counts["visits"] <= 60 * size + 20_000


def parsed(source):
    cell = read_cell(source)
    return None if isinstance(cell, NotPython) else cell.tree


@pytest.mark.parametrize("line", ["a{0} = f(a{1}, {0})", "model.fit(x, y, batch_size=b{0})", "a = a.b[{0}](c{0})"])
def test_visits_grow_in_line_with_the_length_of_the_cell(monkeypatch, line):
    visits = {}
    for count in (250, 500, 1000):
        body = "".join(f"{line.format(n, n - 1)}\n" for n in range(1, count + 1))
        counts, _ = work(monkeypatch, f"%%tfmem\nimport keras\n{body}model.fit(x, y, batch_size=64)\n")
        visits[count] = counts["visits"]
    assert visits[1000] - visits[500] <= 2.2 * (visits[500] - visits[250]) + 1000


def test_a_cell_of_ten_thousand_lines_is_explained_with_visits_that_each_node_bears(monkeypatch):
    source = "%%tfmem\n" + "".join(f"a{n % 50} = {n}\n" for n in range(10_000)) + "model.fit(x, y, batch_size=64)\n"
    counts, outcome = work(monkeypatch, source)
    assert outcome.offered
    assert counts["visits"] <= 40 * len(read_cell(source).nodes)


def test_what_is_nested_too_deeply_is_refused_with_its_line():
    source = "x = 1\ny = " + " + ".join(f"a{n}" for n in range(DEEPEST + 50))
    assert NotPython("line 2 of the cell is nested too deeply to be read") == read_cell(source)


def test_all_that_is_read_can_be_written_out_with_little_room_left_for_calls():
    source = "y = " + " + ".join(f"a{n}" for n in range(DEEPEST - 10))
    cell = read_cell(source)
    assert not isinstance(cell, NotPython)
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(850 + depth_now())
        assert ast.unparse(cell.tree).startswith("y = a0 + a1")
    finally:
        sys.setrecursionlimit(limit)


def depth_now():
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count
