"""How a number changes as batches shrink: what counts batches grows, or should, and what counts samples stays."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tf_mem_magic.notebook.batch.counts import Loop, counters_of
from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.batch.earlier_data import size_then
from tf_mem_magic.notebook.batch.generators import assigned_once
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name, is_batch_name

_THROUGH = frozenset("int float round ceil floor abs max min cast constant numpy item ceil_div".split())
"""Calls that give about the number that they are given."""

_OF_SAMPLES = frozenset({"n", "samples", "num_examples", "num_samples", "shape"})
"""What data tell of their samples, whatever their batches."""

_DEEPEST = 12
_BY_CHANCE = 10
"""A number below this may be that of the batches by chance."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How a number changes where batches become so many times smaller, as a power of that.

    Attributes
    ----------
    right : int
        How it would change if all of the notebook ran with the smaller batches: 1 for a number of batches, 0 for one
        of samples, -1 for a batch size.
    real : int
        How it does change by the edit: 0 where it stays.
    """

    right: int
    real: int


_SAMPLES = Growth(0, 0)


@dataclass(frozen=True)
class Data:
    """The data of one loop that get smaller batches.

    Attributes
    ----------
    reader : Reader
        The cell.
    loop : Loop
        The loop.
    setting : Setting
        Their batch size, with all places and names that the edit sets.
    own : frozenset of str
        The dataset of an earlier cell that they come from, where they do.
    lists : frozenset of str
        What gets an entry in each turn of the loop, as it is written.
    counts : int or None
        The number of their batches now; None where it is not known.
    """

    reader: Reader
    loop: Loop
    setting: Setting
    own: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    counts: int | None = None

    def is_count(self, value: object) -> bool:
        """Tell whether a number is that of their batches, and not by chance."""
        return type(value) in (int, float) and value == self.counts and value >= _BY_CHANCE  # type: ignore[operator]


def growth(data: Data, expr: ast.expr, depth: int = 0) -> Growth | None:
    """Tell how a number of the cell changes; None where that is not sure."""
    if depth > _DEEPEST:
        return None
    reader, at = data.reader, (data.reader.cell.start(expr), data.reader.cell.end(expr))
    for slot in data.setting.slots:
        if (slot.start, slot.end) == at and (slot.counts or not slot.before):
            return Growth(1, 1) if slot.counts else Growth(-1, -1)
    if isinstance(expr, (ast.Name, ast.Attribute, ast.Subscript)):
        if reader.written(expr) in data.setting.names:
            return Growth(-1, -1)
        if isinstance(expr, ast.Name):
            return _of_name(data, expr, depth)
        return _of_part(data, expr)
    if isinstance(expr, ast.Call) and called_name(expr) in ("len", "cardinality", "__len__"):
        return _of_length(data, expr)
    return _computed(data, expr, lambda one: growth(data, one, depth + 1))


def _computed(data: Data, expr: ast.expr, of: Callable[[ast.expr], Growth | None]) -> Growth | None:
    """Tell it of what is computed of other numbers, of which ``of`` tells it."""
    if isinstance(expr, ast.Constant):
        return _of_number(data, expr.value)
    if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, (ast.USub, ast.UAdd)):
        return of(expr.operand)
    if isinstance(expr, ast.Call) and called_name(expr) in _THROUGH:
        owner = expr.func.value if isinstance(expr.func, ast.Attribute) else None
        given = [owner] if called_name(expr) in ("numpy", "item") and owner is not None else expr.args[:1]
        if called_name(expr) in ("max", "min"):
            given = [one for one in expr.args if not isinstance(one, ast.Constant)]
        return _same([of(one) for one in given])
    if isinstance(expr, ast.IfExp):
        return _same([of(expr.body), of(expr.orelse)])
    if not isinstance(expr, ast.BinOp):
        return None
    return _of_operation(data, expr, of)


def _of_operation(data: Data, expr: ast.BinOp, of: Callable[[ast.expr], Growth | None]) -> Growth | None:
    plain = [isinstance(side, ast.Constant) and not _of_number(data, side.value) for side in (expr.left, expr.right)]
    if isinstance(expr.op, (ast.Add, ast.Sub)):
        sides = [of(side) for side in (expr.left, expr.right) if not _is_small(side)]
        return _same(sides)
    if isinstance(expr.op, ast.Mult):
        left, right = (_SAMPLES if is_plain else of(side) for side, is_plain in zip((expr.left, expr.right), plain))
        return None if left is None or right is None else Growth(left.right + right.right, left.real + right.real)
    if isinstance(expr.op, (ast.Div, ast.FloorDiv)):
        left, right = of(expr.left), of(expr.right)
        return None if left is None or right is None else Growth(left.right - right.right, left.real - right.real)
    return None


def _is_small(expr: ast.expr) -> bool:
    """Tell whether a number is written out that is added to another: ``i + 1``, ``(n + 63) // 64``."""
    if isinstance(expr, ast.BinOp):
        return _is_small(expr.left) and _is_small(expr.right)
    return isinstance(expr, ast.Constant) or (isinstance(expr, ast.Name) and is_batch_name(expr.id))


def _of_number(data: Data, value: object) -> Growth | None:
    """Tell it of a number that is written out: the size itself, or as many as there are batches; else it is unknown."""
    if type(value) not in (int, float):
        return None
    if value == data.setting.value:
        return Growth(-1, 0)
    return Growth(1, 0) if data.is_count(value) else None


def _same(found: Iterable[Growth | None]) -> Growth | None:
    known = set(found)
    return known.pop() if len(known) == 1 else None


def _of_name(data: Data, name: ast.Name, depth: int) -> Growth | None:
    reader = data.reader
    counting = _counter(data, name)
    if counting is not None:
        return counting
    if _is_changed(reader, name):
        return None
    if not reader.bindings(name):
        return _of_earlier(data, name.id)
    chosen = reader.reaching(name)
    if chosen is None:
        return None
    if chosen.kind == "param":
        given = calls.argument_exprs(reader, chosen)
        return None if isinstance(given, Unknown) else _same(growth(data, one, depth + 1) for one in given)
    if chosen.value is None or chosen.kind != "assign":
        return None
    if is_batch_name(name.id) and reader.scalar(name.id) == data.setting.value:
        return Growth(-1, 0)
    return growth(data, chosen.value, depth + 1)


def _is_changed(reader: Reader, name: ast.Name) -> bool:
    return any(binding.kind == "changed" for binding in reader.bindings(name))


def _counter(data: Data, name: ast.Name) -> Growth | None:
    """Tell it of what counts the turns of the loop, or adds up what each of them has of samples."""
    if name.id in counters_of(data.loop):
        return Growth(1, 1)
    scope = data.reader.scopes.home(name)
    added = [
        b.node.value
        for b in data.reader.scopes.of(scope, name.id)
        if isinstance(b.node, ast.AugAssign) and isinstance(b.node.op, ast.Add) and _is_within(data, b.node)
    ]
    if not added:
        return None
    one = _same(_of_turn(data, value) for value in added)
    return None if one is None else Growth(one.right + 1, one.real + 1)


def _is_within(data: Data, node: ast.AST) -> bool:
    return data.loop in set(data.reader.scopes.up(node))


def _of_turn(data: Data, value: ast.expr) -> Growth | None:
    """Tell how what one turn adds changes: 1 does not, the samples of its batch do."""
    if isinstance(value, ast.Constant) and type(value.value) is int:
        return Growth(0, 0) if value.value == 1 else _of_number(data, value.value)
    return batch_length(data, value) or growth(data, value)


def batch_length(data: Data, expr: ast.expr) -> Growth | None:
    """Tell it of the samples of one batch: ``len(y)``, ``x.shape[0]``, ``tf.shape(x)[0]``; None: it is not that."""
    inner: ast.expr = expr
    while isinstance(inner, ast.Call) and called_name(inner) in _THROUGH and len(inner.args) >= 1:
        inner = inner.args[0]
    length = isinstance(inner, ast.Call) and called_name(inner) == "len" and bool(inner.args)
    shaped = isinstance(inner, ast.Subscript) and isinstance(inner.slice, ast.Constant) and inner.slice.value == 0
    if shaped and isinstance(inner, ast.Subscript):
        base = inner.value
        is_shape = isinstance(base, ast.Attribute) and base.attr == "shape"
        is_shape = is_shape or (isinstance(base, ast.Call) and called_name(base) in ("shape", "get_shape", "as_list"))
        shaped = is_shape
    size = isinstance(inner, ast.Call) and called_name(inner) == "size"
    if not (length or shaped or size):
        return None
    names = {n.id for n in ast.walk(inner) if isinstance(n, ast.Name)}
    return Growth(-1, -1) if names & _drawn_in(data) else None


def _drawn_in(data: Data) -> set[str]:
    """Name what holds the batch of a turn, or something that is computed of it there."""
    found = set[str]()
    if not isinstance(data.loop, ast.While):
        found |= {n.id for n in ast.walk(data.loop.target) if isinstance(n, ast.Name)} - counters_of(data.loop)
    for statement in data.loop.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign) and any(
                isinstance(n, ast.Name) and n.id in found for n in ast.walk(node.value)
            ):
                found |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return found


def _of_part(data: Data, expr: ast.Attribute | ast.Subscript) -> Growth | None:
    """Tell it of a number of samples that data have: ``x.shape[0]``, ``gen.samples``; of a size by its name."""
    reader = data.reader
    own = batch_length(data, expr)
    if own is not None:
        return own
    inner = expr.value if isinstance(expr, ast.Subscript) else expr
    if isinstance(inner, ast.Attribute) and inner.attr in _OF_SAMPLES:
        return _SAMPLES
    value = reader.scalar(reader.cell.text(expr))
    if isinstance(expr, ast.Attribute) and is_batch_name(expr.attr) and value == data.setting.value:
        return Growth(-1, 0)
    return Growth(1, 0) if data.is_count(value) else None


def _of_length(data: Data, call: ast.Call) -> Growth | None:
    """Tell it of ``len(…)``: of the data, of a list that each turn adds to, of an array."""
    reader = data.reader
    method = isinstance(call.func, ast.Attribute) and not call.args
    given = call.func.value if method and isinstance(call.func, ast.Attribute) else call.args[0] if call.args else None
    if given is None:
        return None
    if reader.written(given) in data.lists:
        return Growth(1, 1)
    if batch_length(data, call) is not None:
        return Growth(-1, -1)
    traced = trace(reader, given)
    if isinstance(traced, Setting):
        if traced.slots and set(traced.slots) <= set(data.setting.slots):
            uncounted = any(slot.uncounted for slot in traced.slots)
            return None if uncounted else Growth(1, 1)
        return Growth(1, 0) if traced.datasets and traced.datasets <= data.own else None
    if not isinstance(traced, Unknown):
        return _SAMPLES
    known = reader.facts.dataset(given.id) if isinstance(given, ast.Name) else None
    plain = isinstance(given, ast.Name) and known is None and not reader.bindings(given)
    return _SAMPLES if plain else None


def _of_earlier(data: Data, name: str) -> Growth | None:
    """Tell it of a number that an earlier cell has set: it stays."""
    reader = data.reader
    value = reader.scalar(name)
    if is_batch_name(name):
        return Growth(-1, 0) if value == data.setting.value else None
    made = assigned_once(reader, name)
    found = None if made is None else _made_earlier(data, *made, made[1].value, 0)
    if found == Growth(1, 0) and value is not None and data.counts is not None and abs(value - data.counts) > 1:
        return None  # it counts other batches
    return Growth(1, 0) if found is None and data.is_count(value) else found


def _made_earlier(data: Data, cell: PythonCell, statement: ast.Assign, expr: ast.expr, depth: int) -> Growth | None:
    """Tell it of an expression by which an earlier cell set a number."""
    reader = data.reader
    if depth > _DEEPEST:
        return None
    if isinstance(expr, (ast.Name, ast.Attribute, ast.Constant)):
        size = size_then(reader, cell, statement, expr)
        named = expr.id if isinstance(expr, ast.Name) else expr.attr if isinstance(expr, ast.Attribute) else None
        if named is None or is_batch_name(named):
            return Growth(-1, 0) if size == data.setting.value else None
        if isinstance(expr, ast.Attribute):
            return _SAMPLES if expr.attr in _OF_SAMPLES else None
        return _named_earlier(data, cell, statement, expr, depth) if isinstance(expr, ast.Name) else None
    if isinstance(expr, ast.Subscript):
        shaped = isinstance(expr.value, ast.Attribute) and expr.value.attr == "shape"
        return _SAMPLES if shaped else None
    if isinstance(expr, ast.Call) and called_name(expr) in ("len", "cardinality", "__len__"):
        return _length_then(data, cell, statement, expr)
    return _computed(data, expr, lambda one: _made_earlier(data, cell, statement, one, depth + 1))


def _named_earlier(data: Data, cell: PythonCell, statement: ast.Assign, name: ast.Name, depth: int) -> Growth | None:
    own = [b for b in cell.scopes.of(cell.tree, name.id) if position(b.node) < position(statement)]
    if own:
        node = own[-1].node
        whole = len(own) == 1 and isinstance(node, ast.Assign) and cell.scopes.top_statement(node) is node
        return (
            _made_earlier(data, cell, node, node.value, depth + 1) if whole and isinstance(node, ast.Assign) else None
        )
    made = assigned_once(data.reader, name.id)
    return None if made is None or made[1] is statement else _made_earlier(data, *made, made[1].value, depth + 1)


def _length_then(data: Data, cell: PythonCell, statement: ast.Assign, call: ast.Call) -> Growth | None:
    """Tell it of the length that something had as an earlier cell counted it, where it surely holds the same still."""
    reader = data.reader
    method = isinstance(call.func, ast.Attribute) and not call.args
    given = call.func.value if method and isinstance(call.func, ast.Attribute) else call.args[0] if call.args else None
    if not isinstance(given, ast.Name):
        return None
    if reader.facts.dataset(given.id) is None:
        return _SAMPLES
    before = reader.notebook.before
    place = next((p for p, one in before.making(ast.unparse(statement.targets[0])) if one is cell), None)
    places = before.places_setting(given.id)
    later = any(position(b.node) > position(statement) for b in cell.scopes.of(cell.tree, given.id))
    since = (
        place is None or later or any(p > place for p in places) or bool(reader.scopes.of(reader.cell.tree, given.id))
    )
    return Growth(1, 0) if not since and given.id in data.own else None
