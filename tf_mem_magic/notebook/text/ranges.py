"""Edits of a cell as ranges of its text: lines and arguments inserted, statements put under a ``with``."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython

_BETWEEN = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
"""Tokens that are no part of a statement."""


@dataclass(frozen=True, slots=True)
class CellEdit:
    """Characters ``start`` to ``end`` of the cell become ``text``; an insertion has ``start == end``."""

    start: int
    end: int
    text: str


def apply_edits(cell: PythonCell, edits: Iterable[CellEdit]) -> str | NotPython:
    """Give the cell's text after ``edits``.

    Refused where they overlap, touch a masked line, take a comment away, or break the cell.
    """
    ordered = sorted(set(edits), key=lambda edit: (edit.start, edit.end, edit.text))
    parts, at = [], 0
    for edit in ordered:
        if edit.start < at:
            return NotPython("two changes touch the same place of the cell")
        if edit.end > edit.start and _lines_of(cell, edit) & cell.hidden:
            return NotPython("the change lies in a line that is no plain Python")
        parts += [cell.source[at : edit.start], edit.text]
        at = edit.end
    changed = "".join(parts) + cell.source[at:]
    after = read_cell(changed)
    if isinstance(after, NotPython):
        return NotPython("the change would break the cell in a place where it is unusually written")
    if not _future_is_first(after.tree):
        return NotPython("a line would stand before `from __future__`, which must come first")
    if _comments(cell) != _comments(after):
        return NotPython("a comment stands inside what would be replaced")
    return changed


def insert_line(cell: PythonCell, before: ast.stmt, *lines: str) -> CellEdit:
    """Insert lines of their own before the statement ``before``, at the indentation of the line that it is in.

    Where the first of several lines is an import that a statement of the cell itself does further up, it is left out.
    """
    if len(lines) > 1 and _is_done_above(cell, before, lines[0]):
        lines = lines[1:]
    at = line_start(cell, before)
    rest = cell.source[at : statement_start(cell, before)]
    indent = rest[: len(rest) - len(rest.lstrip())]
    return CellEdit(at, at, "".join(f"{indent}{line}{cell.newline}" for line in lines))


def _is_done_above(cell: PythonCell, before: ast.stmt, line: str) -> bool:
    above = (one for one in cell.tree.body if isinstance(one, (ast.Import, ast.ImportFrom)))
    return any((one.end_lineno or one.lineno) < before.lineno and ast.unparse(one) == line for one in above)


def insert_after(cell: PythonCell, statement: ast.stmt, *lines: str) -> CellEdit:
    """Insert lines of their own after the line in which ``statement`` ends, at the indentation of its own."""
    first = cell.source[line_start(cell, statement) : statement_start(cell, statement)]
    indent = first[: len(first) - len(first.lstrip())]
    last = statement.end_lineno or statement.lineno
    at = cell.starts[last] if last < len(cell.starts) else len(cell.source)
    if cell.source[:at].endswith(("\n", "\r")):
        return CellEdit(at, at, "".join(f"{indent}{line}{cell.newline}" for line in lines))
    return CellEdit(at, at, "".join(f"{cell.newline}{indent}{line}" for line in lines))


def line_start(cell: PythonCell, statement: ast.stmt) -> int:
    """Give where the line that holds a statement starts, where another line can be put before it.

    That is Python's idea of a line: it may begin above, where a text or a bracket that ends before the statement began.
    """
    top = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    first, fresh = 1, True
    for token in cell.tokens:
        if token.type not in _BETWEEN and fresh and token.start[0] <= top:
            first = token.start[0]
        fresh = token.type == tokenize.NEWLINE or (fresh and token.type in _BETWEEN)
    return cell.starts[first - 1]


def shares_line(cell: PythonCell, statement: ast.stmt) -> bool:
    """Whether other code stands before a statement in its line: a line put before it would run before that too."""
    before = cell.source[line_start(cell, statement) : statement_start(cell, statement)].strip()
    return before not in ("", "%time", "@")


def first_statement(cell: PythonCell) -> ast.stmt:
    """Give the first statement before which code may stand: after a docstring, ``from __future__`` and magics."""
    body = cell.tree.body
    rest = [
        s
        for i, s in enumerate(body)
        if not (isinstance(s, ast.ImportFrom) and s.module == "__future__")
        and not (i == 0 and isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        and s.lineno not in cell.hidden
    ]
    return (rest or body)[0]


def _future_is_first(tree: ast.Module) -> bool:
    """Whether ``from __future__`` stands where Python takes it: after a docstring, before all else."""
    future = [isinstance(s, ast.ImportFrom) and s.module == "__future__" for s in tree.body]
    first = int(bool(tree.body) and isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant))
    return all(future[first : len(future) - future[::-1].index(True)]) if any(future) else True


def _comments(cell: PythonCell) -> list[str]:
    if "#" not in cell.python:
        return []
    return [token.string for token in cell.tokens if token.type == tokenize.COMMENT]


def statement_start(cell: PythonCell, statement: ast.stmt) -> int:
    """Give where a statement starts, its decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    return min([cell.start(statement), *(cell.start(d) for d in decorators)])


def insert_argument(cell: PythonCell, call: ast.Call, text: str) -> CellEdit:
    """Insert an argument as the last one of ``call``, before its closing bracket."""
    last = None
    close = (call.end_lineno, call.end_col_offset)
    for token in cell.tokens:
        line = cell.lines[token.end[0] - 1] if token.end[0] <= len(cell.starts) else ""
        if (token.end[0], len(line[: token.end[1]].encode("utf-8", "surrogatepass"))) == close and token.string == ")":
            break
        if token.type not in _BETWEEN:
            last = token
    else:
        return _insert_in_text(cell, call, text)
    if last is None:
        raise ValueError("the call's closing bracket was not found")
    at = cell.starts[last.end[0] - 1] + last.end[1]
    lead = "" if last.string == "(" else " " if last.string == "," else ", "
    return CellEdit(at, at, f"{lead}{text}")


def _insert_in_text(cell: PythonCell, call: ast.Call, text: str) -> CellEdit:
    """Insert an argument in a call inside an f-string, which before Python 3.12 is one token without comments."""
    before = cell.source[: cell.end(call) - 1].rstrip()
    lead = "" if before.endswith("(") else " " if before.endswith(",") else ", "
    return CellEdit(len(before), len(before), f"{lead}{text}")


def _lines_of(cell: PythonCell, edit: CellEdit) -> set[int]:
    first = sum(start <= edit.start for start in cell.starts)
    last = sum(start < edit.end for start in cell.starts)
    return set(range(first, last + 1))


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


_INDENT = "    "


def put_under(cell: PythonCell, first: int, last: int, lines: Sequence[str], header: str) -> str | NotPython:
    """Give the cell with its own statements ``first`` to ``last`` (places in the tree's body) under ``header``.

    ``lines`` are inserted above the header. Refused where the parsed result is not exactly that: a string over several
    lines would change when it is indented, and statements that share a line cannot be parted.
    """
    body = cell.tree.body
    start = statement_start(cell, body[first])
    end = cell.end(body[last])
    inside = [line for line, at in enumerate(cell.starts, 1) if _start_of_line(cell, start) <= at < end]
    if cell.hidden & set(inside):
        return NotPython("a line between the model and its compile is no plain Python")
    above = "".join(f"{line}{cell.newline}" for line in (*lines, header))
    edits = [CellEdit(_start_of_line(cell, start), _start_of_line(cell, start), above + _INDENT)]
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


def _start_of_line(cell: PythonCell, at: int) -> int:
    return max(start for start in cell.starts if start <= at)
