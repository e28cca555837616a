"""Numbers that an expression surely has: constants, names that surely hold them, and arithmetic of these."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.reader import Reader, Unknown


def evaluate(reader: Reader, expr: ast.expr) -> int | float | None:
    """Compute an expression of constants and of names that surely hold constants; None where it is neither."""
    if isinstance(expr, ast.Constant):
        plain = isinstance(expr.value, (int, float)) and not isinstance(expr.value, bool)
        return expr.value if plain else None  # type: ignore[return-value]
    if isinstance(expr, (ast.Name, ast.UnaryOp, ast.Call, ast.BinOp)):
        return reader.once("evaluate", expr, None, lambda: _evaluate(reader, expr))
    return None


def _evaluate(reader: Reader, expr: ast.Name | ast.UnaryOp | ast.Call | ast.BinOp) -> int | float | None:
    if isinstance(expr, ast.Name):
        found = reader.bindings(expr)
        if not found:
            return reader.scalar(expr.id)
        chosen = reader.reaching(expr)
        if chosen is not None and chosen.kind == "param":
            given = calls.argument_exprs(reader, chosen)
            numbers = set() if isinstance(given, Unknown) else {evaluate(reader, one) for one in given}
            return numbers.pop() if len(numbers) == 1 else None
        if chosen is None or chosen.value is None or chosen.kind != "assign":
            return None
        return evaluate(reader, chosen.value)
    if isinstance(expr, ast.UnaryOp):
        operand = evaluate(reader, expr.operand) if isinstance(expr.op, (ast.USub, ast.UAdd)) else None
        return None if operand is None else -operand if isinstance(expr.op, ast.USub) else operand
    if isinstance(expr, ast.Call):
        return _integer(reader, expr)
    left, right = evaluate(reader, expr.left), evaluate(reader, expr.right)
    return None if left is None or right is None else _compute(expr.op, left, right)


def _integer(reader: Reader, call: ast.Call) -> int | None:
    """Compute ``int(...)``."""
    if not isinstance(call.func, ast.Name) or call.func.id != "int" or len(call.args) != 1 or call.keywords:
        return None
    if reader.bindings(call.func):
        return None
    given = call.args[0]
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        return int(given.value) if given.value.strip().isdecimal() else None
    inner = evaluate(reader, given)
    try:
        return None if inner is None else int(inner)
    except (OverflowError, ValueError):
        return None


def _compute(op: ast.operator, left: float, right: float) -> int | float | None:
    try:
        if isinstance(op, ast.Add):
            return left + right
        if isinstance(op, ast.Sub):
            return left - right
        if isinstance(op, ast.Mult):
            return left * right if abs(left) < 2**64 > abs(right) else None
        if isinstance(op, ast.FloorDiv):
            return left // right
        if isinstance(op, ast.Div):
            return left / right
        if isinstance(op, ast.Pow) and 0 <= right <= 40 and abs(left) <= 1024:
            return float(left**right) if isinstance(left, float) else int(left ** int(right))
        if isinstance(op, ast.LShift) and isinstance(left, int) and isinstance(right, int) and 0 <= right <= 40:
            return left << right
    except (ArithmeticError, ValueError):
        return None
    return None
