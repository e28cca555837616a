"""What stands behind a name: the statements, functions and classes of the notebook that made what it holds."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tf_mem_magic.notebook.earlier import EarlierCells
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.read_first import read_first
from tf_mem_magic.notebook.text.cell import PythonCell, walk

_PARTS = (ast.Attribute, ast.Subscript)
_MOST_PIECES = 400
"""More statements than this are not followed."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A top-level statement.

    Attributes
    ----------
    statement : ast.stmt
        The statement.
    cell : PythonCell
        Its cell.
    defines : frozenset of str
        The names that it sets, defines or changes by a method.
    binds : frozenset of str
        Those of them that hold nothing older after it.
    """

    statement: ast.stmt
    cell: PythonCell
    defines: frozenset[str]
    binds: frozenset[str]

    @cached_property
    def words(self) -> frozenset[str]:
        """The names whose earlier value it may read, in functions too."""
        return frozenset(read_first([self.statement]))


def pieces(cell: PythonCell) -> tuple[Piece, ...]:
    """List the top-level statements of a cell; those of a block under ``if``, ``with`` or ``try`` are one."""
    return tuple(_piece(cell, statement) for statement in cell.tree.body)


def _piece(cell: PythonCell, statement: ast.stmt) -> Piece:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        own = frozenset({statement.name})
        return Piece(statement, cell, own, own)
    nodes = list(walk(statement))
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    changed = {_root(n) for n in nodes if _changes(n)}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    binds = {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name) and n.id in stored}
    return Piece(statement, cell, frozenset(stored | changed - {""}), frozenset(binds))


def _changes(node: ast.AST) -> bool:
    if isinstance(node, _PARTS):
        return not isinstance(node.ctx, ast.Load)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _root(node: ast.AST) -> str:
    """Return the name whose value a statement or an assignment changes."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if not isinstance(node.value.func, ast.Attribute):
            return ""
        node = node.value.func
    while isinstance(node, _PARTS):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def behind(reader: Reader, roots: Iterable[str], but: Iterable[str] = ()) -> list[Piece]:
    """List the statements of all cells that made what ``roots`` hold, newest first, through one another.

    ``but`` are names that are not followed: data that are there already.
    """
    seen, found = set(but), dict[int, Piece]()
    queue = [name for name in sorted(set(roots)) if name not in seen]  # the same order each time
    while queue and len(found) < _MOST_PIECES:
        name = queue.pop(0)
        if name in seen:
            continue
        seen.add(name)
        for piece in made_by(reader, name):
            if id(piece) not in found:
                found[id(piece)] = piece
                queue += sorted(piece.words - seen)
    return list(found.values())


def made_by(reader: Reader, name: str) -> Iterator[Piece]:
    """Yield what made the value of ``name``: the last statement that binds it, and what changed it since.

    Nothing of the notebook made what is only imported, or comes with Python.
    """
    notebook = reader.notebook
    before = notebook.before
    if name in reader.cell.words:
        for piece in reversed(reader.cell.once(pieces)):
            if name in piece.defines:
                yield piece
            if name in piece.binds:
                return
    if name not in reader.cell.once(_set_names) and not before.once(("set", name), lambda: _is_set(before, name)):
        return
    for place in before.once(("made", name), lambda: _made_in(before, name)):
        cell = before.at(place)
        for piece in reversed(cell.once(pieces) if cell is not None else ()):
            if name in piece.defines:
                yield piece
            if name in piece.binds:
                return


def _is_set(before: EarlierCells, name: str) -> bool:
    return any(name in cell.once(_set_names) for cell in before.setting(name))


def _set_names(cell: PythonCell) -> frozenset[str]:
    """Name what a cell sets, defines, or changes by an attribute or entry anywhere, what it imports left out."""
    nodes = cell.nodes
    defined = {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    stored = (n for n in nodes if isinstance(n, (ast.Name, *_PARTS)) and not isinstance(n.ctx, ast.Load))
    return frozenset(defined | {n.id if isinstance(n, ast.Name) else _root(n) for n in stored})


def _made_in(before: EarlierCells, name: str) -> tuple[int, ...]:
    """List where earlier cells made the value of ``name``, from the last one to the one that binds it."""
    found = []
    for place, cell in before.making(name):
        made = [piece for piece in cell.once(pieces) if name in piece.defines]
        if made:
            found.append(place)
        if any(name in piece.binds for piece in made):
            break
    return tuple(found)


def failing_names(reader: Reader, call: ast.Call | None = None) -> frozenset[str]:
    """Name what the statements that failed read; without a known line, what the call reads, or the whole cell."""
    body = reader.cell.tree.body
    tops = [s for s in body if reader.covers(s)]
    if not tops and call is not None:
        tops = [reader.scopes.top_statement(call)]
    names = (n for s in tops or body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return frozenset(n.id for n in names)


def model_names(reader: Reader, call: ast.Call | None) -> frozenset[str]:
    """Name what holds the model whose method is called; everything that failed where no plain name of the cell does."""
    receiver = call.func.value if call is not None and isinstance(call.func, ast.Attribute) else None
    while isinstance(receiver, _PARTS):
        receiver = receiver.value
    if isinstance(receiver, ast.Name) and isinstance(reader.scopes.home(receiver), ast.Module):
        return frozenset({receiver.id})
    return failing_names(reader, call)


def has_method(reader: Reader, roots: Iterable[str], method: str) -> bool:
    """Tell whether a class behind ``roots`` defines ``method`` itself."""
    classes = (p.statement for p in behind(reader, roots) if isinstance(p.statement, ast.ClassDef))
    return any(isinstance(n, ast.FunctionDef) and n.name == method for cls in classes for n in cls.body)
