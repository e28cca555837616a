"""Scalars that a cell reads: ``BATCH``, ``cfg.batch_size``, ``cfg["bs"]``, read without side effects."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

from tf_mem_magic.core.facts import ScalarFact

_MISSING = object()
_SECRET = re.compile(r"(?i)secret|password|passwd|token|api_?key|credential")
_LONGEST = 200


def find_scalars(source: str, namespace: Mapping[str, Any]) -> tuple[ScalarFact, ...]:
    """Give each scalar that ``source`` (plain Python) reads from the notebook's names, as it is written there.

    No property and no ``__getattr__`` is run; names that look like secrets are left out. A function's own local
    names are not the notebook's, so they are left out too.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()
    found: dict[str, ScalarFact] = {}
    for node in _reads(tree, frozenset()):
        text = ast.get_source_segment(source, node) or ""
        if not text or text in found or _SECRET.search(text):
            continue
        value = _value(node, namespace)
        if type(value) in (int, float, bool) or (type(value) is str and len(value) <= _LONGEST):
            found[text] = ScalarFact(text, value)
    return tuple(found.values())


def _reads(node: ast.AST, local: frozenset[str]) -> Iterator[ast.expr]:
    """Yield the names, attributes and subscripts under ``node`` that start from a name of the notebook."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        outside = [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        outside += [] if isinstance(node, ast.Lambda) else node.decorator_list
        for one in outside:
            yield from _reads(one, local)
        inside = local | _bound(node)
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
        for part in body:
            yield from _reads(part, inside)
        return
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        local = local | {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        root = _root(node)
        if root is not None and root not in local:
            yield node
    for child in ast.iter_child_nodes(node):
        yield from _reads(child, local)


def _bound(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> frozenset[str]:
    a = function.args
    names = {arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]}
    shared: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            shared.update(node.names)
    return frozenset(names - shared)


def _root(node: ast.expr) -> str | None:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _value(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return namespace.get(node.id, _MISSING)
    if isinstance(node, ast.Attribute):
        return _attribute(_value(node.value, namespace), node.attr)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return _entry(_value(node.value, namespace), node.slice.value)
    return _MISSING


def _attribute(owner: Any, name: str) -> Any:
    if owner is _MISSING or owner is None:
        return _MISSING
    if isinstance(owner, tuple):
        names = getattr(type(owner), "_fields", ())
        return owner[names.index(name)] if name in names else _MISSING
    found = inspect.getattr_static(owner, name, _MISSING)
    if isinstance(found, types.MemberDescriptorType):
        try:
            return found.__get__(owner)
        except AttributeError:
            return _MISSING
    if found is _MISSING and isinstance(owner, dict) and hasattr(type(owner), "__getattr__"):
        return dict.get(owner, name, _MISSING)
    return found


def _entry(owner: Any, key: Any) -> Any:
    if isinstance(owner, dict):
        return dict.get(owner, key, _MISSING)
    if type(owner) in (list, tuple) and type(key) is int:
        return owner[key] if -len(owner) <= key < len(owner) else _MISSING
    return _MISSING
