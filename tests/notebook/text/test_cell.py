import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import CellEdit, apply_edits, insert_argument, insert_line, shares_line


def first_call(cell):
    return next(n for n in ast.walk(cell.tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "f")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f()", "f(n=1)"),
        ("f(a)", "f(a, n=1)"),
        ("f(a,)", "f(a, n=1)"),
        ("f((a))", "f((a), n=1)"),
        ("f(a, **k)", "f(a, **k, n=1)"),
        ("f(*a)", "f(*a, n=1)"),
        ("f(\n    a,\n    b,  # why\n)", "f(\n    a,\n    b, n=1  # why\n)"),
        ("f(\n    a,\n    b  # why, not\n)", "f(\n    a,\n    b, n=1  # why, not\n)"),
        ("f(g(a), (b))", "f(g(a), (b), n=1)"),
        ("é = f('日本')", "é = f('日本', n=1)"),
        ("!ls\nx = f(a) + g(b)", "!ls\nx = f(a, n=1) + g(b)"),
        ("f(a)\r\ny = 1\r\n", "f(a, n=1)\r\ny = 1\r\n"),
        ("f(a if b else (c))", "f(a if b else (c), n=1)"),
        ('f(f"{x}")', 'f(f"{x}", n=1)'),
        ('print(f"ü {f(a)[1]:.3f}")', 'print(f"ü {f(a, n=1)[1]:.3f}")'),
        ('print(f"{f( )} {f(b)}")', 'print(f"{f(n=1 )} {f(b)}")'),
        ('print(f"""\n{f(a, )}\n""")', 'print(f"""\n{f(a, n=1 )}\n""")'),
    ],
)
def test_an_argument_is_inserted_last(before, after):
    cell = read_cell(before)
    assert after == apply_edits(cell, [insert_argument(cell, first_call(cell), "n=1")])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1\nf(a)", "x = 1\nB = 2\nf(a)"),
        ("%%time\nf(a)", "%%time\nB = 2\nf(a)"),
        ("f(a)\r\n", "B = 2\r\nf(a)\r\n"),
        ("%time f(a)", "B = 2\n%time f(a)"),
        ('note = """a\nb"""; f(a)', 'B = 2\nnote = """a\nb"""; f(a)'),
        ("g(\n    1,\n); f(a)", "B = 2\ng(\n    1,\n); f(a)"),
        ("x = 1; \\\nf(a)", "B = 2\nx = 1; \\\nf(a)"),
        ("@f\ndef g():\n    pass", "B = 2\n@f\ndef g():\n    pass"),
    ],
)
def test_a_line_is_inserted_before_a_statement(before, after):
    cell = read_cell(before)
    assert after == apply_edits(cell, [insert_line(cell, cell.tree.body[-1], "B = 2")])


def test_an_edit_of_a_masked_line_is_refused():
    cell = read_cell("x = !ls 64\ny = 64")
    assert isinstance(apply_edits(cell, [CellEdit(8, 10, "32")]), NotPython)


def test_edits_that_overlap_are_refused():
    cell = read_cell("x = 640")
    assert isinstance(apply_edits(cell, [CellEdit(4, 6, "1"), CellEdit(5, 7, "2")]), NotPython)


def test_an_edit_that_breaks_the_cell_is_refused():
    cell = read_cell("x = 640")
    assert isinstance(apply_edits(cell, [CellEdit(2, 3, "(")]), NotPython)


def test_a_syntax_error_names_its_line():
    assert "line 2 of the cell" in read_cell("x = 1\ny = (").reason


@pytest.mark.parametrize("source", ["x = 'a\0b'", "x = '\ud800'", "\ufeffx = 1"])
def test_odd_text_is_read_or_refused(source):
    assert isinstance(read_cell(source), NotPython) or read_cell(source).source == source


def test_a_warning_of_the_parser_is_not_shown(recwarn):
    read_cell(r"x = '\d'")
    assert [] == list(recwarn)


NAMES = st.sampled_from(["a", "é", "日本", "x1"])
STATEMENTS = st.builds("{} = {}".format, NAMES, st.sampled_from(["64", "'ü'", "f(2, '日')", "[1,\n  2]", "(3)"]))
ODD = st.sampled_from(["%ls", "!echo 'x", "# 64 ü", "", "b = !ls", "a?", "%time f(3)"])


@given(st.lists(STATEMENTS | ODD, min_size=1, max_size=10), st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_node_is_found_at_its_place_and_undo_gives_the_original(lines, end, final):
    source = end.join(line.replace("\n", end) for line in lines) + (end if final else "")
    cell = read_cell(source)
    if isinstance(cell, NotPython):
        assert "empty" in cell.reason
        return
    numbers = [n for n in ast.walk(cell.tree) if isinstance(n, ast.Constant) and type(n.value) is int]
    numbers = [n for n in numbers if n.lineno not in cell.hidden and cell.text(n) != "1:"]
    numbers = [n for n in numbers if not cell.python.split("\n")[n.lineno - 1].startswith("if 1:") or n.col_offset > 5]
    assert [str(n.value) for n in numbers] == [cell.text(n) for n in numbers]
    edits = [CellEdit(cell.start(n), cell.end(n), "12345") for n in numbers]
    changed = apply_edits(cell, edits)
    undone, at = changed, 0
    for n in sorted(numbers, key=cell.start):
        at = undone.index("12345", at)
        undone = undone[:at] + str(n.value) + undone[at + 5 :]
    assert source == undone


@pytest.mark.parametrize(
    ("source", "shares"),
    [
        ("f(a)", False),
        ("    \nif x:\n    f(a)", False),
        ("%time f(a)", False),
        ("x = 1; f(a)", True),
        ("if x: f(a)", True),
        ('x = """\n"""; f(a)', True),
        ("x = 1; \\\nf(a)", True),
    ],
)
def test_code_before_a_statement_in_its_line_is_seen(source, shares):
    cell = read_cell(source)
    statement = next(n for n in ast.walk(cell.tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call))
    assert shares == shares_line(cell, statement)


@pytest.mark.parametrize("source", ["@a\n@b(1)\ndef f(): pass", "if x:\n    @a\n    def f(): pass"])
def test_a_functions_own_decorators_are_no_other_code_in_its_line(source):
    cell = read_cell(source)
    (function,) = (n for n in ast.walk(cell.tree) if isinstance(n, ast.FunctionDef))
    assert not shares_line(cell, function)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("from __future__ import annotations; import os", "must come first"),
        ("x = [  # why\n    1]", "a comment stands inside"),
        ("x = 1;", "would break the cell"),
    ],
)
def test_an_edit_that_harms_the_cell_is_refused(source, reason):
    cell = read_cell(source)
    first = {"from": CellEdit(0, 0, "y = 1\n"), "x = [": CellEdit(4, len(source), "2"), "x = 1": CellEdit(4, 5, "")}
    refused = apply_edits(cell, [next(edit for start, edit in first.items() if source.startswith(start))])
    assert reason in refused.reason


def test_what_libraries_hang_on_nodes_that_all_trees_share_is_no_part_of_a_cell():
    shared = ast.parse("a").body[0].value.ctx
    shared.parent = ast.parse("a.b = c(d)")  # as `executing` does, by which IPython shows tracebacks
    try:
        found = read_cell("best[n] = model_of_a_round")
        assert not isinstance(found, NotPython)
        assert len(found.nodes) == len(list(ast.walk(ast.parse("best[n] = model_of_a_round"))))
    finally:
        del shared.parent
