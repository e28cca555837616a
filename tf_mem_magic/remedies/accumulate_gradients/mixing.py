"""Operations in which the samples of a batch meet: what they give of its parts does not average to that of the whole.

Means and sums over the samples, and what is computed of them, are those of ``sums.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial

from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.accumulate_gradients.sums import Code, along, axis_of

_OVER_ALL = {
    **dict.fromkeys("max min reduce_max reduce_min amax amin prod reduce_prod reduce_any reduce_all".split(), 1),
    **dict.fromkeys("logsumexp reduce_logsumexp reduce_euclidean_norm l2_normalize cumsum cumprod".split(), 1),
    **dict.fromkeys("norm euclidean_norm quantile percentile median".split(), 2),
}
"""Functions that go over all samples unless they get an axis, and the place where they get it."""

_ALONG = {
    **dict.fromkeys("softmax log_softmax normalize flip".split(), 1),
    **dict.fromkeys("reverse moments".split(), 1),
    **dict.fromkeys("roll".split(), 2),
}
"""Those that do so only where their axis says it."""

_IN_PARTS = {"split": 2, "array_split": 2}
"""Those that cut a batch into parts, and set these beside each other."""

_RANKS = frozenset("top_k sort argsort shuffle scan foldl foldr covariance correlation dynamic_partition".split())
_KEEPS = frozenset("assign assign_add assign_sub scatter_update".split())
_PRODUCTS = frozenset("matmul dot batch_dot".split())
_SELECTS = frozenset(("boolean_mask",))


def mixed(code: Code) -> ast.expr | None:
    """Give the expression in which samples of a batch meet, or may; None where there is none."""
    ways = (_over_samples, _ranked, _kept, _cut, _gathered, partial(_multiplied, code))
    for node in code.nodes:
        if isinstance(node, ast.Call) and (code.is_fed(node) or called_name(node) in _KEEPS):
            if any(way(node) if isinstance(way, partial) else way(code, node) for way in ways):
                return node
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            if code.is_fed(node.left) and code.is_fed(node.right) and _turned(code, node.right, node.left):
                return node
        elif isinstance(node, ast.Subscript) and _is_a_part(code, node):
            return node
    return _each_with_each(code)


def selects(code: Code) -> bool:
    """Tell whether some numbers of a batch are picked by a condition: their count differs from part to part."""
    return any(_picked_by(code, node) for node in code.nodes)


def _over_samples(code: Code, call: ast.Call) -> bool:
    name = called_name(call)
    if name not in _OVER_ALL and name not in _ALONG:
        return False
    if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) in ("np", "math", "self"):
        return False
    axis = axis_of(call, _OVER_ALL.get(name, _ALONG.get(name, 1)))
    if axis is None:
        return name in _OVER_ALL and not (name in ("max", "min") and len(call.args) > 1)
    return _is_flat(code, call) or along(axis, code.values) is True


def _ranked(code: Code, call: ast.Call) -> bool:
    name = called_name(call)
    if name in ("sort", "argsort") and axis_of(call, 1) is not None:
        return along(axis_of(call, 1), code.values) is True or _is_flat(code, call)
    return name in _RANKS or name.startswith(("segment_", "unsorted_segment_"))


def _kept(code: Code, call: ast.Call) -> bool:
    """Tell a moving average: it would move at each part."""
    return isinstance(call.func, ast.Attribute) and called_name(call) in _KEEPS


def _cut(code: Code, call: ast.Call) -> bool:
    place = _IN_PARTS.get(called_name(call))
    if place is None or not isinstance(call.func, ast.Attribute):
        return False
    axis = axis_of(call, place)
    return axis is None or along(axis, code.values) is True


def _gathered(code: Code, call: ast.Call) -> bool:
    """Tell samples that are taken from others' places; ``where`` picks by a condition."""
    if called_name(call) != "gather" or not call.args or not code.is_fed(call.args[0]):
        return False
    if any(k.arg == "batch_dims" for k in call.keywords) or _picked_by(code, call):
        return False
    axis = axis_of(call, 3)
    return axis is None or along(axis, code.values) is True


def _multiplied(code: Code, call: ast.Call) -> bool:
    name = called_name(call)
    if name == "einsum":
        return bool(call.args) and _sums_letters(call.args[0])
    if len(call.args) < 2 or not all(code.is_fed(one) for one in call.args[:2]):
        return False
    if name == "tensordot":
        return True
    if name not in _PRODUCTS:
        return False
    flags = [k for k in call.keywords if k.arg in ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")]
    by_flag = any(isinstance(k.value, ast.Constant) and k.value.value is True for k in flags)
    return (by_flag and not _is_deep(code)) or _turned(code, *call.args[:2]) or _turned(code, *call.args[1::-1])


def _sums_letters(spec: ast.expr) -> bool:
    """Tell whether a product by letters adds samples up, or multiplies each with each: ``bi,bj->ij``, ``id,jd->ij``."""
    if not isinstance(spec, ast.Constant) or not isinstance(spec.value, str) or "->" not in spec.value:
        return True
    given, _, out = spec.value.replace(" ", "").partition("->")
    parts = given.split(",")
    if "." in spec.value:
        return False
    firsts = [part[:1] for part in parts]
    if out[:1] not in firsts:
        return True
    return len(parts) == 2 and len(set(firsts)) == 2 and set(firsts) <= set(out) and parts[0][1:] == parts[1][1:]


def _turned(code: Code, one: ast.expr, other: ast.expr) -> bool:
    """Tell whether one of two factors is transposed as a whole, so that rows of the batch meet rows."""
    for _ in range(3):
        one = code.values.get(one.id, one) if isinstance(one, ast.Name) else one
    if isinstance(one, ast.Attribute):
        return one.attr == "T"
    whole = isinstance(one, ast.Call) and called_name(one) == "transpose" and len(one.args) <= 1 and not one.keywords
    return whole and code.is_fed(one) and not _is_deep(code)


def _is_deep(code: Code) -> bool:
    """Tell whether code weighs values by products, or makes maps of rows: each sample has products of its own."""
    for call in (n for n in code.nodes if isinstance(n, ast.Call)):
        name = called_name(call)
        if name == "reshape" and any(isinstance(a, (ast.Tuple, ast.List)) and len(a.elts) > 2 for a in call.args):
            return True
        weighs = name == "softmax" and isinstance(call.func, ast.Attribute)
        if weighs and sum(called_name(c) in _PRODUCTS for c in code.nodes if isinstance(c, ast.Call)) > 1:
            return True
    return False


def _is_flat(code: Code, call: ast.Call) -> bool:
    """Tell whether what a call gets was flattened, samples and all."""
    given = call.args[0] if call.args else None
    given = code.values.get(given.id) if isinstance(given, ast.Name) else given
    if not isinstance(given, ast.Call):
        return False
    if called_name(given) in ("flatten", "ravel"):
        return "K" in ast.unparse(given.func).split(".") or called_name(given) == "ravel"
    shape = given.args[1] if called_name(given) == "reshape" and len(given.args) > 1 else None
    return shape is not None and ast.unparse(shape) in ("[-1]", "(-1,)", "-1")


def _is_a_part(code: Code, node: ast.Subscript) -> bool:
    """Tell whether some of the samples are taken by their places: ``out[:16]``, ``out[::-1]``."""
    if not isinstance(node.ctx, ast.Load) or not isinstance(node.value, ast.Name) or not code.is_fed(node.value):
        return False
    first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
    if not isinstance(first, ast.Slice) or first.lower is first.upper is first.step is None:
        return False
    value = code.values.get(node.value.id)
    return value is None or not (set(_words(value)) & {"shape", "get_shape", "int_shape", "as_list"})


def _each_with_each(code: Code) -> ast.expr | None:
    """Find two values of which one has a new first axis, and the other a new second one: all pairs of samples."""
    first, second = None, None
    for node in code.nodes:
        at = _new_axis(node)
        if at == 0 and code.is_fed(node):
            first = node
        elif at == 1 and code.is_fed(node):
            second = node
    return first if first is not None and second is not None else None  # type: ignore[return-value]


def _new_axis(node: ast.AST) -> int | None:
    """Give where a value gets a new axis, where that is one of the first two."""
    if isinstance(node, ast.Call) and called_name(node) == "expand_dims":
        axis = axis_of(node, 1)
        return int(ast.unparse(axis)) if axis is not None and ast.unparse(axis) in ("0", "1") else None
    if not isinstance(node, ast.Subscript):
        return None
    entries = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for at, entry in enumerate(entries[:2]):
        if (isinstance(entry, ast.Constant) and entry.value is None) or ast.unparse(entry).endswith("newaxis"):
            return at
    return None


def _picked_by(code: Code, node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if called_name(node) in _SELECTS:
            return True
        if called_name(node) not in ("gather", "gather_nd") or len(node.args) < 2:
            return False
        index = code.values.get(node.args[1].id) if isinstance(node.args[1], ast.Name) else node.args[1]
        return any(
            isinstance(n, ast.Call) and called_name(n) == "where" and len(n.args) + len(n.keywords) == 1
            for n in ([] if index is None else ast.walk(index))
        )
    if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
        return False
    chosen = code.values.get(node.slice.id) if isinstance(node.slice, ast.Name) else node.slice
    return isinstance(chosen, ast.Compare) and code.is_fed(chosen)


def _words(expr: ast.AST) -> Iterator[str]:
    for node in ast.walk(expr):
        if isinstance(node, (ast.Name, ast.Attribute)):
            yield node.id if isinstance(node, ast.Name) else node.attr
