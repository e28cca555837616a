"""What the turns of a loop add up, and where that is read: in a quotient, or as it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tf_mem_magic.notebook.batch.counts import SCOPES, Loop
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import position
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
_OF_LISTS = frozenset(
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


def summed_in(reader: Reader, loop: Loop) -> list[Summed]:
    """List what the turns of a loop add to, counters left out."""
    found: dict[tuple[str, bool], list[tuple[ast.stmt, ast.expr]]] = {}
    for statement in _inside(loop.body):
        for key, part, is_list in _added(reader, statement):
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


def _added(reader: Reader, statement: ast.AST) -> Iterator[tuple[str, ast.expr, bool]]:
    """Yield what a statement adds to, what it adds, and whether that is an entry of a list."""
    if isinstance(statement, ast.AugAssign) and isinstance(statement.op, (ast.Add, ast.Sub)):
        yield reader.written(statement.target), statement.value, _is_list(statement.value)
    elif isinstance(statement, ast.Assign):
        for target, value in _pairs(statement):
            part = _more_of_itself(reader, target, value)
            if part is not None:
                yield reader.written(target), part, isinstance(value, ast.Call) and called_name(value) == "append"
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        if isinstance(call.func, ast.Attribute) and call.func.attr in _ADDING and call.args:
            yield reader.written(call.func.value), call.args[0], call.func.attr != "assign_add"


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


def _more_of_itself(reader: Reader, target: ast.expr, value: ast.expr) -> ast.expr | None:
    """Give what is added where a value is set to itself and something more."""
    sides: list[ast.expr] = []
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        sides = [value.left, value.right]
    elif isinstance(value, ast.Call) and called_name(value) == "add" and len(value.args) == 2:
        sides = value.args
    elif isinstance(value, ast.Call) and called_name(value) == "append" and len(value.args) == 2:
        sides = value.args  # ``losses = np.append(losses, loss)``
    others = [side for side in sides if reader.written(side) != reader.written(target)]
    return others[0] if len(sides) - len(others) == 1 else None


def _begins_anew(reader: Reader, loop: Loop, key: str) -> bool:
    """Tell whether turns of a loop begin a sum anew: ``loss = …; loss += penalty``, or after each 50 batches."""
    return any(loop in set(reader.scopes.up(one)) for one in _resets(reader, key))


def _resets(reader: Reader, key: str) -> Iterator[ast.stmt]:
    """Yield the statements that give a sum another value than itself and something more."""
    for node in reader.nodes:
        if isinstance(node, ast.Assign):
            added = {one for one, _, _ in _added(reader, node)}
            again = any(_writes(reader, target, key) for target in node.targets) and key not in added
        elif isinstance(node, ast.AnnAssign):
            again = node.value is not None and reader.written(node.target) == key
        else:
            again = _divides_in_place(reader, node, key) or _assigns(reader, node, key)
        if again and isinstance(node, ast.stmt):
            yield node


def _assigns(reader: Reader, node: ast.AST, key: str) -> bool:
    """Tell whether a statement gives a variable of TensorFlow another value: ``total.assign(0.0)``."""
    call = node.value if isinstance(node, ast.Expr) else None
    sets = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _SETS
    return sets and reader.written(call.func.value) == key  # type: ignore[union-attr]


def _writes(reader: Reader, target: ast.expr, key: str) -> bool:
    if isinstance(target, (ast.Tuple, ast.List)):
        return any(_writes(reader, one, key) for one in target.elts)
    written = reader.written(target)
    return written == key or key.startswith((f"{written}[", f"{written}."))


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
    root = key.split("[")[0].split(".")[0]
    for node in reader.nodes:
        if _divides_in_place(reader, node, key):
            yield node
        elif isinstance(node, _HOLDERS) and isinstance(node.ctx, ast.Load):
            around = isinstance(node, ast.Name) and node.id == root and _is_all_of_it(reader, node, key)
            if around or reader.written(node) == key:
                yield node


def _divides_in_place(reader: Reader, node: ast.AST, key: str) -> bool:
    divides = isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Div, ast.FloorDiv))
    return divides and isinstance(node, ast.AugAssign) and reader.written(node.target) == key


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
                return [] if name in _OF_LISTS else [Read(node)]
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
    divided = [
        Read(n, n.value)
        for n in reader.nodes
        if isinstance(n, ast.AugAssign)
        and _divides_in_place(reader, n, target.id)
        and position(n) > position(statement)
    ]
    if divided:
        return divided
    if not ours:
        return [Read(node)]
    return [one for load in ours for one in _used(reader, load, kind, depth + 1)]
