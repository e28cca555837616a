"""Batch sizes kept in something: ``cfg["batch_size"]``, ``args.batch_size``, ``self.batch_size``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from tf_mem_magic.notebook.follow import calls, classes
from tf_mem_magic.notebook.follow.classes import Source
from tf_mem_magic.notebook.follow.entries import dict_value, is_self, key_of, mutated, reads_of, stores_of
from tf_mem_magic.notebook.follow.other_uses import earlier, not_known
from tf_mem_magic.notebook.follow.reader import Reader, Resolve, Setting, Unknown
from tf_mem_magic.notebook.scopes import Binding
from tf_mem_magic.notebook.uses import called_name

_PARSERS = ("parse_args", "parse_known_args")


def is_entry(expr: ast.expr) -> bool:
    """Tell whether ``expr`` reads an entry by a fixed name: an attribute, a subscript, or ``.get(...)``."""
    return key_of(expr) is not None


def resolve_entry(reader: Reader, expr: ast.expr, resolve: Resolve) -> Setting | Unknown:
    """Follow an entry to where it is set."""
    owner_and_key = key_of(expr)
    assert owner_and_key is not None
    owner, key = owner_and_key
    written = reader.written(expr)
    stores = stores_of(reader, key)
    same = [(target, value) for target, value in stores if reader.written(target) == written]
    if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
        return _own_attribute(reader, expr, key, resolve)
    foreign = [t for t, _ in stores if reader.written(t) != written and not is_self(t)]
    if foreign or mutated(reader, owner):
        return Unknown(f"`{written}` may be changed in {reader.cell.told(foreign[0] if foreign else owner)}")
    if same:
        return _stored(reader, expr, same, resolve)
    root = _root(owner)
    if root is not None and not reader.bindings(root):
        if isinstance(expr, ast.Call):
            return Unknown(f"`{written}` comes from an earlier cell")
        return _from_earlier(reader, expr, owner, reader.cell.text(expr))
    handed = _handed(reader, owner)
    if handed is not None and not isinstance(expr, ast.Call) and not mutated(reader, handed):
        return _from_earlier(reader, expr, handed, written.replace(reader.written(owner), reader.written(handed), 1))
    return _safe(reader, expr, resolved(reader, entry_source(reader, owner, key), resolve))


def _handed(reader: Reader, owner: ast.expr) -> ast.expr | None:
    """Give the object of an earlier cell that the cell hands to the parameter ``owner``."""
    chosen = reader.reaching(owner) if isinstance(owner, ast.Name) else None
    exprs = calls.argument_exprs(reader, chosen) if chosen is not None and chosen.kind == "param" else []
    if isinstance(exprs, Unknown) or len({reader.written(e) for e in exprs}) != 1:
        return None
    root = _root(exprs[0])
    return exprs[0] if root is not None and not reader.bindings(root) else None


_Found = TypeVar("_Found")


def resolved(
    reader: Reader, source: Source | Unknown, resolve: Callable[[Reader, ast.expr], _Found]
) -> _Found | Unknown:
    """Follow what sets something to its value, from within the call that made it."""
    if isinstance(source, Unknown):
        return source
    with reader.entering(source.function, source.call):
        return resolve(reader, source.expr)


def _safe(reader: Reader, expr: ast.expr, inner: Setting | Unknown) -> Setting | Unknown:
    if isinstance(inner, Unknown):
        return inner
    written = reader.written(expr)
    its_key = key_of(expr)
    key = its_key[1] if its_key else ""
    reads = [*reads_of(reader, key), *(n for (_, name), ns in reader.scopes.loads.items() if name == key for n in ns)]
    roles = [(node, reader.role(node)) for node in reads]
    others = [node for node, its in roles if its == "other"]
    if others:
        if any(its == "coupled" for _, its in roles):
            return Unknown(f"`{written}` also decides something else {reader.cell.aside(others[0])}")
        note = f"`{written}` stays {inner.value}: it is also used for something else {reader.cell.aside(others[0])}."
        return Setting(inner.value, (reader.slot(expr, inner.value),), notes=(note,))
    known = reader.scalar(reader.cell.text(expr))
    if known is not None and not inner.per_replica and known != inner.value and not isinstance(expr, ast.Call):
        return Unknown(f"`{written}` is {known} now, but the cell says {inner.value}")
    return replace(inner, names=inner.names | {written})


def _stored(
    reader: Reader, expr: ast.expr, same: list[tuple[ast.expr, ast.expr | None]], resolve: Resolve
) -> Setting | Unknown:
    written = reader.written(expr)
    found = [
        Binding(written, "assign" if value is not None else "changed", reader.scopes.scope_of(target), target, value)
        for target, value in same
    ]
    chosen = reader.scopes.reaching(expr, found)
    if chosen is None or chosen.value is None:
        return Unknown(f"`{written}` is set in more than one place or only under a condition")
    return _safe(reader, expr, resolve(reader, chosen.value))


def _from_earlier(reader: Reader, expr: ast.expr, owner: ast.expr, text: str) -> Setting | Unknown:
    """Set an entry of ``owner``, an object of an earlier cell that is called ``text`` outside of functions."""
    its_key = key_of(expr)
    others = [n for n in reads_of(reader, its_key[1] if its_key else "") if reader.role(n) == "other"]
    if others:
        if reader.scalar(text) is None:
            return not_known(reader, text)
        return Unknown(f"`{reader.written(expr)}` also decides something else {reader.cell.aside(others[0])}")
    root = _root(owner)
    loads: list[ast.Name] = reader.scopes.loads.get((reader.scopes.home(root), root.id), []) if root else []
    found = earlier(reader, expr, loads, text)
    return replace(found, names=found.names | {reader.written(expr)}) if isinstance(found, Setting) else found


def _root(expr: ast.expr) -> ast.Name | None:
    while isinstance(expr, (ast.Attribute, ast.Subscript)):
        expr = expr.value
    return expr if isinstance(expr, ast.Name) else None


def _own_attribute(reader: Reader, expr: ast.expr, key: str, resolve: Resolve) -> Setting | Unknown:
    cls = next((n for n in reader.scopes.up(expr) if isinstance(n, ast.ClassDef)), None)
    if cls is None:
        return Unknown(f"`{reader.written(expr)}` comes from elsewhere")
    return resolved(reader, classes.class_entry(reader, cls, None, key), resolve)


def entry_source(reader: Reader, owner: ast.expr, key: str) -> Source | Unknown:
    """Follow ``owner`` to what it is, and find what sets ``key`` in that."""
    found = reader.once("entry", owner, key, lambda: _entry_source(reader, owner, key))
    return _not_followed(reader, owner) if found is None else found


def _not_followed(reader: Reader, owner: ast.expr) -> Unknown:
    return Unknown(f"`{reader.written(owner)}` cannot be followed to where its batch size is set")


def _entry_source(reader: Reader, owner: ast.expr, key: str) -> Source | Unknown:
    unknown = _not_followed(reader, owner)
    if isinstance(owner, ast.Name):
        return _of_name(reader, owner, key)
    if isinstance(owner, ast.Dict):
        value = dict_value(owner, key)
        plain = f"the dict in {reader.cell.told(owner)} does not plainly say {key!r}"
        return Unknown(plain) if value is None else Source(value)
    if isinstance(owner, ast.Call):
        return _of_call(reader, owner, key)
    its = key_of(owner)
    if its is not None and isinstance(owner, ast.Subscript):
        if isinstance(its[0], ast.Call):
            return Unknown(f"`{reader.written(its[0])}` cannot be followed")
        nested = _nested(reader, its[0], its[1])
        return unknown if nested is None else entry_source(reader, nested, key)
    parsed = owner.value if isinstance(owner, ast.Subscript) else None
    if isinstance(parsed, ast.Call) and called_name(parsed) == "parse_known_args":
        return classes.argument_default(reader, parsed, key)
    return unknown


def _of_name(reader: Reader, owner: ast.Name, key: str) -> Source | Unknown:
    unknown = _not_followed(reader, owner)
    chosen = reader.reaching(owner)
    if chosen is None:
        return unknown
    if isinstance(chosen.node, ast.ClassDef) and chosen.kind == "def":
        return classes.class_entry(reader, chosen.node, None, key)
    if chosen.kind == "param":
        exprs = calls.argument_exprs(reader, chosen)
        if isinstance(exprs, Unknown) or len({reader.written(e) for e in exprs}) != 1:
            return unknown
        return _of_argument(reader, exprs[0], key)
    if chosen.value is not None:
        return entry_source(reader, chosen.value, key)
    if isinstance(chosen.node, ast.Assign) and isinstance(chosen.node.value, ast.Call):
        call = chosen.node.value
        target = chosen.node.targets[0]
        first = isinstance(target, ast.Tuple) and reader.written(target.elts[0]) == owner.id
        if called_name(call) == "parse_known_args" and first:
            return classes.argument_default(reader, call, key)
    return unknown


def _of_argument(reader: Reader, expr: ast.expr, key: str) -> Source | Unknown:
    root = _root(expr)
    if root is not None and not reader.bindings(root):
        return Unknown(f"`{reader.written(expr)}` comes from an earlier cell")
    if mutated(reader, expr):
        return Unknown(f"`{reader.written(expr)}` may be changed in the cell")
    return entry_source(reader, expr, key)


def _nested(reader: Reader, owner: ast.expr, key: str) -> ast.expr | None:
    """Return the value of a fixed key of a dict literal."""
    if isinstance(owner, ast.Name):
        chosen = reader.reaching(owner)
        if chosen is None or chosen.value is None or stores_of(reader, key):
            return None
        owner = chosen.value
    return dict_value(owner, key)


def _of_call(reader: Reader, call: ast.Call, key: str) -> Source | Unknown:
    if called_name(call) in _PARSERS:
        return classes.argument_default(reader, call, key)
    known = calls.defined(reader, call.func)
    if isinstance(known, ast.ClassDef):
        return classes.class_entry(reader, known, call, key)
    if known is not None:
        return Unknown(f"`{called_name(call)}` makes it when the cell runs")
    value = dict_value(call, key)
    if value is None and len(call.args) == 1 and isinstance(call.args[0], (ast.Dict, ast.Call)):
        value = dict_value(call.args[0], key)
    if value is None:
        return Unknown(f"`{called_name(call)}` in {reader.cell.told(call)} does not plainly say {key!r}")
    return Source(value)
