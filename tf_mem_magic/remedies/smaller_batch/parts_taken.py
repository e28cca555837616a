"""Samples that a loop takes by their places in a batch, or in a queue of batches: ``x[32:]``, ``queue[64:]``."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import arguments
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_LEAST = 5
"""A smaller number than this is more likely that of channels, words or axes."""
_DEEPEST = 20


def check_parts(reader: Reader, found: BatchFound, batch: int) -> None:
    """Refuse where a loop takes samples by numbers that count on the batch, and would stay.

    Raises
    ------
    RefusedError
        If a part of a batch of ``batch`` would be empty, or something moves on by the old size.
    """
    if found.call is not None or found.value < _LEAST:
        return
    for cell, root, drawn, kept in _turns(reader):
        for node in ast.walk(root):
            bounds = _bounds(node)
            base = node.value if isinstance(node, ast.Subscript) else None
            if base is None or not bounds or _is_edited(reader, cell, node, found):
                continue
            where = cell.told(node) if cell is reader.cell else "code of an earlier cell"  # type: ignore[arg-type]
            text = ast.unparse(node)
            name = ast.unparse(base)
            if found.value in map(abs, bounds) and (name in kept or name in drawn):
                raise RefusedError(f"`{text}` in {where} counts on batches of {found.value}, and would stay")
            first = _lower(node)
            if name in drawn and first is not None and batch <= first < found.value:
                raise RefusedError(f"`{text}` in {where} would be empty in a batch of {batch}")


def _turns(reader: Reader) -> Iterator[tuple[PythonCell, ast.AST, set[str], set[str]]]:
    """Yield what a turn of the failing loops runs: its cell, the code, the names of a batch, and what it sets.

    Functions of the notebook that are handed parts of the batch are among it.
    """
    loops = [n for n in reader.nodes if isinstance(n, _LOOPS) and (reader.covers(n) or not reader.lines)]
    todo: list[tuple[PythonCell, ast.AST, set[str]]] = [
        (reader.cell, loop, set() if isinstance(loop, ast.While) else _stored(loop.target)) for loop in loops
    ]
    done = set[ast.AST]()
    while todo and len(done) < _DEEPEST:
        cell, root, drawn = todo.pop()
        if root in done:
            continue
        done.add(root)
        yield cell, root, drawn, _set_in(root)
        for call in (n for n in ast.walk(root) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)):
            function = reader.notebook.function(called_name(call))
            if function is None or not isinstance(function.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            handed = set[str]()
            for one in arguments(function.node.args):
                given = calls.bind(call, function.node, one.arg, skip=False)
                handed |= {one.arg} if isinstance(given, ast.Name) and given.id in drawn else set()
            todo.append((function.cell, function.node, handed))


def _stored(target: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _set_in(root: ast.AST) -> set[str]:
    """Name what code sets, whole or in parts: ``queue = …``, ``queue[:-64] = …``, ``self.queue = …``."""
    found = set[str]()
    for node in ast.walk(root):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found.add(ast.unparse(node.value))
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found.add(ast.unparse(node))
    return found


def _first_axis(node: ast.AST) -> ast.Slice | None:
    if not isinstance(node, ast.Subscript):
        return None
    first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
    return first if isinstance(first, ast.Slice) else None


def _bounds(node: ast.AST) -> list[int]:
    """List the numbers between which samples are taken, as they stand there."""
    taken = _first_axis(node)
    given = [] if taken is None else [taken.lower, taken.upper]
    return [number for number in map(_number, given) if number is not None]


def _lower(node: ast.AST) -> int | None:
    taken = _first_axis(node)
    return None if taken is None else _number(taken.lower)


def _number(expr: ast.expr | None) -> int | None:
    negative = isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.USub)
    plain = expr.operand if isinstance(expr, ast.UnaryOp) and negative else expr
    if not isinstance(plain, ast.Constant) or type(plain.value) is not int:
        return None
    return -plain.value if negative else plain.value


def _is_edited(reader: Reader, cell: PythonCell, node: ast.AST, found: BatchFound) -> bool:
    if cell is not reader.cell:
        return False
    first, last = cell.start(node), cell.end(node)  # type: ignore[arg-type]
    return any(first <= slot.start < last for slot in found.slots)
