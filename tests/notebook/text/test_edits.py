import ast

import pytest

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.notebook.text.edits import Editor, argument


def editor(source):
    return Editor(read_notebook(source).cell)


def call(editor, name="f"):
    return next(c for c in editor.cell.calls if ast.unparse(c.func) == name)


@pytest.mark.parametrize(
    ("before", "after"), [("f(a)", "f(a, n=2)"), ("f(n=1)", "f(n=2)"), ("f(n=g(1), m=3)", "f(n=2, m=3)")]
)
def test_an_argument_is_set_by_its_name(before, after):
    edit = editor(before)
    assert edit.argument(call(edit), "n", "2").source() == after


@pytest.mark.parametrize("source", ["f(*a)", "f(**k)", "f(1, n=2, **k)"])
def test_an_argument_behind_stars_is_refused(source):
    edit = editor(source)
    with pytest.raises(RefusedError, match="hidden behind stars"):
        edit.argument(call(edit), "n", "2")


@pytest.mark.parametrize(("source", "text"), [("f(1, 2)", "2"), ("f(1, n=3)", "3"), ("f(1)", None)])
def test_an_argument_is_found_by_name_or_position(source, text):
    found = argument(call(editor(source)), "n", 1)
    assert text == (None if found is None else ast.unparse(found))


def test_lines_stand_before_a_statement_with_the_import_of_apply():
    edit = editor("for e in range(3):\n    f(e)\n")
    inner = edit.cell.tree.body[0].body[0]
    changed = edit.before(inner, "apply.collect_garbage()", apply=True).source()
    assert changed == (
        "for e in range(3):\n    from tf_mem_magic import apply\n    apply.collect_garbage()\n    f(e)\n"
    )


@pytest.mark.parametrize(
    ("above", "imports"),
    [
        ("from tf_mem_magic import apply\n", 1),
        ("from tf_mem_magic import apply\napply.free('old')\n", 1),
        ("from tf_mem_magic import apply; x = 1\n", 1),
        ("if x:\n    from tf_mem_magic import apply\n", 2),
        ("def f():\n    from tf_mem_magic import apply\n", 2),
        ("from tf_mem_magic import apply as a\n", 2),
    ],
)
def test_an_import_of_apply_that_the_cell_does_further_up_is_not_done_again(above, imports):
    edit = editor(above + "model.fit(x)\n")
    changed = edit.before(edit.cell.tree.body[-1], "apply.g(model)", apply=True).source()
    assert imports == changed.count("import apply")
    assert changed.endswith("apply.g(model)\nmodel.fit(x)\n")


def test_an_import_of_apply_below_does_not_count():
    edit = editor("model.fit(x)\nfrom tf_mem_magic import apply\n")
    changed = edit.before(edit.cell.tree.body[0], "apply.g(model)", apply=True).source()
    assert changed.startswith("from tf_mem_magic import apply\napply.g(model)\nmodel.fit(x)\n")


@pytest.mark.parametrize("source", ["x = 1; f(x)", "if x: f(x)", "with a: f(x)"])
def test_lines_before_a_statement_that_shares_its_line_are_refused(source):
    edit = editor(source)
    statement = read_notebook(source).scopes.statement(call(edit))
    with pytest.raises(RefusedError, match="a line of its own"):
        edit.before(statement, "y = 1")


def test_a_comment_that_would_be_lost_is_refused():
    edit = editor("f(  # why\n  1)\n")
    with pytest.raises(RefusedError, match="a comment"):
        edit.replace(call(edit), "g()").source()


def test_lines_on_top_follow_the_docstring_and_the_future():
    source = '"""Train."""\nfrom __future__ import annotations\nf()\n'
    assert editor(source).on_top("a = 1").source() == source.replace("f()", "a = 1\nf()")


def test_statements_are_put_under_a_header():
    edit = editor("a = 1\nb = 2\nc = 3\n")
    assert edit.around(1, 1, "with s:", "s = x()") == "a = 1\ns = x()\nwith s:\n    b = 2\nc = 3\n"
