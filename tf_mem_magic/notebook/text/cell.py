"""A cell read as Python, once for each text: its tree, its nodes, and where they stand in the cell."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar, cast

from tf_mem_magic.core.proposals import LineTitles
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.mask import NotPython, mask, split_lines

T = TypeVar("T")
_WORD = re.compile(r"[^\W\d]\w*")
_BETWEEN_WORDS = str.maketrans({chr(n): " " for n in range(128) if not (chr(n).isalnum() or chr(n) == "_")})
"""Makes a space of everything in plain ASCII that is not part of a word: faster than a pattern that finds the words."""

DEEPEST = 200
"""The most levels that a tree may have. Python's limit is near 1000 calls, and each level takes up to three."""


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
    titles: LineTitles = ()
    """What sentences call the lines, where this is not the text that the person sees; empty: by their numbers."""

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

    def told(self, *places: ast.expr | ast.stmt | int) -> str:
        """Say where nodes begin, or lines are, for a sentence: ``line 3``, ``lines 3, 5``, ``line 3 and `train` ``."""
        numbers = sorted({place if isinstance(place, int) else place.lineno for place in places})
        titles = [self.titles[n - 1] if n <= len(self.titles) else n for n in numbers]
        lines = list(dict.fromkeys(str(title) for title in titles if isinstance(title, int)))
        names = list(dict.fromkeys(f"`{title}`" for title in titles if isinstance(title, str)))
        counted = [f"line{'s' if len(lines) > 1 else ''} {', '.join(lines)}"] if lines else []
        return " and ".join([*counted, *names])

    def aside(self, *places: ast.expr | ast.stmt) -> str:
        """Say where ``places`` begin, in brackets: ``(line 3)``, ``(in `train`)``."""
        told = self.told(*places)
        return f"(in {told})" if "`" in told else f"({told})"

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
    """The cells that were read last, by text and titles: a bounded number of characters, because trees are large."""

    def __init__(self, characters: int) -> None:
        self._most = characters
        self._held = 0
        self._cells: OrderedDict[tuple[str, LineTitles], PythonCell | NotPython] = OrderedDict()

    def read(self, source: str, titles: LineTitles = ()) -> PythonCell | NotPython:
        """Give the cell of a text, read where it is not among those kept; with ``titles`` it shares the tree."""
        found = self._cells.pop((source, titles), None)
        if found is None:
            found = _titled(self.read(source), titles) if titles else _read(source)
            self._held += len(source)
        self._cells[source, titles] = found
        while self._held > self._most and len(self._cells) > 1:
            (text, _), _ = self._cells.popitem(last=False)
            self._held -= len(text)
        return found


def _titled(cell: PythonCell | NotPython, titles: LineTitles) -> PythonCell | NotPython:
    return cell if isinstance(cell, NotPython) else replace(cell, titles=titles)


_LAST = _Read(characters=1 << 19)


def read_cell(source: str, titles: LineTitles = ()) -> PythonCell | NotPython:
    """Parse a cell; where it is no Python, say why. The same text with the same titles gives the same cell."""
    return _LAST.read(source, titles)


def parse(source: str) -> ast.Module | None:
    """Give the tree of a cell; None where it is not Python."""
    cell = read_cell(source)
    return None if isinstance(cell, NotPython) else cell.tree


@lru_cache(maxsize=4096)
def words_of(source: str) -> frozenset[str]:
    """Give everything in a text that could be a name, without reading it as Python."""
    if not source.isascii():
        return frozenset(_WORD.findall(source))
    return frozenset(filter(str.isidentifier, set(source.translate(_BETWEEN_WORDS).split())))


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
