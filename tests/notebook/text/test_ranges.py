"""Lines after a statement: a line of their own, at its indentation, and nothing else changes."""

from __future__ import annotations

import ast

import pytest

from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.ranges import apply_edits, insert_after


def after(source, word):
    """Insert ``done()`` after the last statement that has ``word`` in it."""
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    statement = [n for n in cell.nodes if isinstance(n, ast.stmt) and word in cell.text(n)][-1]
    return apply_edits(cell, [insert_after(cell, statement, "done()")])


@pytest.mark.parametrize(
    ("source", "word", "expected"),
    [
        ("for a in b:\n    fit(a)\nend()\n", "fit", "for a in b:\n    fit(a)\n    done()\nend()\n"),
        ("for a in b:\n    fit(a)", "fit", "for a in b:\n    fit(a)\n    done()"),
        (
            "for a in b:\n    fit(a)  # all\n    # more\n",
            "fit",
            "for a in b:\n    fit(a)  # all\n    done()\n    # more\n",
        ),
        ("for a in b:\r\n\tfit(\r\n  a)\r\n", "fit", "for a in b:\r\n\tfit(\r\n  a)\r\n\tdone()\r\n"),
        ("x = '''a\nfit'''\n", "fit", "x = '''a\nfit'''\ndone()\n"),
        ("%time fit(a)\nb = 1\n", "b = 1", "%time fit(a)\nb = 1\ndone()\n"),
        ("é = fit('ü')\n", "fit", "é = fit('ü')\ndone()\n"),
    ],
)
def test_they_stand_after_the_line_in_which_it_ends(source, word, expected):
    assert expected == after(source, word)
