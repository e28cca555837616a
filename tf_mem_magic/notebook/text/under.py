"""Statements of a cell put under a ``with``: indented, and certain to be the same statements as before."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from tf_mem_magic.notebook.text.cell import CellEdit, PythonCell, apply_edits, read_cell, statement_start
from tf_mem_magic.notebook.text.mask import NotPython

_INDENT = "    "


def put_under(cell: PythonCell, first: int, last: int, lines: Sequence[str], header: str) -> str | NotPython:
    """Give the cell with its own statements ``first`` to ``last`` (places in the tree's body) under ``header``.

    ``lines`` are inserted above the header. Refused where the parsed result is not exactly that: a string over several
    lines would change when it is indented, and statements that share a line cannot be parted.
    """
    body = cell.tree.body
    start = statement_start(cell, body[first])
    end = cell.end(body[last])
    inside = [line for line, at in enumerate(cell.starts, 1) if _line_start(cell, start) <= at < end]
    if cell.hidden & set(inside):
        return NotPython("a line between the model and its compile is no plain Python")
    above = "".join(f"{line}{cell.newline}" for line in (*lines, header))
    edits = [CellEdit(_line_start(cell, start), _line_start(cell, start), above + _INDENT)]
    for line in inside[1:]:
        at = cell.starts[line - 1]
        if cell.python.split("\n")[line - 1].strip():
            edits.append(CellEdit(at, at, _INDENT))
    changed = apply_edits(cell, edits)
    if isinstance(changed, NotPython):
        return NotPython("the lines that build the model cannot be indented")
    after = read_cell(changed)
    if isinstance(after, NotPython) or not _is_that(cell, after, first, last, len(lines)):
        return NotPython("the lines that build the model would not stay the same when they are indented")
    return changed


def _is_that(before: PythonCell, after: PythonCell, first: int, last: int, added: int) -> bool:
    old, new = before.tree.body, after.tree.body
    if len(new) != len(old) - (last - first) + added:
        return False
    block = new[first + added]
    parted = [*new[:first], *(block.body if isinstance(block, ast.With) else []), *new[first + added + 1 :]]
    return [ast.dump(s) for s in parted] == [ast.dump(s) for s in old]


def _line_start(cell: PythonCell, at: int) -> int:
    return max(start for start in cell.starts if start <= at)
