"""Derivatives of derivatives of what a model computes, as in the losses of physics: 16 bits leave little of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.uses import called_name

_DERIVES = frozenset({"gradient", "gradients", "jacobian", "batch_jacobian"})
_OF_WEIGHTS = re.compile(r"(?i)train|weight|variable|param|theta|kernel|bias")
_MOST = 60
"""So many functions and classes are looked at."""


def derived_twice(notebook: Notebook) -> str:
    """Give the text that differentiates a derivative by something else than weights; empty where nothing does."""
    if not notebook.mentions(*_DERIVES):
        return ""
    for root in _reached(notebook):
        calls = [n for n in ast.walk(root) if isinstance(n, ast.Call) and _by_inputs(n)]
        derived = {name for call in calls for name in _named_by(root, call)}
        for call in calls:
            inside = [n for n in ast.walk(call.args[0]) if isinstance(n, (ast.Name, ast.Call))]
            if any(n in calls or (isinstance(n, ast.Name) and n.id in derived) for n in inside):
                return ast.unparse(call)
    return ""


def _reached(notebook: Notebook) -> Iterator[ast.AST]:
    """Yield the cell, and the functions and classes of the notebook that it reaches by their names."""
    todo: list[ast.AST] = [notebook.cell.tree]
    done = set[str]()
    while todo and len(done) < _MOST:
        root = todo.pop(0)
        yield root
        for name in {n.id for n in ast.walk(root) if isinstance(n, ast.Name)} - done:
            done.add(name)
            found = notebook.function(name)
            todo += [found.node] if found is not None else _made_of(notebook, name)


def _made_of(notebook: Notebook, name: str) -> list[ast.AST]:
    """List what an earlier cell calls to make what a name holds."""
    for cell in notebook.before.setting(name):
        return [one.value for one in cell.scopes.of(cell.tree, name) if isinstance(one.value, ast.Call)]
    return []


def _by_inputs(call: ast.Call) -> bool:
    """Tell whether a call differentiates by something that is named like no weights."""
    return called_name(call) in _DERIVES and len(call.args) > 1 and not _OF_WEIGHTS.search(ast.unparse(call.args[1]))


def _named_by(root: ast.AST, call: ast.Call) -> Iterator[str]:
    """Name what holds a derivative, or a part of one: ``u_x = tape.gradient(u, x)[:, 0:1]``."""
    for node in walk(root):
        if isinstance(node, ast.Assign) and any(n is call for n in ast.walk(node.value)):
            for target in node.targets:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
