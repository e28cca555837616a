"""A cell read as Python, and edits of its text: ranges replaced, lines inserted, everything else kept."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from tf_mem_magic.cells.mask import NotPython, mask, split_lines


@dataclass(frozen=True, slots=True)
class CellEdit:
    """Characters ``start`` to ``end`` of the cell become ``text``; an insertion has ``start == end``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class PythonCell:
    """A cell that parses: its text, the text Python sees, the tree, and where lines start in the cell."""

    source: str
    python: str
    tree: ast.Module
    starts: tuple[int, ...]
    hidden: frozenset[int]
    skipped: int

    def offset(self, line: int, column: int) -> int:
        """Give the place in the cell of a position of the tree (``column`` counts UTF-8 bytes)."""
        text = self.python.split("\n")[line - 1] if line <= len(self.starts) else ""
        return self.starts[line - 1] + len(text.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "replace"))

    def start(self, node: ast.expr | ast.stmt) -> int:
        """Give where ``node`` starts in the cell."""
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        """Give where ``node`` ends in the cell."""
        return self.offset(node.end_lineno or node.lineno, node.end_col_offset or 0)

    def text(self, node: ast.expr | ast.stmt) -> str:
        """Give the cell's text of ``node``."""
        return self.source[self.start(node) : self.end(node)]

    @property
    def newline(self) -> str:
        """The cell's line end."""
        return "\r\n" if "\r\n" in self.source else "\n"


def read_cell(source: str) -> PythonCell | NotPython:
    """Parse a cell; where it is no Python, say why."""
    masked = mask(source)
    if isinstance(masked, NotPython):
        return masked
    try:
        tree = _parse(masked.python)
    except SyntaxError as error:
        return NotPython(f"line {error.lineno} of the cell cannot be read as Python ({error.msg})")
    except (ValueError, RecursionError, MemoryError) as error:
        return NotPython(f"the cell cannot be read as Python ({error})")
    starts, at = [], 0
    for line in split_lines(source):
        starts.append(at)
        at += len(line)
    return PythonCell(source, masked.python, tree, tuple(starts), masked.hidden, masked.skipped)


def _parse(python: str) -> ast.Module:
    """Parse without a warning about the user's own escapes.

    Silencing one makes Python forget which warnings it has shown: so only where there may be one.
    """
    if "\\" not in python:
        return ast.parse(python)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(python)


def apply_edits(cell: PythonCell, edits: Iterable[CellEdit]) -> str | NotPython:
    """Give the cell's text after ``edits``; refuse where they overlap, touch a masked line or break the cell."""
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
    return after if isinstance(after, NotPython) else changed


def insert_line(cell: PythonCell, before: ast.stmt, text: str) -> CellEdit:
    """Insert a line of its own before the statement ``before``, at its indentation."""
    start = statement_start(cell, before)
    line_start = max(s for s in cell.starts if s <= start)
    indent = cell.source[line_start:start]
    indent = indent[: len(indent) - len(indent.lstrip())]
    return CellEdit(line_start, line_start, f"{indent}{text}{cell.newline}")


def statement_start(cell: PythonCell, statement: ast.stmt) -> int:
    """Give where a statement starts, its decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    return min([cell.start(statement), *(cell.start(d) for d in decorators)])


def insert_argument(cell: PythonCell, call: ast.Call, text: str) -> CellEdit:
    """Insert an argument as the last one of ``call``, before its closing bracket."""
    last = None
    close = (call.end_lineno, call.end_col_offset)
    lines = cell.python.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(cell.python).readline):
        line = lines[token.end[0] - 1] if token.end[0] <= len(cell.starts) else ""
        if (token.end[0], len(line[: token.end[1]].encode("utf-8", "surrogatepass"))) == close and token.string == ")":
            break
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            last = token
    if last is None:
        raise ValueError("the call's closing bracket was not found")
    at = cell.starts[last.end[0] - 1] + last.end[1]
    lead = "" if last.string == "(" else " " if last.string == "," else ", "
    return CellEdit(at, at, f"{lead}{text}")


def _lines_of(cell: PythonCell, edit: CellEdit) -> set[int]:
    first = sum(start <= edit.start for start in cell.starts)
    last = sum(start < edit.end for start in cell.starts)
    return set(range(first, last + 1))
