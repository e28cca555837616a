"""A model called like a function, on all samples at once: ``features = model(images)``."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook import direct_call
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.edits import Editor


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
    calls = [call for call in cell.calls if lines & set(_lines(call))]
    found = [one for one in (_direct(call, facts, cell.scopes) for call in calls) if one is not None]
    return found[0] if len(found) == 1 else None


def call_in_batches(cell: PythonCell, found: DirectCall, batch: int) -> str:
    """Return the cell with the call made for ``batch`` samples at a time; refused where the edit cannot be sure."""
    return Editor(cell).edit(*direct_call.call_in_batches(cell, found.call, batch)).on_top(apply=True).source()


def _direct(call: ast.Call, facts: Facts, scopes: Scopes) -> DirectCall | None:
    model = facts.model(ast.unparse(call.func)) if isinstance(call.func, (ast.Name, ast.Attribute)) else None
    if model is None or not model.rowwise or model.local or not direct_call.only_infers(call):
        return None
    data = call.args[0]
    if not isinstance(data, ast.Name) or direct_call.why_whole(scopes, call, scopes.tree):
        return None
    value = facts.value(data.id)
    shape = value.shape if value is not None else None
    return DirectCall(call, shape[0]) if shape and shape[0] > 1 else None


def _lines(node: ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
