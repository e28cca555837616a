"""Statements that add one entry to a list or dict."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name


@dataclass(frozen=True, slots=True)
class Fill:
    """A statement that adds one ``entry`` to a list or dict; ``name`` is the node by which it names that.

    ``at_end``: the entry becomes the last one of a list.
    """

    statement: ast.stmt
    entry: ast.expr
    name: ast.Name
    at_end: bool


def fills_of(cell: PythonCell, name: str) -> Iterator[Fill]:
    """Yield the statements that add one entry: ``append``, ``+= […]``, ``= name + […]``, ``name[key] = …``."""
    for node in cell.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call, func = node.value, node.value.func
            plain = called_name(call) == "append" and len(call.args) == 1 and not isinstance(call.args[0], ast.Starred)
            if plain and isinstance(func, ast.Attribute) and (owner := _named(func.value, name)) is not None:
                yield Fill(node, call.args[0], owner, at_end=True)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            if (owner := _named(node.target, name)) is not None and (entry := _one_of(node.value)) is not None:
                yield Fill(node, entry, owner, at_end=True)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            yield from _set(node, node.targets[0], name)


def _set(node: ast.Assign, target: ast.expr, name: str) -> Iterator[Fill]:
    if isinstance(target, ast.Subscript) and (owner := _named(target.value, name)) is not None:
        yield Fill(node, node.value, owner, at_end=False)
    added = node.value
    if (owner := _named(target, name)) is not None and isinstance(added, ast.BinOp) and isinstance(added.op, ast.Add):
        entry = _one_of(added.right)
        if _named(added.left, name) is not None and entry is not None:
            yield Fill(node, entry, owner, at_end=True)


def _named(node: ast.expr, name: str) -> ast.Name | None:
    return node if isinstance(node, ast.Name) and node.id == name else None


def _one_of(value: ast.expr) -> ast.expr | None:
    """Give the only entry of a list or tuple that is written out."""
    if not isinstance(value, (ast.List, ast.Tuple)) or len(value.elts) != 1 or isinstance(value.elts[0], ast.Starred):
        return None
    return value.elts[0]
