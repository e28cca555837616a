"""Numbers that earlier cells have set, and that stay as batches shrink: whether they count batches or samples."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.batch.earlier_data import size_then
from tf_mem_magic.notebook.batch.generators import assigned_once
from tf_mem_magic.notebook.batch.means.powers import OF_SAMPLES, SAMPLES, Data, Growth, computed
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name, is_batch_name

_DEEPEST = 12


def of_earlier(data: Data, name: str) -> Growth | None:
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
            return SAMPLES if expr.attr in OF_SAMPLES else None
        return _named_earlier(data, cell, statement, expr, depth) if isinstance(expr, ast.Name) else None
    if isinstance(expr, ast.Subscript):
        shaped = isinstance(expr.value, ast.Attribute) and expr.value.attr == "shape"
        return SAMPLES if shaped else None
    if isinstance(expr, ast.Call) and called_name(expr) in ("len", "cardinality", "__len__"):
        return _length_then(data, cell, statement, expr)
    return computed(data, expr, lambda one: _made_earlier(data, cell, statement, one, depth + 1))


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
        return SAMPLES
    before = reader.notebook.before
    place = next((p for p, one in before.making(ast.unparse(statement.targets[0])) if one is cell), None)
    places = before.places_setting(given.id)
    later = any(position(b.node) > position(statement) for b in cell.scopes.of(cell.tree, given.id))
    since = (
        place is None or later or any(p > place for p in places) or bool(reader.scopes.of(reader.cell.tree, given.id))
    )
    return Growth(1, 0) if not since and given.id in data.own else None
