"""Batch sizes kept in something: ``cfg["batch_size"]``, ``args.batch_size``, ``self.batch_size``."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.notebook.follow import calls, classes
from tf_mem_magic.notebook.follow.entries import dict_value, is_self, key_of, mutated, stores_of
from tf_mem_magic.notebook.follow.resolve import Reader, Setting, Unknown, earlier, resolve
from tf_mem_magic.notebook.scopes import Binding
from tf_mem_magic.notebook.uses import called_name, role

_DEEPEST = 20
_PARSERS = ("parse_args", "parse_known_args")


def is_entry(expr: ast.expr) -> bool:
    """Say whether ``expr`` reads an entry by a fixed name: an attribute, a subscript, or ``.get(...)``."""
    return key_of(expr) is not None


def resolve_entry(reader: Reader, expr: ast.expr, depth: int) -> Setting | Unknown:
    """Follow an entry to where it is set."""
    owner_and_key = key_of(expr)
    assert owner_and_key is not None
    owner, key = owner_and_key
    written = ast.unparse(expr)
    stores = stores_of(reader, key)
    same = [(target, value) for target, value in stores if ast.unparse(target) == written]
    if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
        return _own_attribute(reader, expr, key, depth)
    foreign = [t for t, _ in stores if ast.unparse(t) != written and not is_self(t)]
    if foreign or mutated(reader, owner):
        return Unknown(f"`{written}` may be changed in line {foreign[0].lineno if foreign else owner.lineno}")
    if same:
        return _stored(reader, expr, same, depth)
    root = _root(owner)
    if root is not None and not reader.bindings(root):
        if isinstance(expr, ast.Call):
            return Unknown(f"`{written}` comes from an earlier cell")
        return _from_earlier(reader, expr, root)
    inner = _defined_entry(reader, owner, key, depth + 1)
    return _safe(reader, expr, inner)


def _safe(reader: Reader, expr: ast.expr, inner: Setting | Unknown) -> Setting | Unknown:
    if isinstance(inner, Unknown):
        return inner
    written = ast.unparse(expr)
    its_key = key_of(expr)
    key = its_key[1] if its_key else ""
    reads = [*_reads(reader, key), *(n for (_, name), ns in reader.scopes.loads.items() if name == key for n in ns)]
    roles = [(node, role(reader.scopes, node)) for node in reads]
    others = [node for node, its in roles if its == "other"]
    if others:
        if any(its == "coupled" for _, its in roles):
            return Unknown(f"`{written}` also decides something else (line {others[0].lineno})")
        note = f"`{written}` stays {inner.value}: it is also used for something else (line {others[0].lineno})."
        return Setting(inner.value, (reader.slot(expr, inner.value),), notes=(note,))
    known = reader.scalar(reader.cell.text(expr))
    if known is not None and not inner.per_replica and known != inner.value and not isinstance(expr, ast.Call):
        return Unknown(f"`{written}` is {known} now, but the cell says {inner.value}")
    return replace(inner, names=inner.names | {written})


def _reads(reader: Reader, key: str) -> list[ast.expr]:
    """List the reads of an entry called ``key``, of whatever owner: it may be the same one under another name."""
    entries = [n for n in ast.walk(reader.cell.tree) if isinstance(n, (ast.Attribute, ast.Subscript))]
    return [n for n in entries if isinstance(n.ctx, ast.Load) and (key_of(n) or (n, ""))[1] == key]


def _stored(
    reader: Reader, expr: ast.expr, same: list[tuple[ast.expr, ast.expr | None]], depth: int
) -> Setting | Unknown:
    written = ast.unparse(expr)
    found = [
        Binding(written, "assign" if value is not None else "changed", reader.scopes.scope_of(target), target, value)
        for target, value in same
    ]
    chosen = reader.scopes.reaching(expr, found)
    if chosen is None or chosen.value is None:
        return Unknown(f"`{written}` is set in more than one place or only under a condition")
    return _safe(reader, expr, resolve(reader, chosen.value, depth + 1))


def _from_earlier(reader: Reader, expr: ast.expr, root: ast.Name) -> Setting | Unknown:
    written = ast.unparse(expr)
    its_key = key_of(expr)
    others = [n for n in _reads(reader, its_key[1] if its_key else "") if role(reader.scopes, n) == "other"]
    if others:
        value = reader.scalar(reader.cell.text(expr))
        if value is None:
            return Unknown(f"`{written}` comes from an earlier cell, and its value is not known")
        return Unknown(f"`{written}` also decides something else (line {others[0].lineno})")
    loads: list[ast.Name] = reader.scopes.loads.get((reader.scopes.home(root), root.id), [])
    return earlier(reader, expr, loads)


def _root(expr: ast.expr) -> ast.Name | None:
    while isinstance(expr, (ast.Attribute, ast.Subscript)):
        expr = expr.value
    return expr if isinstance(expr, ast.Name) else None


def _own_attribute(reader: Reader, expr: ast.expr, key: str, depth: int) -> Setting | Unknown:
    cls = next((n for n in reader.scopes.up(expr) if isinstance(n, ast.ClassDef)), None)
    if cls is None:
        return Unknown(f"`{ast.unparse(expr)}` comes from elsewhere")
    return classes.class_entry(reader, cls, None, key, depth + 1)


def _defined_entry(reader: Reader, owner: ast.expr, key: str, depth: int) -> Setting | Unknown:
    """Follow ``owner`` to what it is, and find ``key`` in that."""
    unknown = Unknown(f"`{ast.unparse(owner)}` cannot be followed to where its batch size is set")
    if depth > _DEEPEST:
        return unknown
    if isinstance(owner, ast.Name):
        found = reader.bindings(owner)
        chosen = reader.scopes.reaching(owner, found)
        if chosen is None:
            return unknown
        if isinstance(chosen.node, ast.ClassDef) and chosen.kind == "def":
            return classes.class_entry(reader, chosen.node, None, key, depth)
        if chosen.kind == "param":
            exprs = calls.argument_exprs(reader, chosen)
            if isinstance(exprs, Unknown) or len({ast.unparse(e) for e in exprs}) != 1:
                return unknown
            return _entry_of(reader, exprs[0], key, depth)
        if chosen.value is not None:
            return _defined_entry(reader, chosen.value, key, depth + 1)
        if isinstance(chosen.node, ast.Assign) and isinstance(chosen.node.value, ast.Call):
            call = chosen.node.value
            target = chosen.node.targets[0]
            first = isinstance(target, ast.Tuple) and ast.unparse(target.elts[0]) == owner.id
            if called_name(call) == "parse_known_args" and first:
                return classes.argument_default(reader, call, key, depth)
        return unknown
    if isinstance(owner, ast.Dict):
        return _dict_entry(reader, owner, key, depth)
    if isinstance(owner, ast.Call):
        return _call_entry(reader, owner, key, depth)
    its = key_of(owner)
    if its is not None and isinstance(owner, ast.Subscript):
        if called := _call_of(reader, its[0]):
            return called
        nested = _nested(reader, its[0], its[1])
        return unknown if nested is None else _defined_entry(reader, nested, key, depth + 1)
    parsed = owner.value if isinstance(owner, ast.Subscript) else None
    if isinstance(parsed, ast.Call) and called_name(parsed) == "parse_known_args":
        return classes.argument_default(reader, parsed, key, depth)
    return unknown


def _call_of(reader: Reader, owner: ast.expr) -> Unknown | None:
    return Unknown(f"`{ast.unparse(owner)}` cannot be followed") if isinstance(owner, ast.Call) else None


def _nested(reader: Reader, owner: ast.expr, key: str) -> ast.expr | None:
    """Give the value of a fixed key of a dict literal."""
    if isinstance(owner, ast.Name):
        chosen = reader.scopes.reaching(owner, reader.bindings(owner))
        if chosen is None or chosen.value is None or stores_of(reader, key):
            return None
        owner = chosen.value
    return dict_value(owner, key)


def _entry_of(reader: Reader, expr: ast.expr, key: str, depth: int) -> Setting | Unknown:
    root = _root(expr)
    if root is not None and not reader.bindings(root):
        return Unknown(f"`{ast.unparse(expr)}` comes from an earlier cell")
    if mutated(reader, expr):
        return Unknown(f"`{ast.unparse(expr)}` may be changed in the cell")
    return _defined_entry(reader, expr, key, depth + 1)


def _dict_entry(reader: Reader, owner: ast.Dict, key: str, depth: int) -> Setting | Unknown:
    value = dict_value(owner, key)
    return (
        Unknown(f"the dict in line {owner.lineno} does not plainly say {key!r}")
        if value is None
        else resolve(reader, value, depth + 1)
    )


def _call_entry(reader: Reader, call: ast.Call, key: str, depth: int) -> Setting | Unknown:
    if called_name(call) in _PARSERS:
        return classes.argument_default(reader, call, key, depth)
    known = calls.defined(reader, call.func)
    if isinstance(known, ast.ClassDef):
        return classes.class_entry(reader, known, call, key, depth)
    if known is not None:
        return Unknown(f"`{called_name(call)}` makes it when the cell runs")
    value = dict_value(call, key)
    if value is None and len(call.args) == 1 and isinstance(call.args[0], (ast.Dict, ast.Call)):
        value = dict_value(call.args[0], key)
    if value is None:
        return Unknown(f"`{called_name(call)}` in line {call.lineno} does not plainly say {key!r}")
    return resolve(reader, value, depth + 1)
