"""Batch sizes that a class of the cell holds: its constructor, its fields, or the defaults of a command line."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.entries import dict_value, is_self, stores_of
from tf_mem_magic.notebook.follow.reader import Function, Reader, Unknown
from tf_mem_magic.notebook.uses import called_name


@dataclass(frozen=True, slots=True)
class Source:
    """The expression that sets something; ``function`` holds it where it was entered by the known ``call``."""

    expr: ast.expr
    function: Function | None = None
    call: ast.Call | None = None


def class_entry(reader: Reader, cls: ast.ClassDef, call: ast.Call | None, key: str) -> Source | Unknown:
    """Find what sets the attribute ``key`` of a class of the cell, made by ``call`` where that is known."""
    unknown = Unknown(f"`{cls.name}.{key}` cannot be followed to where it is set")
    stores = [
        (target, value)
        for target, value in stores_of(reader, key)
        if is_self(target) and cls in reader.scopes.up(target)
    ]
    if len(stores) > 1:
        return unknown
    if stores:
        target, value = stores[0]
        if value is None:
            return unknown
        functions = (n for n in reader.scopes.up(target) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
        return Source(value, next(functions, None), call)
    fields = [n for n in cls.body if isinstance(n, (ast.AnnAssign, ast.Assign))]
    found = [n.value for n in fields if _field_name(n) == key]
    if len(found) != 1 or found[0] is None:
        return unknown
    if any("dataclass" in reader.written(d) for d in cls.decorator_list):
        return _dataclass(reader, cls, call, key, found[0])
    if call is not None and (call.args or call.keywords) and calls.constructor(cls) is None:
        given = dict_value(call, key)
        return unknown if given is None else Source(given)
    return Source(found[0])


def held_by_self(reader: Reader, expr: ast.Attribute) -> Source | Unknown | None:
    """Find what sets ``self.train_ds`` of a class of the cell that is made once; None where it is none, or not sure."""
    cls = next((up for up in reader.scopes.up(expr) if isinstance(up, ast.ClassDef)), None)
    if cls is None or not is_self(expr) or not all(is_self(target) for target, _ in stores_of(reader, expr.attr)):
        return None
    made = reader.calls_of(cls.name)
    return class_entry(reader, cls, made[0], expr.attr) if len(made) == 1 else None


def _field_name(node: ast.AnnAssign | ast.Assign) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _dataclass(
    reader: Reader, cls: ast.ClassDef, call: ast.Call | None, key: str, default: ast.expr
) -> Source | Unknown:
    if call is None:
        made = reader.calls_of(cls.name)
        if len(made) > 1:
            return Unknown(f"`{cls.name}` is made more than once")
        call = made[0] if made else None
    if call is not None:
        names = [_field_name(n) for n in cls.body if isinstance(n, ast.AnnAssign)]
        if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
            return Unknown(f"`{cls.name}` is made from values that cannot be followed {reader.cell.aside(call)}")
        given = dict_value(call, key)
        if given is None and key in names and names.index(key) < len(call.args):
            given = call.args[names.index(key)]
        if given is not None:
            return Source(given)
    if isinstance(default, ast.Call) and called_name(default) == "field":
        inner = dict_value(default, "default")
        return Unknown(f"`{cls.name}.{key}` has no plain default") if inner is None else Source(inner)
    return Source(default)


def argument_default(reader: Reader, call: ast.Call, key: str) -> Source | Unknown:
    """Find the default that ``parse_args``, called without arguments, gives to ``key``."""
    given = [*call.args, *(k.value for k in call.keywords if k.arg == "args")]
    if given and not _is_empty(given[0]):
        return Unknown(f"the arguments in {reader.cell.told(call)} are given, so the default may not apply")
    found = [n for n in reader.calls_of("add_argument") if _destination(n) == key]
    if len(found) != 1:
        return Unknown(f"the argument {key!r} is not declared once in this cell")
    if reader.calls_of("set_defaults"):
        return Unknown("`set_defaults` may change the default")
    default = next((k.value for k in found[0].keywords if k.arg == "default"), None)
    return Unknown(f"the argument {key!r} has no default") if default is None else Source(default)


def _is_empty(expr: ast.expr) -> bool:
    if isinstance(expr, (ast.List, ast.Tuple)):
        return not expr.elts
    if isinstance(expr, ast.Constant):
        return expr.value == ""
    return ast.unparse(expr) in ("''.split()", "list()")


def _destination(call: ast.Call) -> str:
    explicit = next((k.value for k in call.keywords if k.arg == "dest"), None)
    if isinstance(explicit, ast.Constant):
        return str(explicit.value)
    flags = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    long = [f for f in flags if f.startswith("--")] or flags
    return long[0].lstrip("-").replace("-", "_") if long else ""
