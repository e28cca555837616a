"""What the turns of a loop add up, and where that is read: in a quotient, or as it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tf_mem_magic.notebook.batch.counts import SCOPES, Loop
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name

_HOLDERS = (ast.Name, ast.Attribute, ast.Subscript)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_ADDING = frozenset({"append", "extend", "assign_add"})
_THROUGH = frozenset(
    "float int round abs cast constant array asarray convert_to_tensor stop_gradient squeeze numpy item result".split()
)
_SUMS = frozenset({"sum", "reduce_sum", "fsum", "add_n", "nansum"})
_DIVIDES = frozenset({"divide", "true_divide", "divide_no_nan", "truediv"})
_SETS = frozenset({"assign", "clear", "reset_state", "reset_states"})
OF_LISTS = frozenset(
    "mean reduce_mean average nanmean median std max min concatenate concat vstack hstack plot extend print len".split()
)
"""What may be made of a list that has more entries, each of fewer samples, and stays the same but for that."""

_DEEPEST = 3


@dataclass(frozen=True)
class Summed:
    """What the turns of a loop add to.

    Attributes
    ----------
    key : str
        How it is written: ``total``, ``logs['loss']``.
    parts : tuple of ast.expr
        What is added.
    adding : tuple of ast.stmt
        The statements that add.
    is_list : bool
        It is a list that gets entries.
    """

    key: str
    parts: tuple[ast.expr, ...]
    adding: tuple[ast.stmt, ...]
    is_list: bool


@dataclass(frozen=True)
class Read:
    """Where a sum is read: ``by`` is what it is divided by; None: it is read as it is, in a place like ``node``."""

    node: ast.expr | ast.stmt
    by: ast.expr | None = None


Kind = Literal["sum", "list"]


def _written(node: ast.AST) -> str:
    try:
        return ast.unparse(node)
    except RecursionError:
        return f"an expression in line {getattr(node, 'lineno', 0)}"


def summed_in(reader: Reader, loop: Loop) -> list[Summed]:
    """List what the turns of a loop add to, counters left out."""
    found: dict[tuple[str, bool], list[tuple[ast.stmt, ast.expr]]] = {}
    for statement in _inside(loop.body):
        for key, part, is_list in _added(statement):
            if not (isinstance(part, ast.Constant) and not is_list) and not _begins_anew(reader, loop, key):
                found.setdefault((key, is_list), []).append((statement, part))
    return [
        Summed(key, tuple(part for _, part in added), tuple(statement for statement, _ in added), is_list)
        for (key, is_list), added in found.items()
    ]


def _inside(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a loop, in loops inside it too, but not in functions."""
    queue: list[ast.AST] = list(body)
    while queue:
        node = queue.pop(0)
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, (*SCOPES, ast.expr)):
            queue += ast.iter_child_nodes(node)


def _added(statement: ast.AST) -> Iterator[tuple[str, ast.expr, bool]]:
    """Yield what a statement adds to, what it adds, and whether that is an entry of a list."""
    if isinstance(statement, ast.AugAssign) and isinstance(statement.op, (ast.Add, ast.Sub)):
        yield _written(statement.target), statement.value, _is_list(statement.value)
    elif isinstance(statement, ast.Assign):
        for target, value in _pairs(statement):
            part = _more_of_itself(target, value)
            if part is not None:
                yield _written(target), part, isinstance(value, ast.Call) and called_name(value) == "append"
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        if isinstance(call.func, ast.Attribute) and call.func.attr in _ADDING and call.args:
            yield _written(call.func.value), call.args[0], call.func.attr != "assign_add"


def _is_list(value: ast.expr) -> bool:
    """Tell whether a value that is added has entries: ``[loss]``, ``list(labels)``, ``y.numpy().tolist()``, a text."""
    makes = isinstance(value, ast.Call) and called_name(value) in ("list", "tolist", "tuple", "str", "format")
    return makes or isinstance(value, (ast.List, ast.ListComp, ast.JoinedStr))


def _pairs(statement: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield each target of an assignment with its own value: ``a, b = a + x, b + y``."""
    for target in statement.targets:
        value = statement.value
        both = isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
        if both and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            yield from zip(target.elts, value.elts)  # type: ignore[attr-defined]
        else:
            yield target, value


def _more_of_itself(target: ast.expr, value: ast.expr) -> ast.expr | None:
    """Give what is added where a value is set to itself and something more."""
    sides: list[ast.expr] = []
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        sides = [value.left, value.right]
    elif isinstance(value, ast.Call) and called_name(value) == "add" and len(value.args) == 2:
        sides = value.args
    elif isinstance(value, ast.Call) and called_name(value) == "append" and len(value.args) == 2:
        sides = value.args  # ``losses = np.append(losses, loss)``
    others = [side for side in sides if _written(side) != _written(target)]
    return others[0] if len(sides) - len(others) == 1 else None


def _begins_anew(reader: Reader, loop: Loop, key: str) -> bool:
    """Tell whether turns of a loop begin a sum anew: ``loss = …; loss += penalty``, or after each 50 batches."""
    return any(loop in set(reader.scopes.up(one)) for one in _resets(reader, key))


def _resets(reader: Reader, key: str) -> list[ast.stmt]:
    """List the statements that give a sum another value than itself and something more."""
    known = reader.cell.once(_places).resets
    return [one for name in _holders_of(key) for one, added in known.get(name, ()) if key not in added]


def _holders_of(key: str) -> Iterator[str]:
    """Yield a sum as it is written, and what holds it: ``logs['train']['loss']``, ``logs['train']``, ``logs``."""
    yield key
    for at, sign in enumerate(key):
        if sign in ".[" and at:
            yield key[:at]


@dataclass(frozen=True)
class _Places:
    """Where a cell sets, divides and reads what it adds up, by how that is written."""

    resets: dict[str, list[tuple[ast.stmt, frozenset[str]]]]
    divided: dict[str, list[ast.AugAssign]]
    loads: dict[str, list[ast.expr]]


def _places(cell: PythonCell) -> _Places:
    found = _Places({}, {}, {})
    for node in cell.nodes:
        if isinstance(node, ast.Assign):
            added = frozenset(key for key, _, _ in _added(node))
            for target in node.targets:
                for one in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                    found.resets.setdefault(_written(one), []).append((node, added))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            found.resets.setdefault(_written(node.target), []).append((node, frozenset()))
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Div, ast.FloorDiv)):
            found.resets.setdefault(_written(node.target), []).append((node, frozenset()))
            found.divided.setdefault(_written(node.target), []).append(node)
        elif isinstance(node, ast.Expr) and _sets(node):
            found.resets.setdefault(_sets(node), []).append((node, frozenset()))
        elif isinstance(node, _HOLDERS) and isinstance(node.ctx, ast.Load):
            found.loads.setdefault(_written(node), []).append(node)
    return found


def _sets(statement: ast.Expr) -> str:
    """Name the variable of TensorFlow that a statement gives another value: ``total.assign(0.0)``; empty: none."""
    call = statement.value
    sets = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _SETS
    return _written(call.func.value) if sets else ""  # type: ignore[attr-defined]


def reads_of(reader: Reader, loop: Loop, summed: Summed) -> list[Read]:
    """List where a sum over the turns of a loop is read, each time with what it is divided by."""
    found: list[Read] = []
    for node in _holding(reader, summed.key):
        if not _is_read_after(reader, loop, summed, node):
            continue
        if isinstance(node, ast.AugAssign):
            found.append(Read(node, node.value))
        elif isinstance(node, ast.expr):
            found += _used(reader, node, "list" if summed.is_list else "sum", 0)
    return found


def _holding(reader: Reader, key: str) -> Iterator[ast.AST]:
    """Yield what reads a sum by its name, or divides it in place."""
    known, root = reader.cell.once(_places), key.split("[")[0].split(".")[0]
    yield from known.divided.get(key, ())
    yield from known.loads.get(key, ())
    if root != key:
        names = (node for node in known.loads.get(root, ()) if isinstance(node, ast.Name))
        yield from (node for node in names if _is_all_of_it(reader, node, key))


def _is_all_of_it(reader: Reader, name: ast.Name, key: str) -> bool:
    """Tell whether a name is read that holds the sum among others: ``logs``, or ``logs[key]``, not ``logs['n']``."""
    above = reader.scopes.parents.get(name)
    if isinstance(above, ast.Attribute):
        return key.startswith(f"{name.id}[")
    return not (isinstance(above, ast.Subscript) and above.value is name and isinstance(above.slice, ast.Constant))


def _is_read_after(reader: Reader, loop: Loop, summed: Summed, node: ast.AST) -> bool:
    """Tell whether a place may read what the loop has added up: it is behind or in it, and nothing began anew since."""
    scopes = reader.scopes
    above = list(scopes.up(node))
    if any(one in above for one in summed.adding) or scopes.scope_of(node) not in _seen_from(reader, loop, node):
        return False
    if _is_of_a_comprehension(reader, node, summed.key):
        return False
    resets = [one for one in _resets(reader, summed.key) if one is not node and one not in above]
    within = loop in above
    if position(node) < position(loop):
        again = any(one in above for one in scopes.up(loop) if isinstance(one, _LOOPS))
        return again and not any(
            scopes.surely_before(one, node) and any(up in above for up in scopes.up(one) if isinstance(up, _LOOPS))
            for one in resets
        )
    return within or not any(
        position(one) > position(loop) and loop not in set(scopes.up(one)) and scopes.surely_before(one, node)
        for one in resets
    )


def _seen_from(reader: Reader, loop: Loop, node: ast.AST) -> tuple[ast.AST, ...]:
    """List the scopes in which a name means what it means in the loop: its own, and comprehensions there."""
    home, inner = reader.scopes.scope_of(loop), reader.scopes.scope_of(node)
    if inner is home:
        return (home,)
    while isinstance(inner, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)):
        inner = reader.scopes.scope_of(inner)
    return (home, reader.scopes.scope_of(node)) if inner is home else (home,)


def _is_of_a_comprehension(reader: Reader, node: ast.AST, key: str) -> bool:
    """Tell whether a name is the variable of a comprehension, not the sum."""
    name = next((n for n in ast.walk(node) if isinstance(n, ast.Name)), None)
    if name is None or name.id != key.split("[")[0].split(".")[0]:
        return False
    return isinstance(reader.scopes.home(name), (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp))


def _used(reader: Reader, node: ast.expr, kind: Kind, depth: int) -> list[Read]:
    """Follow what is read upwards: to the quotient that it stands in, through names, or to where it is used."""
    child: ast.AST = node
    for parent in reader.scopes.up(node):
        if isinstance(parent, ast.Call) and child in parent.args:
            name = called_name(parent)
            if kind == "list" and name in _SUMS:
                kind = "sum"
            elif kind == "list":
                return [] if name in OF_LISTS else [Read(node)]
            elif name in _DIVIDES and len(parent.args) == 2 and child is parent.args[0]:
                return [Read(parent, parent.args[1])]
            elif name not in _THROUGH and name not in _SUMS:
                return [Read(node)]
        elif isinstance(parent, ast.Attribute):
            if parent.attr in _SETS or (kind == "list" and parent.attr in (*_ADDING, "mean")):
                return []
            if parent.attr not in _THROUGH:
                return [Read(node)]
        elif isinstance(parent, ast.Call) and parent.func is child:
            pass
        elif isinstance(parent, ast.BinOp) and kind == "sum":
            if isinstance(parent.op, (ast.Div, ast.FloorDiv)):
                return [Read(parent, parent.right)] if child is parent.left else [Read(node)]
            if not isinstance(parent.op, (ast.Add, ast.Sub, ast.Mult)):
                return [Read(node)]
        elif isinstance(parent, ast.UnaryOp):
            pass
        elif isinstance(parent, ast.Assign) and depth < _DEEPEST:
            return _by_name(reader, parent, node, kind, depth)
        else:
            return [] if kind == "list" and isinstance(parent, ast.Expr) else [Read(node)]
        child = parent
    return [Read(node)]


def _by_name(reader: Reader, statement: ast.Assign, node: ast.expr, kind: Kind, depth: int) -> list[Read]:
    """Follow a sum that is given another name: ``mean = float(total)``."""
    target = statement.targets[0]
    if len(statement.targets) != 1 or not isinstance(target, ast.Name):
        return [Read(node)]
    loads = reader.scopes.loads.get((reader.scopes.home(target), target.id), [])
    ours = [load for load in loads if position(load) > position(statement)]
    known = reader.cell.once(_places).divided.get(target.id, ())
    divided = [Read(n, n.value) for n in known if position(n) > position(statement)]
    if divided:
        return divided
    if not ours:
        return [Read(node)]
    return [one for load in ours for one in _used(reader, load, kind, depth + 1)]
