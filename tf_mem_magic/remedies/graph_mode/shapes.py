"""Steps whose tensors have another shape at each call: a graph would be traced anew for each of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_OF_ANY_LENGTH = frozenset(
    "padded_batch bucket_by_sequence_length ragged_batch dense_to_ragged_batch RaggedTensor".split()
)
_JOINS = frozenset("concat concatenate append vstack hstack pad".split())
_RESIZES = frozenset("resize random_crop crop_to_bounding_box zeros ones normal uniform".split())
_RANDOM = frozenset("randint randrange choice uniform random sample integers".split())
_DEEPEST = 4


def changing_shape(cell: PythonCell, trees: Iterable[ast.Module], call: ast.Call, counts: Iterable[str]) -> str:
    """Give what a call is handed whose shape may be another in each turn of its loop; empty where none is seen.

    ``trees`` are those of the notebook, ``counts`` name the numbers that change as the cell runs.
    """
    loop = next((up for up in cell.scopes.up(call) if isinstance(up, _LOOPS)), None)
    if loop is None:
        return ""
    inside = [node for statement in loop.body for node in ast.walk(statement)]
    set_here = _assigned(inside)
    drawn = {*counts, *(name for name, value in set_here if _is_random(value))}
    targets = set[str]()
    if not isinstance(loop, ast.While):
        drawn |= _numbers_of(loop)
        if _of_any_length(loop.iter, list(_assigned(n for tree in trees for n in ast.walk(tree)))):
            targets = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
    for given in (*call.args, *(k.value for k in call.keywords)):
        for node in _behind(given, set_here, 0):
            held = isinstance(node, ast.Name) and node.id in targets
            if held or _varies(node, drawn) or _grows(node, set_here):
                return ast.unparse(given)
    return ""


def _assigned(nodes: Iterable[ast.AST]) -> list[tuple[str, ast.expr]]:
    found = []
    for node in nodes:
        if isinstance(node, ast.Assign):
            found += [(t.id, node.value) for target in node.targets for t in _names(target)]
    return found


def _names(target: ast.expr) -> list[ast.Name]:
    entries = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    return [entry for entry in entries if isinstance(entry, ast.Name)]


def _behind(expr: ast.expr, set_here: list[tuple[str, ast.expr]], depth: int) -> Iterator[ast.AST]:
    """Yield the nodes of an expression, and of what the loop computes the names in it of."""
    for node in ast.walk(expr):
        yield node
        if isinstance(node, ast.Name) and depth < _DEEPEST:
            for name, value in set_here:
                if name == node.id and value is not expr:
                    yield from _behind(value, set_here, depth + 1)


def _is_random(value: ast.expr) -> bool:
    return any(isinstance(n, ast.Call) and called_name(n) in _RANDOM for n in ast.walk(value))


def _numbers_of(loop: ast.For | ast.AsyncFor) -> set[str]:
    """Name what of a loop's targets is a number: all of a range, the first of ``enumerate``."""
    by = called_name(loop.iter) if isinstance(loop.iter, ast.Call) else ""
    if by not in ("range", "trange", "enumerate", "count"):
        return set()
    first = loop.target.elts[0] if by == "enumerate" and isinstance(loop.target, ast.Tuple) else loop.target
    return {n.id for n in ast.walk(first) if isinstance(n, ast.Name)}


def _varies(node: ast.AST, drawn: set[str]) -> bool:
    """Tell whether a part or a size follows a number that changes: ``x[:, :t]``, ``resize(x, (side, side))``.

    A part that is as long each time, ``x[i : i + 32]``, does not.
    """
    if isinstance(node, ast.Slice):
        ends = [end for end in (node.lower, node.upper) if end is not None]
        return len(ends) == 1 and node.step is None and bool(_read(ends[0]) & drawn)
    if isinstance(node, ast.Call) and called_name(node) in _RESIZES:
        sizes = [*node.args[1:], *(k.value for k in node.keywords if k.arg in ("size", "shape"))]
        sizes += node.args[:1] if called_name(node) not in ("resize", "random_crop") else []
        return any(_read(size) & drawn for size in sizes if isinstance(size, (ast.Tuple, ast.List)))
    return False


def _grows(node: ast.AST, set_here: list[tuple[str, ast.expr]]) -> bool:
    """Tell whether a name is set to itself and more: ``context = tf.concat([context, token], 1)``."""
    if not isinstance(node, ast.Name):
        return False
    joined = (value for name, value in set_here if name == node.id and isinstance(value, ast.Call))
    return any(called_name(value) in _JOINS and node.id in _read(value) for value in joined)


def _of_any_length(source: ast.expr, assigned: list[tuple[str, ast.expr]]) -> bool:
    """Tell whether data come in batches that are as long as their longest sample."""
    queue = [source]
    for expr in queue:
        for node in ast.walk(expr):
            if isinstance(node, ast.Call) and called_name(node) in _OF_ANY_LENGTH and not _is_of_one_length(node):
                return True
        if len(queue) < 20:
            queue += [value for name, value in assigned if name in _read(expr) and value not in queue]
    return False


def _is_of_one_length(call: ast.Call) -> bool:
    """Tell whether samples are padded to lengths that are written out."""
    given = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "padded_shapes")]
    if called_name(call) != "padded_batch" or not given:
        return False
    return not any(
        isinstance(n, (ast.Name, ast.Call, ast.Attribute)) or (isinstance(n, ast.Constant) and n.value in (None, -1))
        for n in ast.walk(given[0])
    ) and not any(isinstance(n, ast.USub) for n in ast.walk(given[0]))


def _read(expr: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(expr) if isinstance(n, ast.Name)}
