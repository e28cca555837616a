"""The data that a cell gave to a model, as an expression that a later cell can use again."""

from __future__ import annotations

import ast

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.text.cell import PythonCell

_CALLS = ("fit", "evaluate", "predict", "predict_on_batch", "test_on_batch", "train_on_batch")
_LOCAL = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
_AGAIN = (ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.UnaryOp)


def calls_of(cell: PythonCell, model: str) -> list[ast.Call]:
    """List the Keras calls that work on the data for ``model``, in the order in which they are written."""
    nodes = [node for node in ast.walk(cell.tree) if isinstance(node, ast.Call)]
    found = [
        call
        for call in nodes
        if isinstance(call.func, ast.Attribute) and call.func.attr in _CALLS and ast.unparse(call.func.value) == model
    ]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def find_sample(cell: PythonCell, model: str, facts: Facts) -> str | None:
    """Give the inputs of the last Keras call on ``model`` as an expression; None where a later cell could not use it.

    Only names, parts of them, and lists of those: what would be computed again, drawn from a generator, or is local
    to a function is no such expression.
    """
    local = {node for part in ast.walk(cell.tree) if isinstance(part, _LOCAL) for node in ast.walk(part)}
    calls = [call for call in calls_of(cell, model) if call not in local]
    if not calls:
        return None
    by_name = [keyword.value for keyword in calls[-1].keywords if keyword.arg == "x"]
    given = [*by_name, *calls[-1].args[:1]]
    if not given:
        return None
    nodes = [node for node in ast.walk(given[0]) if not isinstance(node, (ast.expr_context, ast.unaryop))]
    if not all(isinstance(node, _AGAIN) for node in nodes):
        return None
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    deleted = {n.id for n in ast.walk(cell.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}
    drawn = {dataset.name for dataset in facts.datasets if dataset.kind == "generator"}
    return None if not names or names & (deleted | drawn) else ast.unparse(given[0])
