"""What holds something else at a later call of a step: a graph would keep what it held when it was traced."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.notebook.text.cell import PythonCell

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension)
_VARIABLES = frozenset({".learning_rate", ".lr", ".trainable", ".momentum"})
"""Attributes that Keras keeps as variables, or that its own graphs follow."""


def set_anew(cell: PythonCell, trees: list[ast.Module], calls: list[ast.Call]) -> frozenset[str]:
    """Return the names, and the attributes as ``.beta``, that are set again while ``calls`` go on.

    ``trees`` are those of the notebook: callbacks of any cell may set attributes between two steps.
    """
    found = set(_between(cell.tree, calls)) if calls else set()
    for node in (n for tree in trees for n in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("on_"):
            found |= {*_attributes(node), *_shared(node)}
    return frozenset(found - _VARIABLES)


def _between(tree: ast.Module, calls: list[ast.Call]) -> Iterator[str]:
    first, last = min(call.lineno for call in calls), max(call.lineno for call in calls)
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, looped = waiting.pop()
        if isinstance(node, _SCOPES):
            yield from _shared(node)
            continue
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            looped = looped or not set(calls).isdisjoint(ast.walk(node))
        stores = isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store)
        if isinstance(node, (ast.Name, ast.Attribute)) and stores and (looped or first < node.lineno <= last):
            yield _told(node)
        waiting += [(child, looped) for child in ast.iter_child_nodes(node)]


def _shared(scope: ast.AST) -> Iterator[str]:
    """Yield the names of the notebook that a function sets."""
    names = {name for n in ast.walk(scope) if isinstance(n, ast.Global) for name in n.names}
    stored = (n for n in ast.walk(scope) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    yield from (n.id for n in stored if n.id in names)


def _attributes(callback: ast.FunctionDef) -> Iterator[str]:
    """Yield the attributes that a method of a callback sets on others: ``self.model.beta``."""
    for node in ast.walk(callback):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) != "self":
            yield _told(node)


def _told(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else f".{node.attr}"
