"""Scalars that a cell reads: ``BATCH``, ``cfg.batch_size``, ``cfg["bs"]``, read without side effects."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

from tf_mem_magic.core.facts import ScalarFact
from tf_mem_magic.facts.kinds import is_a, is_exactly

_MISSING = object()
_SECRET = re.compile(r"(?i)secret|password|passwd|token|api_?key|credential")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_LONGEST = 200
_LARGEST = 1 << 63
_LONGEST_CHAIN = 32
_MOST = 2_000
"""Scalars noted of one cell: one that reads more is data, not a training."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def find_scalars(source: str, namespace: Mapping[str, Any]) -> tuple[ScalarFact, ...]:
    """Give each scalar that ``source`` (plain Python) reads from the notebook's names, as it is written there.

    No property and no ``__getattr__`` is run; names that look like secrets are left out, and integers of more than 64
    bits. A function's own local names are not the notebook's, so they are left out too.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    lines = [line.encode() for line in _LINE.findall(source)]
    found: dict[str, ScalarFact] = {}
    for node in _reads(tree):
        value = _scalar(node, namespace)
        if value is _MISSING:
            continue
        text = _text(lines, node)
        if text and not _SECRET.search(text):
            found.setdefault(text, ScalarFact(text, value))
            if len(found) == _MOST:
                break
    return tuple(found.values())


def _text(lines: list[bytes], node: ast.expr) -> str:
    """Give a node's text as it is written; positions count bytes of UTF-8."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    try:
        if first == last:
            text = lines[first][node.col_offset : node.end_col_offset].decode()
        else:
            parts = [lines[first][node.col_offset :], *lines[first + 1 : last], lines[last][: node.end_col_offset]]
            text = b"".join(parts).decode()
    except (IndexError, UnicodeDecodeError):
        return ""
    # Before Python 3.12 what stands in a text of several lines with values in it has no true position.
    return text if (_root(node) or "") in text else ""


def _scalar(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    try:
        value = _value(node, namespace)
    except Exception:  # an object that answers for its class, or for what is compared with it
        return _MISSING
    kind = type(value)
    fits = is_exactly(value, float, bool) or (kind is int and -_LARGEST <= value < _LARGEST)
    return value if fits or (kind is str and len(value) <= _LONGEST) else _MISSING


def read_expressions(tree: ast.AST, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a piece of code reads from ``namespace``, as :func:`ast.unparse` writes it, with what it holds."""
    for node in _reads(tree):
        try:
            value = _value(node, namespace)
        except Exception:  # an object that answers for its class, or for what is compared with it
            continue
        if value is not _MISSING:
            yield ast.unparse(node), value


def _reads(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the names, attributes and subscripts that start from a name of the notebook, in the order of the text."""
    todo: list[tuple[ast.AST, frozenset[str]]] = [(tree, frozenset())]
    while todo:
        node, local = todo.pop()
        children: list[tuple[ast.AST, frozenset[str]]] = []
        if isinstance(node, _Function):
            children += [(one, local) for one in _outside(node)]
            inside = local | _bound(node)
            body: list[Any] = node.body if isinstance(node.body, list) else [node.body]
            children += [(one, inside) for one in body]
        else:
            if isinstance(node, _COMPREHENSIONS):
                targets = (n for g in node.generators for n in ast.walk(g.target))
                local = local | {n.id for n in targets if isinstance(n, ast.Name)}
            if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
                root = _root(node)
                if root is not None and root not in local:
                    yield node
            children += [(child, local) for child in ast.iter_child_nodes(node)]
        todo += reversed(children)


def _outside(function: _Function) -> list[ast.expr]:
    """List what a definition computes where it stands: its defaults and decorators."""
    outside = [*function.args.defaults, *(one for one in function.args.kw_defaults if one)]
    return outside if isinstance(function, ast.Lambda) else [*outside, *function.decorator_list]


def _bound(function: _Function) -> frozenset[str]:
    """List a function's own names: its parameters and what its body assigns, not what functions inside it do."""
    a = function.args
    names = {arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]}
    shared: set[str] = set()
    todo: list[ast.AST] = list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                names.add(node.id)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            shared.update(node.names)
        elif not isinstance(node, _Function):
            todo += ast.iter_child_nodes(node)
    return frozenset(names - shared)


def _root(node: ast.expr) -> str | None:
    """Give the name that attributes and entries are taken of; None for none, or a chain that no person writes."""
    for _ in range(_LONGEST_CHAIN):
        if not isinstance(node, (ast.Attribute, ast.Subscript)):
            break
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _value(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """Follow a name, its attributes and its entries, outermost last."""
    steps: list[ast.Attribute | ast.Subscript] = []
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        steps.append(node)
        node = node.value
    found = namespace.get(node.id, _MISSING) if isinstance(node, ast.Name) else _MISSING
    for step in reversed(steps):
        if found is _MISSING or found is None:
            return _MISSING
        if isinstance(step, ast.Attribute):
            found = _attribute(found, step.attr)
        elif isinstance(step.slice, ast.Constant):
            found = _entry(found, step.slice.value)
        else:
            return _MISSING
    return found


def _attribute(owner: Any, name: str) -> Any:
    if is_a(owner, tuple):
        names = getattr(type(owner), "_fields", ())
        return tuple.__getitem__(owner, names.index(name)) if type(names) is tuple and name in names else _MISSING
    found = inspect.getattr_static(owner, name, _MISSING)
    if type(found) is types.MemberDescriptorType:
        try:
            return found.__get__(owner)
        except AttributeError:
            return _MISSING
    if found is _MISSING and is_a(owner, dict) and hasattr(type(owner), "__getattr__"):
        return dict.get(owner, name, _MISSING)
    return found


def _entry(owner: Any, key: Any) -> Any:
    if is_a(owner, dict):
        return dict.get(owner, key, _MISSING)
    if is_exactly(owner, list, tuple) and type(key) is int:
        return owner[key] if -len(owner) <= key < len(owner) else _MISSING
    return _MISSING
