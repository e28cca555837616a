"""Callback in batches: a callback that calls the model on all samples at once calls it on some at a time."""

from __future__ import annotations

from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.notebook.direct_call import call_in_batches
from tf_mem_magic.notebook.text.edits import Editor
from tf_mem_magic.remedies._engine.combine import split_lines
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import apply_is_free, device_memory, keras_3, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies._engine.rows import rows_that_fit
from tf_mem_magic.remedies.callback_in_batches.callback import find_callback, makes

KEY = "callback-in-batches"
TITLE = "Callback in batches"
HELPS: tuple[SituationKind, ...] = ("callback-call",)
_CALLBACK: tuple[SituationKind, ...] = ("callback", *HELPS)
GUARDS = (device_memory, python, keras_3, apply_is_free, situation(_CALLBACK, "it was no callback that ran out"))

ROWS = 32
"""Samples at a time at most: what Keras's own ``predict`` takes where it is told nothing."""

_SHARE = 1 / 8
"""Share of the device's memory that the largest result for these samples may take."""

_WHY = "A model that is called like a function computes all samples at once; `predict` would not."


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where a callback of the notebook's own class ran out in a direct call of the model."""
    if ask.situation not in HELPS:
        raise RefusedError("what the callback computed there is no model that it calls like a function")
    trained = [m for m in ask.facts.models if not m.local and m.steps > (m.steps_before or 0)]
    if not trained or not all(m.rowwise for m in trained):
        raise RefusedError("it is not known that the model computes each sample on its own")
    found = find_callback(ask)
    cell, owner = found.cell, found.owner
    if not makes(ask, owner.name):
        raise RefusedError(f"the cell does not make the `{owner.name}` itself that ran out")
    rows = _rows(ask)
    edits = call_in_batches(cell, found.call, rows)
    undo = ""
    taken: tuple[str, ...] = ()
    if cell is ask.cell:
        source = ask.edit().edit(*edits).on_top(apply=True).source()
    else:
        whole = Editor(cell).edit(*edits).source()
        start, end = cell.start(owner), cell.end(owner)
        new = whole[start : end + len(whole) - len(cell.source)]
        source = ask.edit().on_top(*split_lines(new), "", apply=True).source()
        undo = cell.source[start:end]
        taken = (undo,)
    return Proposal(
        key=KEY,
        title=f"Call the model on {rows} {'sample' if rows == 1 else 'samples'} at a time in `{owner.name}`",
        source=source,
        original=ask.source,
        preserves="close numerics",
        caveats=("The changed cell needs tf_mem_magic.",),
        why=_WHY,
        undo=undo,
        taken_over=taken,
        answers_cause=True,
    )


def _rows(ask: Ask) -> int:
    """Give the samples of a call; refused where it was given no more at once."""
    diagnosis = ask.diagnosis
    samples = diagnosis.shape[0] if diagnosis is not None and diagnosis.shape else None
    if diagnosis is None or not samples:
        return ROWS
    fits = rows_that_fit(diagnosis, (diagnosis.requested or 0) / samples, _SHARE)
    rows = max(1, min(ROWS, ROWS if fits is None else fits))
    if samples <= rows:
        raise RefusedError(f"the callback calls the model on {samples} samples, and no fewer help")
    return rows


def _example(name: str, cell: str, expect: str, declined: bool = False, **more: Any) -> Example:
    situation = more.pop("situation", Situation("callback-call", "It ran out in `on_epoch_end` of a callback."))
    diagnosis = Diagnosis("GPU:0", line=cell.count("\n"), layer="Conv2D", situation=situation)
    here = "class " in cell
    ran_out = Frame("<cell>", 4, "on_epoch_end", True, True) if here else Frame("<old>", 3, "on_epoch_end", False, True)
    frames = (Frame("<cell>", 1, "<module>", True, True), ran_out)
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
        "calls no model on data",
        declined=True,
        earlier_cells=(_CLASS.replace("self.model(x_val, training=False)", "self.model.predict(x_val)"),),
    ),
    _example(
        "as in training",
        f"%%tfmem\n{_FIT}",
        "as in training",
        declined=True,
        earlier_cells=(_CLASS.replace("=False", "=True"),),
    ),
    _example(
        "a gradient is taken through the call",
        f"%%tfmem\n{_FIT}",
        "a gradient may be taken",
        declined=True,
        earlier_cells=(_CLASS.replace("        out =", "        with tf.GradientTape() as t: out ="),),
    ),
    _example(
        "it computes something else",
        f"%%tfmem\n{_FIT}",
        "no model that it calls",
        declined=True,
        situation=Situation("callback", "It ran out in `on_epoch_end` of a callback."),
    ),
    _example("an ordinary step", f"%%tfmem\n{_FIT}", "no callback", declined=True, situation=None),
)
