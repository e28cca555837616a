"""Batch sizes that are a share of another one: the half of a batch that a loop takes from each side."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.notebook.follow.reader import Reader, Setting
from tf_mem_magic.notebook.uses import called_name


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
