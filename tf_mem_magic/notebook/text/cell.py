"""A cell read as Python, and edits of its text: ranges replaced, lines inserted, everything else kept."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar, cast

from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.mask import NotPython, mask, split_lines

T = TypeVar("T")
_WORD = re.compile(r"[^\W\d]\w*")

DEEPEST = 200
"""The most levels that a tree may have. Python's limit is near 1000 calls, and each level takes up to three."""

_BETWEEN = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
"""Tokens that are no part of a statement."""


@dataclass(frozen=True, slots=True)
class CellEdit:
    """Characters ``start`` to ``end`` of the cell become ``text``; an insertion has ``start == end``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, eq=False)
class PythonCell:
    """A cell that parses: its text, the text Python sees, the tree, and where lines start in the cell.

    There is one for each text (:func:`read_cell`), so its tree is never changed, and what is computed of it is
    computed once: the parts below, and any other by :meth:`once`.
    """

    source: str
    python: str
    tree: ast.Module
    starts: tuple[int, ...]
    hidden: frozenset[int]
    skipped: int
    nodes: tuple[ast.AST, ...]
    """All nodes of the tree, in the order of :func:`ast.walk`."""

    def once(self, part: Callable[[PythonCell], T]) -> T:
        """Give ``part`` of this cell, computed where it is asked for the first time."""
        known: dict[Callable[[PythonCell], object], object] = self.__dict__.setdefault("_parts", {})
        if part not in known:
            known[part] = part(self)
        return cast(T, known[part])

    @cached_property
    def calls(self) -> tuple[ast.Call, ...]:
        """All calls of the cell, in the order of :attr:`nodes`."""
        return tuple(node for node in self.nodes if isinstance(node, ast.Call))

    @cached_property
    def scopes(self) -> Scopes:
        """The names of the cell: scopes, bindings, reads."""
        return Scopes(self.tree)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines that Python sees."""
        return tuple(self.python.split("\n"))

    @cached_property
    def tokens(self) -> tuple[tokenize.TokenInfo, ...]:
        """The tokens of what Python sees."""
        return tuple(tokenize.generate_tokens(io.StringIO(self.python).readline))

    @property
    def words(self) -> frozenset[str]:
        """Everything in the text that could be a name."""
        return words_of(self.source)

    def line_of(self, diagnosed: int | None) -> int | None:
        """Give the line of the tree for a line as diagnoses count: blank lines at the top do not count there."""
        return None if diagnosed is None else diagnosed + self.skipped

    def offset(self, line: int, column: int) -> int:
        """Give the place in the cell of a position of the tree (``column`` counts UTF-8 bytes)."""
        text = self.lines[line - 1] if line <= len(self.starts) else ""
        if text.isascii():
            return self.starts[line - 1] + min(column, len(text))
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


class _Read:
    """The cells that were read last, by their text: a bounded number of characters, because trees are large."""

    def __init__(self, characters: int) -> None:
        self._most = characters
        self._held = 0
        self._cells: OrderedDict[str, PythonCell | NotPython] = OrderedDict()

    def read(self, source: str) -> PythonCell | NotPython:
        """Give the cell of a text, read where it is not among those kept."""
        found = self._cells.pop(source, None)
        if found is None:
            found = _read(source)
            self._held += len(source)
        self._cells[source] = found
        while self._held > self._most and len(self._cells) > 1:
            self._held -= len(self._cells.popitem(last=False)[0])
        return found


_LAST = _Read(characters=1 << 19)


def read_cell(source: str) -> PythonCell | NotPython:
    """Parse a cell; where it is no Python, say why. The same text gives the same cell."""
    return _LAST.read(source)


def parse(source: str) -> ast.Module | None:
    """Give the tree of a cell; None where it is not Python."""
    cell = read_cell(source)
    return None if isinstance(cell, NotPython) else cell.tree


@lru_cache(maxsize=4096)
def words_of(source: str) -> frozenset[str]:
    """Give everything in a text that could be a name, without reading it as Python."""
    return frozenset(_WORD.findall(source))


def _read(source: str) -> PythonCell | NotPython:
    masked = mask(source)
    if isinstance(masked, NotPython):
        return masked
    try:
        tree = _parse(masked.python)
    except SyntaxError as error:
        return NotPython(f"line {error.lineno} of the cell cannot be read as Python ({error.msg})")
    except (ValueError, RecursionError, MemoryError) as error:
        return NotPython(f"the cell cannot be read as Python ({error})")
    nodes = _nodes(tree)
    if isinstance(nodes, NotPython):
        return nodes
    starts, at = [], 0
    for line in split_lines(source):
        starts.append(at)
        at += len(line)
    return PythonCell(source, masked.python, tree, tuple(starts), masked.hidden, masked.skipped, nodes)


def _nodes(tree: ast.Module) -> tuple[ast.AST, ...] | NotPython:
    """List the nodes of a tree, level by level; refused where it is too deep for what reads it by recursion."""
    nodes: list[ast.AST] = []
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        nodes += level
        level = [child for node in level for child in children(node)]
        if not level:
            return tuple(nodes)
    line = next((node.lineno for node in level if isinstance(node, (ast.expr, ast.stmt))), None)
    return NotPython(f"line {line} of the cell is nested too deeply to be read" if line else "it is nested too deeply")


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it as :func:`ast.walk` does, in a third of the time."""
    level: list[ast.AST] = [node]
    while level:
        yield from level
        level = [child for one in level for child in children(one)]


def children(node: ast.AST) -> list[ast.AST]:
    """List the children of a node as :func:`ast.iter_child_nodes` does, in half of the time.

    Only what the grammar knows: Python gives one ``ast.Load()`` to all trees, and libraries hang their own attributes
    on nodes (``executing``, by which IPython shows tracebacks, sets ``parent``).
    """
    found: list[ast.AST] = []
    held = node.__dict__
    for name in node._fields:
        value = held.get(name)
        if isinstance(value, ast.AST):
            found.append(value)
        elif type(value) is list:
            found += [one for one in value if isinstance(one, ast.AST)]
    return found


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
    """Insert lines of their own before the statement ``before``, at the indentation of the line that it is in."""
    at = line_start(cell, before)
    rest = cell.source[at : statement_start(cell, before)]
    indent = rest[: len(rest) - len(rest.lstrip())]
    return CellEdit(at, at, "".join(f"{indent}{line}{cell.newline}" for line in lines))


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
