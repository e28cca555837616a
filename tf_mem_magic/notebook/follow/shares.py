"""Batch sizes that are a share of another one: the half of a batch that a loop takes from each side."""

from __future__ import annotations

import ast
import math
from dataclasses import replace

from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.uses import called_name, is_batch_name, may_be_a_size


def resolve_the_whole(reader: Reader, size: ast.expr) -> Setting | Unknown:
    """Resolve a size; where it is computed as a share of a batch, that batch, which stays divisible by it."""
    whole = whole_of(reader, size)
    if whole is None or whole[1] == 1:
        return resolve(reader, size)
    setting = resolve(reader, whole[0])
    return replace(setting, parts=math.lcm(setting.parts, whole[1])) if isinstance(setting, Setting) else setting


def whole_of(reader: Reader, expr: ast.expr) -> tuple[ast.expr, int] | None:
    """Give what is named like a batch size and by what it is divided: 2 for ``n // 2``, ``max(int(n / 2), 1)``.

    None where a size is computed otherwise, or of nothing that is named so.
    """
    if isinstance(expr, ast.Call) and called_name(expr) in ("int", "round", "floor") and len(expr.args) == 1:
        return whole_of(reader, expr.args[0])
    if isinstance(expr, ast.Call) and called_name(expr) == "max" and len(expr.args) == 2:
        others = [one for one in expr.args if not (isinstance(one, ast.Constant) and one.value == 1)]
        return whole_of(reader, others[0]) if len(others) == 1 else None
    if isinstance(expr, ast.BinOp) and isinstance(expr.op, (ast.Div, ast.FloorDiv)):
        left, by = whole_of(reader, expr.left), expr.right
        number = by.value if isinstance(by, ast.Constant) and type(by.value) is int and by.value > 0 else None
        return None if left is None or number is None else (left[0], left[1] * number)
    chosen = reader.reaching(expr) if isinstance(expr, ast.Name) else None
    if chosen is not None and chosen.kind == "assign" and isinstance(chosen.value, (ast.BinOp, ast.Call)):
        further = whole_of(reader, chosen.value)
        if further is not None:
            return further
    name = expr.id if isinstance(expr, ast.Name) else expr.attr if isinstance(expr, ast.Attribute) else ""
    return (expr, 1) if is_batch_name(name) or may_be_a_size(name) else None
