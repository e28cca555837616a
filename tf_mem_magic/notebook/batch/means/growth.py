"""How a number changes as batches shrink: what counts batches grows, or should, and what counts samples stays."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.batch.counts import Loop, counters_of
from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.batch.means.earlier_numbers import of_earlier
from tf_mem_magic.notebook.batch.means.powers import (
    OF_SAMPLES,
    SAMPLES,
    THROUGH,
    Data,
    Growth,
    computed,
    of_number,
    same,
)
from tf_mem_magic.notebook.batch.steps import follows
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name, is_batch_name

_DEEPEST = 12


def growth(data: Data, expr: ast.expr, depth: int = 0) -> Growth | None:
    """Tell how a number of the cell changes; None where that is not sure."""
    if depth > _DEEPEST:
        return None
    reader, at = data.reader, (data.reader.cell.start(expr), data.reader.cell.end(expr))
    for slot in data.setting.slots:
        if (slot.start, slot.end) == at and (slot.counts or not slot.before):
            return Growth(1, 1) if slot.counts else Growth(-1, -1)
    if reader.written(expr) in data.taken:
        return Growth(1, 1 if follows(reader, expr, data.setting) else 0)
    if isinstance(expr, (ast.Name, ast.Attribute, ast.Subscript)):
        if reader.written(expr) in data.setting.names:
            return Growth(-1, -1)
        if isinstance(expr, ast.Name):
            return _of_name(data, expr, depth)
        return _of_part(data, expr)
    if isinstance(expr, ast.Call) and called_name(expr) in ("len", "cardinality", "__len__"):
        return _of_length(data, expr)
    return computed(data, expr, lambda one: growth(data, one, depth + 1))


def _of_name(data: Data, name: ast.Name, depth: int) -> Growth | None:
    reader = data.reader
    counting = _counter(data, name, depth)
    if counting is not None:
        return counting
    if _is_changed(reader, name):
        return None
    if not reader.bindings(name):
        return of_earlier(data, name.id)
    chosen = reader.reaching(name)
    if chosen is None:
        return None
    if chosen.kind == "param":
        given = calls.argument_exprs(reader, chosen)
        return None if isinstance(given, Unknown) else same(growth(data, one, depth + 1) for one in given)
    if chosen.value is None or chosen.kind != "assign":
        return None
    if is_batch_name(name.id) and reader.scalar(name.id) == data.setting.value:
        return Growth(-1, 0)
    return growth(data, chosen.value, depth + 1)


def _is_changed(reader: Reader, name: ast.Name) -> bool:
    return any(binding.kind == "changed" for binding in reader.bindings(name))


def _counter(data: Data, name: ast.Name, depth: int) -> Growth | None:
    """Tell it of what counts the turns of the loop, or adds up what each of them has of samples."""
    if name.id in data.reader.cell.once(_counts)[data.loop]:
        return Growth(1, 1)
    scope = data.reader.scopes.home(name)
    added = [
        b.node.value
        for b in data.reader.scopes.of(scope, name.id)
        if isinstance(b.node, ast.AugAssign) and isinstance(b.node.op, ast.Add) and _is_within(data, b.node)
    ]
    if not added:
        return None
    one = same(_of_turn(data, value, depth) for value in added)
    return None if one is None else Growth(one.right + 1, one.real + 1)


def _is_within(data: Data, node: ast.AST) -> bool:
    return data.loop in set(data.reader.scopes.up(node))


def _of_turn(data: Data, value: ast.expr, depth: int) -> Growth | None:
    """Tell how what one turn adds changes: 1 does not, the samples of its batch do."""
    if isinstance(value, ast.Constant) and type(value.value) is int:
        return Growth(0, 0) if value.value == 1 else of_number(data, value.value)
    return batch_length(data, value) or growth(data, value, depth + 1)


def batch_length(data: Data, expr: ast.expr) -> Growth | None:
    """Tell it of the samples of one batch: ``len(y)``, ``x.shape[0]``, ``tf.shape(x)[0]``; None: it is not that."""
    inner: ast.expr = expr
    while isinstance(inner, ast.Call) and called_name(inner) in THROUGH and len(inner.args) >= 1:
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
    return data.reader.cell.once(_drawn)[data.loop]


def _drawn(cell: PythonCell) -> dict[ast.AST, set[str]]:
    return {node: _drawn_by(cell, node) for node in cell.nodes if isinstance(node, (ast.For, ast.AsyncFor, ast.While))}


def _drawn_by(cell: PythonCell, loop: Loop) -> set[str]:
    found = set[str]()
    if not isinstance(loop, ast.While):
        found |= {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)} - counters_of(cell.scopes, loop)
    for node in (n for statement in loop.body for n in ast.walk(statement) if isinstance(n, ast.Assign)):
        if any(isinstance(n, ast.Name) and n.id in found for n in ast.walk(node.value)):
            found |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return found


def _counts(cell: PythonCell) -> dict[ast.AST, set[str]]:
    loops = (node for node in cell.nodes if isinstance(node, (ast.For, ast.AsyncFor, ast.While)))
    return {loop: counters_of(cell.scopes, loop) for loop in loops}


def _of_part(data: Data, expr: ast.Attribute | ast.Subscript) -> Growth | None:
    """Tell it of a number of samples that data have: ``x.shape[0]``, ``gen.samples``; of a size by its name."""
    reader = data.reader
    own = batch_length(data, expr)
    if own is not None:
        return own
    inner = expr.value if isinstance(expr, ast.Subscript) else expr
    if isinstance(inner, ast.Attribute) and inner.attr in OF_SAMPLES and _is_of_data(reader, inner):
        return SAMPLES
    value = reader.scalar(reader.cell.text(expr))
    if isinstance(expr, ast.Attribute) and is_batch_name(expr.attr) and value == data.setting.value:
        return Growth(-1, 0)
    return Growth(1, 0) if data.is_count(value) else None


def _is_of_data(reader: Reader, expr: ast.Attribute) -> bool:
    """Tell whether an attribute is that of data: a progress bar has a number ``n`` too, which counts turns."""
    root: ast.expr = expr
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    known = isinstance(root, ast.Name) and reader.facts.dataset(root.id) is not None
    return known or expr.attr in ("shape", "num_examples", "num_samples")


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
        return SAMPLES
    known = reader.facts.dataset(given.id) if isinstance(given, ast.Name) else None
    plain = isinstance(given, ast.Name) and known is None and not reader.bindings(given)
    return SAMPLES if plain else None
