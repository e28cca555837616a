"""Entries read and written by a fixed name: attributes, subscripts, keys of a dict."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.notebook.uses import called_name, is_batch_name

_MUTATORS = frozenset({"update", "pop", "setdefault", "clear", "__setattr__", "__setitem__", "popitem"})


def key_of(expr: ast.AST) -> tuple[ast.expr, str] | None:
    """Return the owner and the fixed name that ``expr`` reads or writes."""
    if isinstance(expr, ast.Attribute):
        return expr.value, expr.attr
    if isinstance(expr, ast.Subscript) and isinstance(expr.slice, ast.Constant) and isinstance(expr.slice.value, str):
        return expr.value, expr.slice.value
    if isinstance(expr, ast.Call) and isinstance(expr.func, ast.Attribute) and expr.func.attr == "get" and expr.args:
        first = expr.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return expr.func.value, first.value
    return None


@dataclass(frozen=True)
class Entries:
    """The entries of a cell by their names, and the owners that it changes by a call that cannot be followed."""

    stores: dict[str, list[ast.expr]]
    reads: dict[str, list[ast.expr]]
    mutated: frozenset[str]
    stored_into: frozenset[str]


_INDEXED: str = "_entries"


def entries(reader: Reader) -> Entries:
    """Return the entries of the cell, found once."""
    found = reader.index.get(_INDEXED)
    if not isinstance(found, Entries):
        found = reader.index[_INDEXED] = _find_entries(reader)
    return found


def _find_entries(reader: Reader) -> Entries:
    stores: dict[str, list[ast.expr]] = {}
    reads: dict[str, list[ast.expr]] = {}
    mutated: set[str] = set()
    stored_into: set[str] = set()
    for node in reader.nodes:
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            its = key_of(node)
            if its is not None:
                (reads if isinstance(node.ctx, ast.Load) else stores).setdefault(its[1], []).append(node)
            computed = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
            if computed:
                stored_into.add(reader.written(node.value))
            if (computed and its is None) or (isinstance(node, ast.Attribute) and node.attr == "__dict__"):
                mutated.add(reader.written(node.value))
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
                mutated.add(reader.written(node.func.value))
            if called_name(node) in ("setattr", "delattr", "vars") and node.args:
                mutated.add(reader.written(node.args[0]))
    return Entries(stores, reads, frozenset(mutated), frozenset(stored_into))


def stores_of(reader: Reader, key: str) -> list[tuple[ast.expr, ast.expr | None]]:
    """List what the cell assigns to an entry called ``key``, of whatever owner."""
    found: list[tuple[ast.expr, ast.expr | None]] = []
    for node in entries(reader).stores.get(key, []):
        statement = reader.scopes.statement(node)
        found.append((node, _given(statement, node) if isinstance(statement, ast.Assign) else None))
    return found


def _given(statement: ast.Assign, target: ast.expr) -> ast.expr | None:
    """Return what an assignment gives to one of its targets, also where it assigns several in a row."""
    if target in statement.targets:
        return statement.value
    for row in statement.targets:
        if isinstance(row, (ast.Tuple, ast.List)) and isinstance(statement.value, (ast.Tuple, ast.List)):
            targets, values = row.elts, statement.value.elts
            stars = any(isinstance(e, ast.Starred) for e in (*targets, *values))
            if target in targets and len(targets) == len(values) and not stars:
                return values[targets.index(target)]
    return None


def reads_of(reader: Reader, key: str) -> list[ast.expr]:
    """List the reads of an entry called ``key``, of whatever owner: it may be the same one under another name."""
    return entries(reader).reads.get(key, [])


def is_self(target: ast.expr) -> bool:
    """Tell whether ``target`` is an attribute of ``self``."""
    its = key_of(target)
    return its is not None and isinstance(its[0], ast.Name) and its[0].id == "self"


def dict_value(owner: ast.expr, key: str) -> ast.expr | None:
    """Return the value under ``key`` of a dict literal or a ``dict(...)`` call; None where it is not surely that."""
    if isinstance(owner, ast.Dict):
        if any(k is None for k in owner.keys):
            return None
        found = [v for k, v in zip(owner.keys, owner.values) if isinstance(k, ast.Constant) and k.value == key]
        return found[0] if len(found) == 1 else None
    if isinstance(owner, ast.Call):
        return next((k.value for k in owner.keywords if k.arg == key), None)
    return None


def batch_keyword(call: ast.Call) -> ast.expr | None:
    """Return the argument of ``call`` whose name means a batch size."""
    found = [k.value for k in call.keywords if k.arg and is_batch_name(k.arg) and not k.arg.startswith("val")]
    return found[0] if len(found) == 1 else None


def mutated(reader: Reader, owner: ast.expr) -> bool:
    """Tell whether the cell changes ``owner`` by a call that cannot be followed."""
    return reader.written(owner) in entries(reader).mutated


def double_star(reader: Reader, call: ast.Call) -> ast.expr | Unknown | None:
    """Return the dict literal behind ``**fit_args``; None where there is none."""
    stars = [k.value for k in call.keywords if k.arg is None]
    if not stars:
        return None
    unknown = Unknown(f"`**{reader.written(stars[0])}` in {reader.cell.told(call)} cannot be followed")
    expr = stars[0]
    if len(stars) > 1:
        return unknown
    if isinstance(expr, ast.Name):
        chosen = reader.reaching(expr)
        changed = expr.id in entries(reader).stored_into or expr.id in entries(reader).mutated
        if chosen is None or chosen.value is None or changed:
            return unknown
        expr = chosen.value
    if isinstance(expr, ast.Dict) and all(isinstance(k, ast.Constant) for k in expr.keys):
        return expr
    plain = isinstance(expr, ast.Call) and called_name(expr) == "dict" and not expr.args
    return expr if plain and all(k.arg for k in expr.keywords) else unknown  # type: ignore[attr-defined]


def dict_of_an_earlier_cell(reader: Reader, call: ast.Call) -> tuple[ast.expr, ast.expr] | None:
    """Return what stands behind ``**``, a name, and the dict literal that an earlier cell set it to; else None.

    Nothing else may set or change that name, and all its keys must be plain.
    """
    stars = [k.value for k in call.keywords if k.arg is None]
    name = stars[0] if len(stars) == 1 else None
    if not isinstance(name, ast.Name) or reader.bindings(name) or name.id in entries(reader).stored_into:
        return None
    if name.id in entries(reader).mutated:
        return None
    found: list[ast.expr] = []
    for cell in reader.notebook.earlier_with(name.id):
        for node in cell.nodes:
            owner = node.value if isinstance(node, (ast.Attribute, ast.Subscript)) else None
            named = isinstance(owner, ast.Name) and owner.id == name.id
            if named and (isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load)):  # type: ignore[attr-defined]
                return None
            if not isinstance(node, ast.Name) or node.id != name.id or isinstance(node.ctx, ast.Load):
                continue
            above = cell.scopes.parents.get(node)
            if not isinstance(above, ast.Assign) or above not in cell.tree.body or above.targets != [node]:
                return None
            found.append(above.value)
    made = found[0] if len(found) == 1 else None
    plain = isinstance(made, ast.Dict) and all(isinstance(k, ast.Constant) for k in made.keys)
    called = isinstance(made, ast.Call) and called_name(made) == "dict" and not made.args
    if called and not all(k.arg for k in made.keywords):  # type: ignore[union-attr]
        return None
    return (name, made) if made is not None and (plain or called) else None


def zipped(call: ast.Call) -> list[ast.expr]:
    """List what a call of ``zip`` goes through; for datasets it is in tuples, lists and dicts: ``ds.zip((a, b))``."""
    found: list[ast.expr] = []
    queue: list[ast.expr | None] = [*call.args, *(k.value for k in call.keywords)]
    while queue:
        one = queue.pop(0)
        inside = isinstance(call.func, ast.Attribute)
        if inside and isinstance(one, (ast.Tuple, ast.List)):
            queue = [*one.elts, *queue]
        elif inside and isinstance(one, ast.Dict):
            queue = [*one.values, *queue]
        elif one is not None:
            found.append(one)
    return found
