"""Entries read and written by a fixed name: attributes, subscripts, keys of a dict."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.follow.resolve import Reader, Unknown
from tf_mem_magic.notebook.uses import called_name, is_batch_name


def key_of(expr: ast.AST) -> tuple[ast.expr, str] | None:
    """Give the owner and the fixed name that ``expr`` reads or writes."""
    if isinstance(expr, ast.Attribute):
        return expr.value, expr.attr
    if isinstance(expr, ast.Subscript) and isinstance(expr.slice, ast.Constant) and isinstance(expr.slice.value, str):
        return expr.value, expr.slice.value
    if isinstance(expr, ast.Call) and isinstance(expr.func, ast.Attribute) and expr.func.attr == "get" and expr.args:
        first = expr.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return expr.func.value, first.value
    return None


def stores_of(reader: Reader, key: str) -> list[tuple[ast.expr, ast.expr | None]]:
    """List what the cell assigns to an entry called ``key``, of whatever owner."""
    found: list[tuple[ast.expr, ast.expr | None]] = []
    for node in ast.walk(reader.cell.tree):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            its = key_of(node)
            if its is None or its[1] != key:
                continue
            statement = reader.scopes.statement(node)
            plain = isinstance(statement, ast.Assign) and node in statement.targets
            found.append((node, statement.value if plain and isinstance(statement, ast.Assign) else None))
    return found


def is_self(target: ast.expr) -> bool:
    """Say whether ``target`` is an attribute of ``self``."""
    its = key_of(target)
    return its is not None and isinstance(its[0], ast.Name) and its[0].id == "self"


def dict_value(owner: ast.expr, key: str) -> ast.expr | None:
    """Give the value under ``key`` of a dict literal or a ``dict(...)`` call; None where it is not surely that one."""
    if isinstance(owner, ast.Dict):
        if any(k is None for k in owner.keys):
            return None
        found = [v for k, v in zip(owner.keys, owner.values) if isinstance(k, ast.Constant) and k.value == key]
        return found[0] if len(found) == 1 else None
    if isinstance(owner, ast.Call):
        return next((k.value for k in owner.keywords if k.arg == key), None)
    return None


def batch_keyword(call: ast.Call) -> ast.expr | None:
    """Give the argument of ``call`` whose name means a batch size."""
    found = [k.value for k in call.keywords if k.arg and is_batch_name(k.arg) and not k.arg.startswith("val")]
    return found[0] if len(found) == 1 else None


def mutated(reader: Reader, owner: ast.expr) -> bool:
    """Say whether the cell changes ``owner`` by a call that cannot be followed."""
    written = ast.unparse(owner)
    for node in ast.walk(reader.cell.tree):
        computed = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and key_of(node) is None
        inside = isinstance(node, ast.Attribute) and node.attr == "__dict__"
        if (computed or inside) and ast.unparse(node.value) == written:  # type: ignore[attr-defined]
            return True
        if not isinstance(node, ast.Call):
            continue
        own = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == written
        if own and called_name(node) in _MUTATORS:
            return True
        if called_name(node) in ("setattr", "delattr", "vars") and node.args and ast.unparse(node.args[0]) == written:
            return True
    return False


_MUTATORS = frozenset({"update", "pop", "setdefault", "clear", "__setattr__", "__setitem__", "popitem"})


def double_star(reader: Reader, call: ast.Call) -> ast.expr | Unknown | None:
    """Give the dict literal behind ``**fit_args``; None where there is none."""
    stars = [k.value for k in call.keywords if k.arg is None]
    if not stars:
        return None
    unknown = Unknown(f"`**{ast.unparse(stars[0])}` in line {call.lineno} cannot be followed")
    expr = stars[0]
    if len(stars) > 1:
        return unknown
    if isinstance(expr, ast.Name):
        chosen = reader.scopes.reaching(expr, reader.bindings(expr))
        if chosen is None or chosen.value is None or _changed(reader, expr.id):
            return unknown
        expr = chosen.value
    if isinstance(expr, ast.Dict) and all(isinstance(k, ast.Constant) for k in expr.keys):
        return expr
    plain = isinstance(expr, ast.Call) and called_name(expr) == "dict" and not expr.args
    return expr if plain and all(k.arg for k in expr.keywords) else unknown  # type: ignore[attr-defined]


def _changed(reader: Reader, name: str) -> bool:
    """Say whether the cell changes the dict ``name`` after it is made."""
    stored = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.Subscript) and not isinstance(n.ctx, ast.Load)]
    return any(ast.unparse(n.value) == name for n in stored) or mutated(reader, ast.Name(name))
