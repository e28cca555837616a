"""What one turn of a loop adds: a mean over its batch, of which more are added up, or a sum, which stays as it is."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.batch.means.growth import batch_length, growth
from tf_mem_magic.notebook.batch.means.powers import Data
from tf_mem_magic.notebook.follow.behind import made_by
from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.uses import called_name

_SUMS = frozenset({"reduce_sum", "sum", "count_nonzero", "nansum"})
_MEANS = frozenset({"reduce_mean", "mean", "nanmean", "average", "compute_average_loss"})
_THROUGH = frozenset("float int cast numpy item constant stop_gradient convert_to_tensor squeeze array asarray".split())
_LOSSES = "keras.losses."
_DEEPEST = 8


def power_of(data: Data, expr: ast.expr) -> int | None:
    """Tell how the sum of such summands over a loop grows, as a power of how many times more batches there are.

    1: it is a mean over each batch; 0: it is a sum over the samples; None: that cannot be told.
    """
    return _power(data, expr, data.reader.scopes, 0)


def _power(data: Data, expr: ast.expr, scopes: Scopes, depth: int) -> int | None:
    if depth > _DEEPEST:
        return None
    here = scopes is data.reader.scopes
    size = (batch_length(data, expr) or growth(data, expr)) if here and not isinstance(expr, ast.Constant) else None
    if size is not None and size.right == -1:
        return 1 + size.real
    if isinstance(expr, ast.Name):
        value = _value(scopes, expr)
        return None if value is None else _power(data, value, scopes, depth + 1)
    if isinstance(expr, ast.UnaryOp):
        return _power(data, expr.operand, scopes, depth + 1)
    if isinstance(expr, ast.Call):
        return _of_call(data, expr, scopes, depth)
    if isinstance(expr, ast.BinOp) and isinstance(expr.op, (ast.Mult, ast.Div)):
        return _of_product(data, expr, scopes, depth)
    if isinstance(expr, ast.BinOp) and isinstance(expr.op, (ast.Add, ast.Sub)):
        sides = {_power(data, side, scopes, depth + 1) for side in (expr.left, expr.right)}
        return sides.pop() if len(sides) == 1 else None
    return None


def _value(scopes: Scopes, name: ast.Name) -> ast.expr | None:
    """Give what a name surely holds: the last value that it was given before, in the same turn of a loop too."""
    found = scopes.of(scopes.home(name), name.id)
    chosen = scopes.reaching(name, found)
    if chosen is None:
        before = [b for b in found if b.kind == "assign" and scopes.surely_before(scopes.statement(b.node), name)]
        chosen = before[-1] if before and all(b.kind == "assign" for b in found) else None
    return None if chosen is None or chosen.kind != "assign" else chosen.value


def _of_product(data: Data, expr: ast.BinOp, scopes: Scopes, depth: int) -> int | None:
    here = scopes is data.reader.scopes
    left = _power(data, expr.left, scopes, depth + 1)
    if isinstance(expr.op, ast.Mult):
        for one, other in ((expr.left, expr.right), (expr.right, expr.left)):
            size = (batch_length(data, one) or growth(data, one)) if here else None
            if size is not None and size.right == -1:
                # A mean times the samples of its batch is their sum: so is whatever people multiply by that.
                power = _power(data, other, scopes, depth + 1)
                return (1 if power is None else power) + size.real
            if isinstance(one, ast.Constant):
                return _power(data, other, scopes, depth + 1)
        return None
    size = (batch_length(data, expr.right) or growth(data, expr.right)) if here else None
    if isinstance(expr.right, ast.Constant) and size is None:
        return left
    if size is not None and size.right == -1 and left is not None:
        return left - size.real
    return left if size is not None and size.real == 0 and size.right == 0 else None


def _of_call(data: Data, call: ast.Call, scopes: Scopes, depth: int) -> int | None:
    name = called_name(call)
    method = isinstance(call.func, ast.Attribute) and not call.args
    given = call.args[0] if call.args else call.func.value if isinstance(call.func, ast.Attribute) else None
    whole = len(call.args) <= 1 and not any(k.arg == "axis" for k in call.keywords)
    if name in _SUMS or name in _MEANS:
        return (0 if name in _SUMS else 1) if whole else None
    if name in _THROUGH and given is not None and (method or call.args):
        return _power(data, given, scopes, depth + 1)
    if isinstance(call.func, ast.Name):
        if _is_keras_mean(data, call.func.id):
            return 1
        function = data.reader.notebook.function(name)
        node = None if function is None else function.node
        if function is not None and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own = function.cell.scopes
            returns = [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and own.scope_of(n) is node]
            powers = {None if one is None else _power(data, one, own, depth + 1) for one in returns}
            return powers.pop() if len(powers) == 1 else None
    return None


def _is_keras_mean(data: Data, name: str) -> bool:
    """Tell whether a name holds a loss of Keras that takes the mean over the batch, as all do unless they are told."""
    made = [piece.statement for piece in made_by(data.reader, name) if name in piece.binds]
    return bool(made) and isinstance(made[0], ast.Assign) and makes_a_mean(data.reader.notebook, made[0].value)


def makes_a_mean(notebook: Notebook, made: ast.expr | None) -> bool:
    """Tell whether an expression makes a loss of Keras with its usual reduction, which is the mean over the batch."""
    if not isinstance(made, ast.Call):
        return False
    origin = notebook.origin(made.func)
    is_class = origin.startswith(_LOSSES) and origin[len(_LOSSES) :][:1].isupper()
    return is_class and not any(k.arg in ("reduction", None) for k in made.keywords)
