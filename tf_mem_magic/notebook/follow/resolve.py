"""Where a batch size is set: follow an expression of the cell to the place in the text that decides it."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.notebook.follow import calls, containers
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.other_uses import blocked, drawn_too, earlier, stays_elsewhere
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown, merge
from tf_mem_magic.notebook.scopes import Binding, position
from tf_mem_magic.notebook.text.ranges import insert_argument, line_start, shares_line
from tf_mem_magic.notebook.uses import is_batch_name, may_be_a_size

_HARMLESS = ("tensorflow", "keras", "numpy", "matplotlib", "math", "typing")
"""Modules whose names, all imported, are no batch size."""


def resolve(reader: Reader, expr: ast.expr) -> Setting | Unknown:
    """Follow ``expr`` to where its value is set; what it waits for itself is computed when the cell runs."""
    if isinstance(expr, ast.Constant):
        return _constant(reader, expr)
    found = reader.once("resolve", expr, None, lambda: _resolve(reader, expr))
    return _computed(reader, expr) if found is None else found


def _computed(reader: Reader, expr: ast.expr) -> Unknown:
    return Unknown(f"the batch size in {reader.cell.told(expr)} is computed when the cell runs")


def _resolve(reader: Reader, expr: ast.expr) -> Setting | Unknown:
    if isinstance(expr, ast.NamedExpr):
        found = reader.scopes.of(reader.scopes.home(expr.target), expr.target.id)
        return _through_name(reader, expr.target.id, found, expr, expr.value)
    if isinstance(expr, ast.Name):
        return _name(reader, expr)
    if containers.is_entry(expr):
        return containers.resolve_entry(reader, expr, resolve)
    if isinstance(expr, ast.BinOp):
        replicas = _replicas(reader, expr)
        if replicas is not None:
            return replicas
    if isinstance(expr, (ast.BinOp, ast.UnaryOp, ast.Call)):
        value = evaluate(reader, expr)
        if isinstance(value, int):
            return Setting(value, (reader.slot(expr, value),))
    return _computed(reader, expr)


def _constant(reader: Reader, expr: ast.Constant) -> Setting | Unknown:
    if type(expr.value) is not int:
        return Unknown(f"the batch size in {reader.cell.told(expr)} is no whole number")
    return Setting(expr.value, (reader.slot(expr, expr.value),))


def _name(reader: Reader, expr: ast.Name) -> Setting | Unknown:
    found = reader.bindings(expr)
    if not found:
        return earlier(reader, expr, reader.scopes.loads.get((reader.scopes.home(expr), expr.id), []))
    if any(b.kind == "loop" for b in found):
        return Unknown(f"`{expr.id}` takes several values in a loop")
    chosen = reader.reaching(expr)
    if chosen is None:
        return Unknown(f"`{expr.id}` is set in more than one place or only under a condition")
    star = _star_import_after(reader, chosen)
    if star is not None:
        return Unknown(f"`{expr.id}` may be replaced by the import in {reader.cell.told(star)}")
    if chosen.kind == "param":
        return _parameter(reader, chosen)
    if chosen.value is None:
        return _set_after(reader, expr, chosen) or Unknown(f"`{expr.id}` is computed when the cell runs")
    return _through_name(reader, expr.id, found, expr, chosen.value)


def _star_import_after(reader: Reader, binding: Binding) -> ast.ImportFrom | None:
    foreign = [n for n in reader.star_imports if (n.module or "").split(".")[0] not in _HARMLESS]
    return next((n for n in foreign if position(n) > position(binding.node)), None)


def _through_name(reader: Reader, name: str, found: list[Binding], use: ast.expr, value: ast.expr) -> Setting | Unknown:
    home = found[0].scope
    elsewhere = stays_elsewhere(reader, name) if isinstance(home, ast.Module) else None
    if elsewhere is not None:
        return elsewhere
    known = reader.scalar(name) if isinstance(home, ast.Module) else None
    inner = resolve(reader, value)
    if isinstance(inner, Unknown):
        after = _set_after(reader, use, found[0]) if isinstance(use, ast.Name) and len(found) == 1 else None
        return after or inner
    if known is not None and len(found) == 1 and not inner.per_replica and known != inner.value:
        return Unknown(f"`{name}` is {known} now, but the cell says {inner.value}")
    names = {name, *_also_assigned(value, reader)}
    loads = [n for one in names for n in reader.scopes.loads.get((home, one), [])]
    stopped = blocked(reader, name, loads, use, inner.value)
    if stopped is not None:
        return stopped if isinstance(stopped, Unknown) or not inner.per_replica else inner
    return replace(inner, names=inner.names | names, notes=(*inner.notes, *drawn_too(reader, name, loads)))


def _set_after(reader: Reader, use: ast.Name, binding: Binding) -> Setting | None:
    """Set a name of the notebook after the one statement that computes it, where its value is known; else None."""
    value = reader.scalar(use.id) if isinstance(binding.scope, ast.Module) else None
    top = reader.scopes.top_statement(binding.node)
    plain = top is binding.node and isinstance(top, ast.Assign) and not shares_line(reader.cell, top)
    if value is None or not plain or len(reader.bindings(use)) != 1 or not is_batch_name(use.id):
        return None
    loads = reader.scopes.loads.get((binding.scope, use.id), [])
    if stays_elsewhere(reader, use.id) is not None or blocked(reader, use.id, loads, use, value) is not None:
        return None
    body = reader.cell.tree.body
    following = body[body.index(top) + 1 :]
    if not following or shares_line(reader.cell, following[0]):
        return None
    at = line_start(reader.cell, following[0])
    slot = Slot(value, at, at, f"{use.id} = ", reader.cell.newline)
    return Setting(value, (slot,), frozenset({use.id}), notes=drawn_too(reader, use.id, loads))


def _also_assigned(value: ast.expr, reader: Reader) -> set[str]:
    """Name the other targets of a chained assignment ``a = b = 64``."""
    statement = reader.scopes.parents.get(value)
    if isinstance(statement, ast.Assign):
        return {t.id for t in statement.targets if isinstance(t, ast.Name)}
    return set()


def _replicas(reader: Reader, expr: ast.BinOp) -> Setting | Unknown | None:
    sides = [expr.left, expr.right]
    counts = [s for s in sides if "num_replicas_in_sync" in reader.written(_definition_or_self(reader, s))]
    if len(counts) != 1:
        return None
    other = sides[0] if counts[0] is sides[1] else sides[1]
    inner = resolve(reader, other)
    if isinstance(inner, Unknown):
        return inner
    if isinstance(expr.op, ast.Mult):
        return replace(inner, per_replica=True)
    if isinstance(expr.op, ast.FloorDiv) and other is expr.left:
        return inner
    return _computed(reader, expr)


def _definition_or_self(reader: Reader, expr: ast.expr) -> ast.expr:
    if isinstance(expr, ast.Name):
        chosen = reader.reaching(expr)
        if chosen is not None and chosen.value is not None:
            return chosen.value
    return expr


def _parameter(reader: Reader, binding: Binding) -> Setting | Unknown:
    exprs = calls.argument_exprs(reader, binding)
    if isinstance(exprs, Unknown):
        return exprs
    found = []
    for expr in exprs:
        one = resolve(reader, expr)
        if isinstance(one, Unknown):
            return one
        found.append(one)
    inner = merge(found)
    if isinstance(inner, Unknown):
        return inner
    loads = reader.scopes.loads.get((binding.scope, binding.name), [])
    if any(reader.role(load) == "other" for load in loads):
        return Unknown(f"`{binding.name}` also decides something else in its function")
    means_it = is_batch_name(binding.name) or may_be_a_size(binding.name)
    return replace(inner, names=inner.names | {binding.name} if means_it else inner.names)


def default_argument(reader: Reader, call: ast.Call, default: int, name: str = "batch_size") -> Setting:
    """Give the setting that writes an argument where a default applies."""
    edit = insert_argument(reader.cell, call, f"{name}=")
    return Setting(default, (Slot(default, edit.start, edit.end, edit.text),))
