"""A model called like a function, on all samples at once: whether, and how, the call can be made for some at a time."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import CellEdit
from tf_mem_magic.notebook.uses import called_name

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_PLACES = frozenset({"device", "name_scope"})


def only_infers(call: ast.Call) -> bool:
    """Whether a model is given data alone, and is not told to do as in training."""
    return len(call.args) == 1 and not isinstance(call.args[0], ast.Starred) and all(map(_is_inference, call.keywords))


def _is_inference(keyword: ast.keyword) -> bool:
    return keyword.arg == "training" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False


def why_whole(scopes: Scopes, call: ast.Call, owner: ast.AST) -> str:
    """Say why a call must be made for all samples at once, as it stands in ``owner``; empty where it need not.

    A gradient may be taken through it, or TensorFlow may trace it: no array of NumPy is in the way of either.
    """
    for parent in scopes.up(call):
        if parent is owner:
            return ""
        if isinstance(parent, _FUNCTIONS):
            return "the model is called in a function inside, which TensorFlow may run as a graph"
        if isinstance(parent, (ast.With, ast.AsyncWith)) and not all(map(_is_place, parent.items)):
            return f"a gradient may be taken through the call of the model in line {call.lineno}"
    return ""


def _is_place(item: ast.withitem) -> bool:
    """Whether what a ``with`` opens only says where to compute."""
    return isinstance(item.context_expr, ast.Call) and called_name(item.context_expr) in _PLACES


def call_in_batches(cell: PythonCell, call: ast.Call, batch: int) -> tuple[CellEdit, CellEdit]:
    """Make a call that :func:`only_infers` for ``batch`` samples at a time: ``apply.in_batches(model, …)``."""
    model, data = call.func, call.args[0]
    start = CellEdit(cell.start(model), cell.start(data), f"apply.in_batches({cell.text(model)}, ")
    return start, CellEdit(cell.end(data), cell.end(data), f", {batch}")
