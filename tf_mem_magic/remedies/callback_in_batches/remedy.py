"""Callback in batches: a callback that calls the model on all samples at once calls it on some at a time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.diagnose.places import HOOK
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import apply_is_free, device_memory, keras_3, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "callback-in-batches"
TITLE = "Callback in batches"
HELPS: tuple[SituationKind, ...] = ("callback-call",)
GUARDS = (
    device_memory,
    python,
    keras_3,
    apply_is_free,
    situation(HELPS, "it was no callback that ran out"),
)

ROWS = 32
"""Samples at a time: what Keras's own ``predict`` takes where it is told nothing."""

_WHY = "A model that is called like a function computes all samples at once; `predict` would not."


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where a callback of the notebook's own class ran out in a direct call of the model."""
    trained = [m for m in ask.facts.models if not m.local and m.steps > (m.steps_before or 0)]
    if not trained or not all(m.rowwise for m in trained):
        raise RefusedError("it is not known that the model computes each sample on its own")
    cell, owner, call = _found(ask)
    given = cell.text(call.args[0])
    rest = "".join(f", {k.arg}={cell.text(k.value)}" for k in call.keywords)
    written = f"apply.in_batches({cell.text(call.func)}, {given}, {ROWS}{rest})"
    undo = ""
    taken: tuple[str, ...] = ()
    if cell is ask.cell:
        source = ask.edit().replace(call, written).on_top(apply=True).source()
    else:
        old = cell.source[cell.start(owner) : cell.end(owner)]
        at = cell.start(call) - cell.start(owner)
        new = f"{old[:at]}{written}{old[at + len(cell.text(call)) :]}"
        source = ask.edit().on_top(*new.splitlines(), "", apply=True).source()
        undo, taken = old, (old,)
    return Proposal(
        key=KEY,
        title=f"Call the model on {ROWS} samples at a time in `{owner.name}`",
        source=source,
        original=ask.source,
        preserves="close numerics",
        caveats=("The changed cell needs tf_mem_magic.",),
        why=_WHY,
        undo=undo,
        taken_over=taken,
        answers_cause=True,
    )


def _found(ask: Ask) -> tuple[PythonCell, ast.ClassDef, ast.Call]:
    """Find the one direct call of the model in a callback of the notebook, and that the cell makes such a callback."""
    frames = [frame for error in ask.recording.errors for frame in error.frames]
    hook = next((f.function for f in reversed(frames) if f.is_user and HOOK.fullmatch(f.function)), "")
    cells = ask.notebook.cells_with(hook) if hook else ()
    found = [(cell, owner, call) for cell in cells for owner, call in _calls(cell, hook)]
    if len(found) != 1:
        raise RefusedError("the one call of the model in the callback was not found in the notebook")
    cell, owner, call = found[0]
    loads = {n.id for n in ask.cell.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    if owner.decorator_list or (cell is not ask.cell and owner.name not in loads):
        raise RefusedError(f"the cell does not make the `{owner.name}` itself that ran out")
    return cell, owner, call


def _calls(cell: PythonCell, hook: str) -> Iterator[tuple[ast.ClassDef, ast.Call]]:
    """Yield the calls of ``self.model`` on data in methods of that name of top-level classes."""
    for owner in (s for s in cell.tree.body if isinstance(s, ast.ClassDef)):
        for method in (s for s in owner.body if isinstance(s, ast.FunctionDef) and s.name == hook and s.args.args):
            own = f"{method.args.args[0].arg}.model"
            for call in (n for n in ast.walk(method) if isinstance(n, ast.Call)):
                plain = len(call.args) == 1 and isinstance(call.args[0], (ast.Name, ast.Attribute))
                if ast.unparse(call.func) == own and plain and all(map(_is_inference, call.keywords)):
                    yield owner, call


def _is_inference(keyword: ast.keyword) -> bool:
    return keyword.arg == "training" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False


def _example(name: str, cell: str, expect: str, declined: bool = False, **more: Any) -> Example:
    situation = more.pop("situation", Situation("callback-call", "It ran out in `on_epoch_end` of a callback."))
    diagnosis = Diagnosis("GPU:0", line=cell.count("\n"), layer="Conv2D", situation=situation)
    frames = (Frame("<cell>", 1, "<module>", True, True), Frame("<earlier>", 4, "on_epoch_end", False, True))
    given: dict[str, Any] = {
        "models": (ModelFacts("model", rowwise=True, steps=8, steps_before=0),),
        "earlier_cells": (_CLASS,),
        **more,
    }
    recorded = {"status": "oom", "errors": (ErrorText("ResourceExhaustedError", "", frames),)}
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, recorded=recorded, **given)


_CLASS = """class Score(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        out = self.model(x_val, training=False)
        print(float(tf.reduce_mean(out)))"""
_CHANGED = _CLASS.replace("self.model(x_val, training", "apply.in_batches(self.model, x_val, 32, training")
_FIT = "model.fit(x, y, callbacks=[Score()])\n"

EXAMPLES: tuple[Example, ...] = (
    _example(
        "a callback of an earlier cell",
        f"%%tfmem\n{_FIT}",
        f"%%tfmem\nfrom tf_mem_magic import apply\n{_CHANGED}\n\n{_FIT}",
    ),
    _example(
        "a callback of this cell",
        f"%%tfmem\n{_CLASS}\n\n{_FIT}",
        f"%%tfmem\nfrom tf_mem_magic import apply\n{_CHANGED}\n\n{_FIT}",
        earlier_cells=(),
    ),
    _example(
        "a callback that an earlier cell has made",
        "%%tfmem\nmodel.fit(x, y, callbacks=[score])\n",
        "does not make the `Score` itself",
        declined=True,
    ),
    _example(
        "a model whose samples may depend on each other",
        f"%%tfmem\n{_FIT}",
        "each sample on its own",
        declined=True,
        models=(ModelFacts("model", steps=8, steps_before=0),),
    ),
    _example(
        "the callback predicts",
        f"%%tfmem\n{_FIT}",
        "was not found in the notebook",
        declined=True,
        earlier_cells=(_CLASS.replace("self.model(x_val, training=False)", "self.model.predict(x_val)"),),
    ),
    _example(
        "as in training",
        f"%%tfmem\n{_FIT}",
        "was not found in the notebook",
        declined=True,
        earlier_cells=(_CLASS.replace("=False", "=True"),),
    ),
    _example("an ordinary step", f"%%tfmem\n{_FIT}", "no callback", declined=True, situation=None),
)
