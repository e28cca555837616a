"""Which assignment a name reads, where a loop sets it more than once in each turn."""

from __future__ import annotations

import ast

import pytest

from tf_mem_magic.notebook.text.cell import PythonCell, read_cell


def read_at(source, place=0):
    """Give what the name in the call ``use(…)`` surely holds, as it is written; None where that is not sure."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    calls = [n for n in cell.nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "use"]
    name = sorted(calls, key=lambda n: n.lineno)[place].args[0]
    assert isinstance(name, ast.Name)
    found = cell.scopes.reaching(name, cell.scopes.of(cell.scopes.home(name), name.id))
    return None if found is None or found.value is None else ast.unparse(found.value)


TWICE = "for e in range(3):\n    bar = {0}\n    for x in bar:\n        use(bar)\n    bar = {1}\n    for x in bar:\n        use(bar)"


@pytest.mark.parametrize(
    "source",
    [
        TWICE,
        TWICE.replace("for e in range(3)", "while more"),
        "def run():\n    " + TWICE.replace("\n", "\n    "),
        TWICE.replace("    for x in bar:\n        use(bar)", "    with x:\n        use(bar)"),
        f"bar = None\n{TWICE}\nbar = 3",
    ],
)
def test_what_each_turn_sets_anew_is_read_before_it_is_set_again(source):
    made = source.format("tqdm(train)", "tqdm(val)")
    assert (read_at(made), read_at(made, 1)) == ("tqdm(train)", "tqdm(val)")


@pytest.mark.parametrize(
    "source",
    [
        # What is set later in a turn is read in the next one.
        "bar = a\nfor e in range(3):\n    use(bar)\n    bar = b",
        "for e in range(3):\n    bar = a\n    for x in y:\n        use(bar)\n        bar = b",
        "for e in range(3):\n    if e == 0:\n        bar = a\n    use(bar)\n    bar = b",
        "bar = a\nfor e in range(3):\n    for x in y:\n        use(bar)\n    bar = b",
        "for e in range(3):\n    try:\n        pass\n    except E:\n        bar = a\n    use(bar)\n    bar = b",
    ],
)
def test_what_the_turn_before_may_have_set_is_not_sure(source):
    assert read_at(source) is None


SET_TWICE = "ds = load()\nds = ds.batch(8)\n"


@pytest.mark.parametrize(
    "source",
    [
        SET_TWICE + "def main():\n    use(ds)\nmain()",
        SET_TWICE + "def main():\n    use(ds)\nif __name__ == '__main__':\n    main()",
        "def inner():\n    use(ds)\ndef main():\n    inner()\n" + SET_TWICE + "main()",
        "ds = load()\ndef main(n):\n    def step():\n        use(ds)\n    return main(n - 1) if n else step()\nds = ds.batch(8)\nmain(3)",
    ],
)
def test_a_function_that_runs_behind_all_that_sets_a_name_reads_the_last(source):
    assert read_at(source) == "ds.batch(8)"


@pytest.mark.parametrize(
    "source",
    [
        "ds = load()\ndef main():\n    use(ds)\nmain()\nds = ds.batch(8)\nmain()",
        SET_TWICE + "def main():\n    use(ds)",
        "ds = load()\nif more:\n    ds = ds.batch(8)\ndef main():\n    use(ds)\nmain()",
        "ds = load()\ndef change():\n    global ds\n    ds = ds.batch(8)\ndef main():\n    use(ds)\nmain()",
        SET_TWICE + "class Main:\n    def go(self):\n        use(ds)\nMain().go()",
        "def main():\n    use(ds)\nclass Early:\n    main()\n" + SET_TWICE + "main()",
    ],
)
def test_where_it_may_run_before_or_the_name_may_be_set_elsewhere_that_is_not_sure(source):
    assert read_at(source) is None
