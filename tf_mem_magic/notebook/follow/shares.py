"""Batch sizes that are a share of another one: the half of a batch that a loop takes from each side."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.notebook.follow.reader import Reader, Setting
from tf_mem_magic.notebook.uses import called_name, is_batch_name, may_be_a_size

_DEEPEST = 8
"""Through so many names and divisions a share is followed."""


def share_of_another(reader: Reader, setting: Setting, settings: Iterable[Setting]) -> int | None:
    """Tell by what another size is divided where a size is computed so: 2 for ``half = int(n_batch / 2)``."""
    places = {(slot.start, slot.end) for slot in setting.slots}
    computed = [n for n in reader.nodes if isinstance(n, (ast.Call, ast.BinOp)) and _place(reader, n) in places]
    if not computed or len(computed) != len(places):
        return None
    for other in settings:
        shares = {_share(reader, node, other) for node in computed}
        share = shares.pop() if len(shares) == 1 else None
        if other.names and share is not None and share > 1 and other.value == setting.value * share:
            return share
    return None


def whole_of(reader: Reader, setting: Setting) -> ast.Name | None:
    """Find the batch size that a size is a share of: ``n_batch`` for ``half = int(n_batch / 2)``."""
    places = {(slot.start, slot.end) for slot in setting.slots}
    computed = [n for n in reader.nodes if isinstance(n, (ast.Call, ast.BinOp)) and _place(reader, n) in places]
    wholes = {name.id: name for node in computed for name in [_divided(reader, node)] if name is not None}
    return next(iter(wholes.values())) if len(computed) == len(places) and len(wholes) == 1 else None


def _divided(reader: Reader, expr: ast.expr, depth: int = 0) -> ast.Name | None:
    if depth > _DEEPEST:
        return None
    if isinstance(expr, ast.Call) and called_name(expr) in ("int", "round", "floor") and len(expr.args) == 1:
        return _divided(reader, expr.args[0], depth + 1)
    if isinstance(expr, ast.BinOp) and isinstance(expr.op, (ast.Div, ast.FloorDiv)):
        return _divided(reader, expr.left, depth + 1) if isinstance(expr.right, ast.Constant) else None
    if isinstance(expr, ast.Name) and (is_batch_name(expr.id) or may_be_a_size(expr.id)):
        return expr
    chosen = reader.reaching(expr) if isinstance(expr, ast.Name) else None
    return None if chosen is None or chosen.value is None else _divided(reader, chosen.value, depth + 1)


def _share(reader: Reader, expr: ast.expr, whole: Setting) -> int | None:
    """Tell by what a size is divided: ``n // 2``, ``int(n / 2)``; None where it is computed otherwise."""
    if isinstance(expr, ast.Call) and called_name(expr) in ("int", "round", "floor") and len(expr.args) == 1:
        return _share(reader, expr.args[0], whole)
    if isinstance(expr, ast.BinOp) and isinstance(expr.op, (ast.Div, ast.FloorDiv)):
        left, by = _share(reader, expr.left, whole), expr.right
        number = by.value if isinstance(by, ast.Constant) and type(by.value) is int and by.value > 0 else None
        return None if left is None or number is None else left * number
    if reader.written(expr) in whole.names:
        return 1
    chosen = reader.reaching(expr) if isinstance(expr, ast.Name) else None
    return None if chosen is None or chosen.value is None else _share(reader, chosen.value, whole)


def _place(reader: Reader, node: ast.expr) -> tuple[int, int]:
    return reader.cell.start(node), reader.cell.end(node)
