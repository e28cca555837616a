"""A model called like a function, on all samples at once: ``features = model(images)``."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.edits import Editor
from tf_mem_magic.notebook.text.ranges import CellEdit

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class DirectCall:
    """The call, and the number of samples that it is given."""

    call: ast.Call
    samples: int


def find_direct_call(cell: PythonCell, facts: Facts, lines: frozenset[int]) -> DirectCall | None:
    """Find the one call of a model on data of known length in the lines that led to the error.

    None where it may be part of a training (in a ``with`` that may be a GradientTape, in a function,
    ``training=True``) or where the model might look at several samples at once.
    """
    scopes = cell.scopes
    calls = [call for call in cell.calls if lines & set(_lines(call))]
    found = [one for one in (_direct(call, facts, scopes) for call in calls) if one is not None]
    return found[0] if len(found) == 1 else None


def call_in_batches(cell: PythonCell, found: DirectCall, batch: int) -> str:
    """Return the cell with the call made for ``batch`` samples at a time; refused where the edit cannot be sure."""
    model, data = found.call.func, found.call.args[0]
    start = CellEdit(cell.start(model), cell.start(data), f"apply.in_batches({cell.text(model)}, ")
    end = CellEdit(cell.end(data), cell.end(data), f", {batch}")
    return Editor(cell).edit(start, end).on_top(apply=True).source()


def _direct(call: ast.Call, facts: Facts, scopes: Scopes) -> DirectCall | None:
    model = facts.model(ast.unparse(call.func)) if isinstance(call.func, (ast.Name, ast.Attribute)) else None
    if model is None or not model.rowwise or model.local:
        return None
    if len(call.args) != 1 or not isinstance(call.args[0], ast.Name) or not all(map(_is_inference, call.keywords)):
        return None
    parent = scopes.parents.get(call)
    while parent is not None:
        if isinstance(parent, _FUNCTIONS) or (isinstance(parent, (ast.With, ast.AsyncWith)) and not _is_place(parent)):
            return None
        parent = scopes.parents.get(parent)
    name = call.args[0].id
    shape = next((v.shape for v in facts.values if v.name == name), None)
    return DirectCall(call, shape[0]) if shape and shape[0] > 1 else None


def _is_place(statement: ast.With | ast.AsyncWith) -> bool:
    """Whether a ``with`` only says where to compute."""
    texts = [ast.unparse(item.context_expr) for item in statement.items]
    return all(text.partition("(")[0].endswith((".device", "name_scope")) for text in texts)


def _is_inference(keyword: ast.keyword) -> bool:
    return keyword.arg == "training" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False


def _lines(node: ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
