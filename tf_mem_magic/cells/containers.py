"""Batch sizes kept in something: ``cfg["batch_size"]``, ``args.batch_size``, ``self.batch_size``."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.cells import calls
from tf_mem_magic.cells.scopes import Binding
from tf_mem_magic.cells.settings import Reader, Setting, Unknown, earlier, resolve
from tf_mem_magic.cells.uses import called_name, is_batch_name, role

_DEEPEST = 20
_MUTATORS = frozenset({"update", "pop", "setdefault", "clear", "__setattr__", "__setitem__", "popitem"})
_PARSERS = ("parse_args", "parse_known_args")


def is_entry(expr: ast.expr) -> bool:
    """Say whether ``expr`` reads an entry by a fixed name: an attribute, a subscript, or ``.get(...)``."""
    return key_of(expr) is not None


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


def resolve_entry(reader: Reader, expr: ast.expr, depth: int) -> Setting | Unknown:
    """Follow an entry to where it is set."""
    owner_and_key = key_of(expr)
    assert owner_and_key is not None
    owner, key = owner_and_key
    written = ast.unparse(expr)
    stores = _stores(reader, key)
    same = [(target, value) for target, value in stores if ast.unparse(target) == written]
    if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
        return _own_attribute(reader, expr, key, depth)
    foreign = [t for t, _ in stores if ast.unparse(t) != written and not _is_self(t)]
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
    reads = _reads(reader, written)
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


def _reads(reader: Reader, written: str) -> list[ast.expr]:
    return [
        n
        for n in ast.walk(reader.cell.tree)
        if isinstance(n, (ast.Attribute, ast.Subscript)) and isinstance(n.ctx, ast.Load) and ast.unparse(n) == written
    ]


def _stores(reader: Reader, key: str) -> list[tuple[ast.expr, ast.expr | None]]:
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


def _is_self(target: ast.expr) -> bool:
    its = key_of(target)
    return its is not None and isinstance(its[0], ast.Name) and its[0].id == "self"


def mutated(reader: Reader, owner: ast.expr) -> bool:
    """Say whether the cell changes ``owner`` by a call that cannot be followed."""
    written = ast.unparse(owner)
    for node in ast.walk(reader.cell.tree):
        if not isinstance(node, ast.Call):
            continue
        own = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == written
        if own and called_name(node) in _MUTATORS:
            return True
        if called_name(node) in ("setattr", "delattr", "vars") and node.args and ast.unparse(node.args[0]) == written:
            return True
    return False


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
    others = [n for n in _reads(reader, written) if role(reader.scopes, n) == "other"]
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
    return class_entry(reader, cls, None, key, depth + 1)


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
            return class_entry(reader, chosen.node, None, key, depth)
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
                return _argparse(reader, call, key, depth)
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
        return _argparse(reader, parsed, key, depth)
    return unknown


def _call_of(reader: Reader, owner: ast.expr) -> Unknown | None:
    return Unknown(f"`{ast.unparse(owner)}` cannot be followed") if isinstance(owner, ast.Call) else None


def _nested(reader: Reader, owner: ast.expr, key: str) -> ast.expr | None:
    """Give the value of a fixed key of a dict literal."""
    if isinstance(owner, ast.Name):
        chosen = reader.scopes.reaching(owner, reader.bindings(owner))
        if chosen is None or chosen.value is None or _stores(reader, key):
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


def _dict_entry(reader: Reader, owner: ast.Dict, key: str, depth: int) -> Setting | Unknown:
    value = dict_value(owner, key)
    return (
        Unknown(f"the dict in line {owner.lineno} does not plainly say {key!r}")
        if value is None
        else resolve(reader, value, depth + 1)
    )


def _call_entry(reader: Reader, call: ast.Call, key: str, depth: int) -> Setting | Unknown:
    if called_name(call) in _PARSERS:
        return _argparse(reader, call, key, depth)
    known = calls.defined(reader, call.func)
    if isinstance(known, ast.ClassDef):
        return class_entry(reader, known, call, key, depth)
    if known is not None:
        return Unknown(f"`{called_name(call)}` makes it when the cell runs")
    value = dict_value(call, key)
    if value is None and len(call.args) == 1 and isinstance(call.args[0], (ast.Dict, ast.Call)):
        value = dict_value(call.args[0], key)
    if value is None:
        return Unknown(f"`{called_name(call)}` in line {call.lineno} does not plainly say {key!r}")
    return resolve(reader, value, depth + 1)


def class_entry(reader: Reader, cls: ast.ClassDef, call: ast.Call | None, key: str, depth: int) -> Setting | Unknown:
    """Find what sets the attribute ``key`` of a class of the cell, made by ``call`` where that is known."""
    unknown = Unknown(f"`{cls.name}.{key}` cannot be followed to where it is set")
    stores = [
        (target, value)
        for target, value in _stores(reader, key)
        if _is_self(target) and cls in reader.scopes.up(target)
    ]
    if len(stores) > 1:
        return unknown
    if stores:
        value = stores[0][1]
        if value is None:
            return unknown
        function = next(
            (n for n in reader.scopes.up(stores[0][0]) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))), None
        )
        if call is None or function is None:
            return resolve(reader, value, depth + 1)
        before = dict(reader.entered)
        reader.entered[function] = call
        try:
            return resolve(reader, value, depth + 1)
        finally:
            reader.entered = before
    fields = [n for n in cls.body if isinstance(n, (ast.AnnAssign, ast.Assign))]
    defaults = [(_field_name(n), n.value) for n in fields]
    found = [value for name, value in defaults if name == key]
    if len(found) != 1 or found[0] is None:
        return unknown
    if any("dataclass" in ast.unparse(d) for d in cls.decorator_list):
        return _dataclass(reader, cls, call, key, found[0], depth)
    if call is not None and (call.args or call.keywords) and calls.constructor(cls) is None:
        given = dict_value(call, key)
        return unknown if given is None else resolve(reader, given, depth + 1)
    return resolve(reader, found[0], depth + 1)


def _field_name(node: ast.AnnAssign | ast.Assign) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _dataclass(
    reader: Reader, cls: ast.ClassDef, call: ast.Call | None, key: str, default: ast.expr, depth: int
) -> Setting | Unknown:
    if call is None:
        made = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.Call) and called_name(n) == cls.name]
        if len(made) > 1:
            return Unknown(f"`{cls.name}` is made more than once")
        call = made[0] if made else None
    if call is not None:
        names = [_field_name(n) for n in cls.body if isinstance(n, ast.AnnAssign)]
        if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
            return Unknown(f"`{cls.name}` is made from values that cannot be followed (line {call.lineno})")
        given = dict_value(call, key)
        if given is None and key in names and names.index(key) < len(call.args):
            given = call.args[names.index(key)]
        if given is not None:
            return resolve(reader, given, depth + 1)
    if isinstance(default, ast.Call) and called_name(default) == "field":
        inner = dict_value(default, "default")
        return (
            Unknown(f"`{cls.name}.{key}` has no plain default") if inner is None else resolve(reader, inner, depth + 1)
        )
    return resolve(reader, default, depth + 1)


def _argparse(reader: Reader, call: ast.Call, key: str, depth: int) -> Setting | Unknown:
    given = [*call.args, *(k.value for k in call.keywords if k.arg == "args")]
    if given and not _is_empty(given[0]):
        return Unknown(f"the arguments in line {call.lineno} are given, so the default may not apply")
    declared = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.Call) and called_name(n) == "add_argument"]
    found = [n for n in declared if _destination(n) == key]
    if len(found) != 1:
        return Unknown(f"the argument {key!r} is not declared once in this cell")
    if any(isinstance(n, ast.Call) and called_name(n) == "set_defaults" for n in ast.walk(reader.cell.tree)):
        return Unknown("`set_defaults` may change the default")
    default = next((k.value for k in found[0].keywords if k.arg == "default"), None)
    return Unknown(f"the argument {key!r} has no default") if default is None else resolve(reader, default, depth + 1)


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


def batch_keyword(call: ast.Call) -> ast.expr | None:
    """Give the argument of ``call`` whose name means a batch size."""
    found = [k.value for k in call.keywords if k.arg and is_batch_name(k.arg) and not k.arg.startswith("val")]
    return found[0] if len(found) == 1 else None
