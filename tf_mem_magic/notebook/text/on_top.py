"""Lines at the top of a cell: before its first statement, after what Python wants first."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from tf_mem_magic.notebook.text.cell import CellEdit, PythonCell, line_start, shares_line


def insert_on_top(cell: PythonCell, lines: Sequence[str]) -> CellEdit:
    """Insert whole lines before the cell's first statement; ``from __future__`` and a docstring stay first.

    Where the first of several lines is an import that stands there already, the others follow it.
    """
    body = cell.tree.body
    skip = int(bool(body) and _is_text(body[0]))
    while skip < len(body) and isinstance(body[skip], ast.ImportFrom) and _module(body[skip]) == "__future__":
        skip += 1
    is_there = len(lines) > 1 and skip + 1 < len(body) and ast.unparse(body[skip]) == lines[0]
    if is_there and not shares_line(cell, body[skip + 1]):
        skip, lines = skip + 1, lines[1:]
    text = "".join(line + cell.newline for line in lines)
    if skip == len(body):
        lead = "" if not cell.source or cell.source.endswith(("\n", "\r")) else cell.newline
        return CellEdit(len(cell.source), len(cell.source), lead + text)
    at = line_start(cell, body[skip])
    return CellEdit(at, at, text)


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _module(statement: ast.stmt) -> str | None:
    return statement.module if isinstance(statement, ast.ImportFrom) else None
