"""Names that mean a batch size by what is done with them, whatever they are called, and data made by such names."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import KERAS, SHAPES, called_name, is_batch_name

_BATCHES = ("batch", "padded_batch", "ragged_batch", "rebatch")


def sizes_by_use(notebook: Notebook) -> frozenset[str]:
    """Name what the notebook batches data by, and what is not called like a batch size."""

    def earlier() -> frozenset[str]:
        cells = notebook.earlier_with(*_BATCHES)
        return frozenset(name for cell in cells for name in cell.once(_sizes))

    return notebook.before.once("sizes by use", earlier) | notebook.cell.once(_sizes)


def _sizes(cell: PythonCell) -> frozenset[str]:
    given = (
        next((k.value for k in call.keywords if k.arg == "batch_size"), call.args[0] if call.args else None)
        for call in cell.calls
        if isinstance(call.func, ast.Attribute) and called_name(call) in _BATCHES
    )
    names = (one for one in given if isinstance(one, ast.Name) and not is_batch_name(one.id))
    return frozenset(one.id for one in names if isinstance(cell.scopes.home(one), ast.Module))


def lengths_of(scopes: Scopes, within: ast.AST, names: frozenset[str]) -> Iterator[ast.Name]:
    """Yield where code within ``within`` makes something whose first length is what one of the names holds."""
    for node in ast.walk(within) if names else ():
        if not isinstance(node, ast.Name) or node.id not in names or not isinstance(node.ctx, ast.Load):
            continue
        if isinstance(scopes.home(node), ast.Module) and _is_first_length(scopes, node):
            yield node


def _is_first_length(scopes: Scopes, node: ast.Name) -> bool:
    above = list(itertools.islice(scopes.up(node), 3))
    holder = above[0] if above else None
    if isinstance(holder, (ast.List, ast.Tuple)) and holder.elts[0] is not node:
        return False
    call = next((n for n in above if isinstance(n, ast.Call)), None)
    if call is None or called_name(call) not in SHAPES:
        return False
    return isinstance(holder, (ast.List, ast.Tuple)) or call.args[:1] == [node]


_DIVIDES = (ast.Div, ast.FloorDiv, ast.Mod)
_FILLS = frozenset({"append", "extend", "insert", "add", "update"})


def filled_by(scopes: Scopes, home: ast.AST, data: ast.expr, given: ast.expr, sizes: frozenset[str]) -> bool:
    """Tell whether code of ``home`` makes ``data`` of what it has drawn by one of the names of a batch size.

    ``for state, goal in sample(memory, size): x.append(state)`` before ``fit(array(x), batch_size=size)``, where
    ``given`` is the last of these.
    """
    nodes = [node for node in ast.walk(home) if isinstance(node, (ast.stmt, ast.expr))]
    held = {node for node in nodes if node is not given and _draws(scopes, node, sizes)}
    names: set[str] = set()
    while held and (more := {name for node in nodes for name in _filled(node, held, names)} - names):
        names |= more
    return any(one in held or (isinstance(one, ast.Name) and one.id in names) for one in ast.walk(data))


def _draws(scopes: Scopes, node: ast.AST, sizes: frozenset[str]) -> bool:
    """Tell whether the batch size stands where it may say how many samples are drawn, not how many batches."""
    plain = isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Load)
    if not plain or not isinstance(node, ast.expr) or ast.unparse(node) not in sizes:
        return False
    above = scopes.parents.get(node)
    if isinstance(above, ast.BinOp) and above.right is node and isinstance(above.op, _DIVIDES):
        return False
    if _strides(scopes, node, above):
        return False
    call = scopes.parents.get(above) if isinstance(above, ast.keyword) else above
    return not (isinstance(call, ast.Call) and called_name(call) in KERAS)


def _strides(scopes: Scopes, node: ast.expr, above: ast.AST | None) -> bool:
    """Tell whether all samples are gone through by the size: ``range(0, n, size)``, ``x[i:i + size]``."""
    if isinstance(above, ast.Call) and called_name(above) in ("range", "arange", "trange"):
        return len(above.args) == 3 and above.args[2] is node
    if not isinstance(above, ast.BinOp) or not isinstance(above.op, ast.Add):
        return False
    part, other = scopes.parents.get(above), above.left if above.right is node else above.right
    lower = part.lower if isinstance(part, ast.Slice) and part.upper is above else None
    return lower is not None and ast.dump(lower) == ast.dump(other)


def _filled(node: ast.AST, held: set[ast.stmt | ast.expr], names: set[str]) -> set[str]:
    """Name what a statement or call makes of what is held, or of the names that hold it."""

    def holds(expr: ast.AST | None) -> bool:
        inside = ast.walk(expr) if expr is not None else ()
        return any(one in held or (isinstance(one, ast.Name) and one.id in names) for one in inside)

    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and holds(node.value):
        return _roots(node.targets if isinstance(node, ast.Assign) else [node.target])
    if isinstance(node, (ast.For, ast.AsyncFor)) and holds(node.iter):
        kept = [n for n in ast.walk(node) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)]
        grown = [n.func for n in ast.walk(node) if isinstance(n, ast.Call) and called_name(n) in _FILLS]
        return _roots([node.target, *kept, *(n.value for n in grown if isinstance(n, ast.Attribute))])
    if isinstance(node, ast.Call) and called_name(node) in _FILLS and isinstance(node.func, ast.Attribute):
        return _roots([node.func.value]) if any(holds(one) for one in node.args) else set()
    return set()


def _roots(targets: Sequence[ast.expr]) -> set[str]:
    """Name the variables that targets set, or set a part of: ``x[i]`` sets a part of ``x``."""
    found: set[str] = set()
    for target in targets:
        if isinstance(target, (ast.Tuple, ast.List)):
            found |= _roots(target.elts)
        while isinstance(target, (ast.Subscript, ast.Starred)):
            target = target.value
        if isinstance(target, ast.Name):
            found.add(target.id)
    return found
