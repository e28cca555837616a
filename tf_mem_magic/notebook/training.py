"""Where a cell trains: the statement, and the model it works on."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import KERAS

_CALLS = (*KERAS, "train_on_batch", "test_on_batch", "predict_on_batch")


@dataclass(frozen=True, slots=True)
class TrainingPlace:
    """Where the cell trains: the innermost statement, the top-level one, and the expression that is the model."""

    statement: ast.stmt
    top: ast.stmt
    model: str
    facts: ModelFacts | None
    by_keras: bool = False


def find_training(
    cell: PythonCell, names: KerasNames, facts: Facts, diagnosis: Diagnosis | None
) -> TrainingPlace | str:
    """Find the statement that ran out of memory, or else the last one that trains, and the model it works on.

    A text is the reason why it was not found, as a sentence.
    """
    line = None if diagnosis is None else cell.line_of(diagnosis.line)
    calls = cell.once(_training_calls)
    hit = [(top, call) for top, call in calls if line is not None and _covers(call, line)]
    for top, call in hit or (calls[-1:] if line is None else []):
        assert isinstance(call.func, ast.Attribute)
        model = cell.text(call.func.value)
        return TrainingPlace(cell.scopes.statement(call), top, model, facts.model(model), by_keras=True)
    covering = [s for s in cell.tree.body if line is not None and _covers(s, line)]
    naming = (s for s in reversed(cell.tree.body) if _named_models(s, facts))
    found = covering[0] if covering else next(naming, None)
    if found is None:
        return "the statement that trains the model was not found in the cell"
    top = found
    named = _named_models(top, facts)
    if not named and names.builds(top):
        return TrainingPlace(top, top, "", None)
    named = named or [m for m in facts.models if len(facts.models) == 1 and not m.local]
    if len(named) == 1:
        return TrainingPlace(top, top, named[0].name, named[0])
    if not named:
        return "no name in the statement that ran out of memory is known to hold a Keras model"
    trained = [f"`{m.name}`" for m in named if _gives_gradients(cell, m.name)]
    if len(trained) > 1:
        return f"the cell trains {', '.join(trained[:-1])} and {trained[-1]}, and this is a change of one model alone"
    return f"it is not sure which model the cell trains: it could be any of {', '.join(f'`{m.name}`' for m in named)}"


_TRAINABLE = frozenset({"trainable_variables", "trainable_weights"})


def _gives_gradients(cell: PythonCell, model: str) -> bool:
    """Tell whether the cell names what is trained of a model: ``tape.gradient(loss, model.trainable_variables)``."""
    given = (arg for call in cell.calls for arg in (*call.args, *(k.value for k in call.keywords)))
    loads = (n for arg in given for n in ast.walk(arg) if isinstance(n, ast.Attribute) and n.attr in _TRAINABLE)
    return any(ast.unparse(n.value) == model for n in loads)


def _training_calls(cell: PythonCell) -> list[tuple[ast.stmt, ast.Call]]:
    """List the calls of Keras's methods with the top-level statements that they are in, in the order of these."""
    calls = [c for c in cell.calls if isinstance(c.func, ast.Attribute) and c.func.attr in _CALLS]
    tops = [(cell.scopes.top_statement(call), call) for call in calls]
    return sorted(tops, key=lambda pair: (pair[0].lineno, pair[0].col_offset))


def binds_model(statement: ast.stmt, model: str) -> bool:
    """Whether ``statement`` itself decides which object ``model`` names: a line before it would mean another one."""
    root = _root(model)
    return any(isinstance(n, ast.Name) and n.id == root and isinstance(n.ctx, ast.Store) for n in ast.walk(statement))


def _named_models(statement: ast.stmt, facts: Facts) -> list[ModelFacts]:
    roots = {"", *(_root(m.name) for m in facts.models)}
    nodes = (n for n in ast.walk(statement) if isinstance(n, (ast.Name, ast.Attribute, ast.Subscript)))
    loads = (n for n in nodes if isinstance(n.ctx, ast.Load) and _first(n) in roots)
    written = {ast.unparse(n) for n in loads}
    return [m for m in facts.models if m.name in written and m.name not in facts.shadowed]


def _root(name: str) -> str:
    return name.partition(".")[0].partition("[")[0]


def _first(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _covers(node: ast.expr | ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
