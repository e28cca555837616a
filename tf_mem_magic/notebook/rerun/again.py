"""Running a training again on a model that the failed run had already trained: go on, or start over; never mixed."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Choice
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import CellEdit, apply_edits, insert_argument, insert_line


def choices_again(source: str, facts: Facts) -> tuple[Choice, ...]:
    """Give the further ways to run ``source`` where a model from an earlier cell took steps in the failed run.

    ``Continue from epoch k`` where exactly whole epochs were trained and the cell says how many there are: only where
    it was the validation that failed, because a training step that fails may have changed some weights already;
    ``Start again`` where the weights from before the cell were kept. Empty where no model was trained on, or more
    than one was, or the call cannot be found for sure.
    """
    trained = [m for m in facts.models if m.steps_before is not None and m.steps > m.steps_before]
    cell = read_cell(source)
    if len(trained) != 1 or isinstance(cell, NotPython):
        return ()
    calls = [(call, at) for call, at in _fits(cell.tree) if _receiver(call) == trained[0].name]
    if len(calls) != 1:
        return ()
    call, statement = calls[0]
    found = (_continued(cell, call, facts), _started_again(cell, statement, trained[0]))
    return tuple(choice for choice in found if choice is not None)


def _continued(cell: PythonCell, call: ast.Call, facts: Facts) -> Choice | None:
    done = (facts.epochs_done or 0) + 1 if facts.validating else None
    keywords = {k.arg: k.value for k in call.keywords}
    epochs = keywords.get("epochs")
    if done is None or None in keywords or "initial_epoch" in keywords or len(call.args) > 3:
        return None
    if not isinstance(epochs, ast.Constant) or type(epochs.value) is not int or done >= epochs.value:
        return None
    note = f"{done} of {epochs.value} epochs are trained already; the model goes on from there."
    return _choice(
        cell, (insert_argument(cell, call, f"initial_epoch={done}"),), f"Continue from epoch {done + 1}", note
    )


def _started_again(cell: PythonCell, statement: ast.stmt, model: ModelFacts) -> Choice | None:
    if not model.kept:
        return None
    lines = ("from tf_mem_magic import apply", f"apply.start_again({model.name})")
    note = "The model gets back the weights and the optimizer state that it had before this cell."
    return _choice(cell, (insert_line(cell, statement, *lines),), "Start again", note)


def _choice(cell: PythonCell, edits: tuple[CellEdit, ...], label: str, note: str) -> Choice | None:
    changed = apply_edits(cell, edits)
    return None if isinstance(changed, NotPython) else Choice(label, changed, note)


def _fits(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.stmt]]:
    """Yield the calls of ``fit`` that the cell itself makes, not those in functions, with their statements."""
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fit":
                yield node, statement


def _receiver(call: ast.Call) -> str:
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
