"""Outputs to host: what ``predict`` gives is kept in the computer's memory, part by part."""

from __future__ import annotations

import ast
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.diagnose.situation_data import alike
from tf_mem_magic.notebook.text.edits import argument
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import apply_is_free, device_memory, keras_3, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.remedies._engine.rows import rows_that_fit

KEY = "outputs-to-host"
TITLE = "Keep predictions in the computer's memory"
HELPS: tuple[SituationKind, ...] = ("outputs",)
GUARDS = (
    device_memory,
    python,
    keras_3,
    apply_is_free,
    situation(HELPS, "it was not the results of `predict` that filled the memory"),
)

_SHARE = 1 / 8
"""Share of the device's memory that the results of one part may take: Keras holds them twice when it joins them."""

_PASSED_ON = frozenset({"batch_size", "verbose", "callbacks"})
_WHY = "Keras keeps the results of all batches on the device until `predict` ends, and joins them there."


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where the results of `predict` filled the device, on arrays that can be cut into parts."""
    diagnosis = ask.diagnosis
    assert diagnosis is not None  # its guard
    calls = [c for c in ask.failing if called_name(c) == "predict" and isinstance(c.func, ast.Attribute)]
    if len(calls) != 1:
        raise RefusedError("the call of `predict` that ran out was not found in the cell")
    call = calls[0]
    assert isinstance(call.func, ast.Attribute)
    receiver = ask.cell.text(call.func.value)
    ask.model_of(call.func.value)
    given = _given(call)
    name = ask.cell.text(given)
    dataset = ask.facts.dataset(name) if ask.is_shared(given) else None
    if dataset is not None:
        title, told = "Predict a batch at a time", "No progress bar is shown."
        arguments = _of_dataset(dataset, call)
    else:
        data = _data(ask, given)
        rows, batch = _rows(ask.recording, diagnosis, data)
        if rows >= (data.shape or (0,))[0]:
            raise RefusedError(f"a part would be as large as all of `{name}`")
        rest = "".join(f", {k.arg}={ask.cell.text(k.value)}" for k in call.keywords if k.arg != "x")
        rest = f"{', batch_size=' + ask.cell.text(call.args[1]) if len(call.args) > 1 else ''}{rest}"
        title, arguments = f"Predict {rows} rows at a time", f"{name}, {rows}{rest}"
        told = f"The batches stay at {batch} rows{_progress(call)}."
    edit = ask.edit().replace(call, f"apply.predict_in_parts({receiver}, {arguments})")
    statement = ask.statement(call)
    return Proposal(
        key=KEY,
        title=title,
        source=edit.before(statement, apply=True).source(),
        original=ask.source,
        preserves="same results",
        caveats=(
            told,
            "The changed cell needs tf_mem_magic.",
        ),
        why=_WHY,
        answers_cause=True,
    )


def _progress(call: ast.Call) -> str:
    """Say that each part reports its progress, where it is not told to be quiet."""
    verbose = argument(call, "verbose", 2)
    quiet = isinstance(verbose, ast.Constant) and verbose.value in (0, "0")
    return "" if quiet else "; each part reports its progress on its own"


def _given(call: ast.Call) -> ast.expr:
    """Name what ``predict`` is called on; refuse where more is given than can be passed on."""
    given = [*call.args[:1], *(k.value for k in call.keywords if k.arg == "x")]
    if len(given) != 1 or not isinstance(given[0], (ast.Name, ast.Attribute, ast.Subscript)):
        raise RefusedError("what `predict` is given is no name, and no part of what a name holds")
    others = [k.arg or "**" for k in call.keywords if k.arg not in _PASSED_ON and k.arg != "x"]
    if others or len(call.args) > 2 or any(isinstance(one, ast.Starred) for one in call.args):
        raise RefusedError(f"`predict` is given more than its batch size ({', '.join(others) or 'by position'})")
    return given[0]


def _of_dataset(dataset: DatasetFacts, call: ast.Call) -> str:
    """Give the arguments for a dataset, each of whose batches is a part."""
    if dataset.kind != "tf.data" or dataset.cardinality is None:
        raise RefusedError(f"`{dataset.name}` is no dataset of `tf.data` that is known to end")
    if any(k.arg == "callbacks" for k in call.keywords) or len(call.args) > 1:
        raise RefusedError("`predict` is given callbacks, or a batch size beside a dataset")
    return dataset.name


def _data(ask: Ask, given: ast.expr) -> NamedValue:
    """Give the array that is predicted; refuse where it is none."""
    value = ask.value_of(given)
    if value is None or not value.shape:
        raise RefusedError(f"`{ask.cell.text(given)}` is no array whose rows are known")
    return value


def _rows(recording: Recording, diagnosis: Diagnosis, data: NamedValue) -> tuple[int, int]:
    """Give the rows of a part, a multiple of the batch, and the batch."""
    batch = next((seen.batch for seen in recording.facts.batches if seen.method == "predict"), 32)
    rows = (data.shape or (1,))[0]
    most = rows_that_fit(diagnosis, _bytes_a_row(recording, diagnosis, rows, batch), _SHARE)
    return (max((most or 0) // batch, 1) * batch, batch)


def _bytes_a_row(recording: Recording, diagnosis: Diagnosis, rows: int, batch: int) -> float:
    """Give what the results of a row take, as far as it is known; rather too much, so that a part surely fits.

    With several outputs what failed is one of them, and what is in use is of all that were computed.
    """
    shape, in_use = diagnosis.shape or (), diagnosis.in_use or 0
    if shape and shape[0] == rows:  # they were joined: all rows were computed
        return max(diagnosis.requested or 0, in_use) / rows
    held = alike(recording, diagnosis)
    done = min(held[0] * batch, rows) if held is not None else batch
    return in_use / done


def _example(name: str, cell: str, expect: str, declined: bool = False, **more: Any) -> Example:
    situation = more.pop("situation", Situation("outputs", "`predict` keeps the results of all batches on GPU:0."))
    diagnosis = Diagnosis(
        "GPU:0",
        requested=400 << 19,
        shape=(400, 128, 128, 8),
        op="ConcatV2",
        line=2,
        limit=300 << 20,
        situation=situation,
    )
    given: dict[str, Any] = {
        "models": (ModelFacts("model"),),
        "values": (NamedValue("x", 400 * 12288, "numpy.ndarray", shape=(400, 32, 32, 3), dtype="float32"),),
        "batches": (BatchSeen("predict", 4, "arrays"),),
    }
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, **{**given, **more})


_PREDICT = "%%tfmem\npred = model.predict(x, batch_size=4, verbose=0)\n"
_IMPORT = "%%tfmem\nfrom tf_mem_magic import apply\n"

EXAMPLES: tuple[Example, ...] = (
    _example(
        "many large results",
        _PREDICT,
        _IMPORT + "pred = apply.predict_in_parts(model, x, 72, batch_size=4, verbose=0)\n",
    ),
    _example(
        "the batch by position, in an expression",
        "%%tfmem\nbest = model.predict(x, 4).argmax(-1)\n",
        _IMPORT + "best = apply.predict_in_parts(model, x, 72, batch_size=4).argmax(-1)\n",
    ),
    _example(
        "a dataset",
        "%%tfmem\npred = model.predict(ds, verbose=0)\n",
        _IMPORT + "pred = apply.predict_in_parts(model, ds)\n",
        datasets=(DatasetFacts("ds", batch=4, cardinality=150),),
    ),
    _example(
        "a dataset without an end",
        "%%tfmem\npred = model.predict(ds, verbose=0)\n",
        "known to end",
        datasets=(DatasetFacts("ds", batch=4),),
        declined=True,
    ),
    _example(
        "a dataset and callbacks",
        "%%tfmem\npred = model.predict(ds, callbacks=[c])\n",
        "is given callbacks",
        datasets=(DatasetFacts("ds", batch=4, cardinality=150),),
        declined=True,
    ),
    _example("something else", _PREDICT.replace("(x", "(z"), "`z` is no array", declined=True),
    _example(
        "a part of a dict",
        _PREDICT.replace("(x", "(data['x']"),
        _IMPORT + "pred = apply.predict_in_parts(model, data['x'], 72, batch_size=4, verbose=0)\n",
        inputs=(NamedValue("data['x']", 400 * 12288, "numpy.ndarray", shape=(400, 32, 32, 3), dtype="float32"),),
    ),
    _example("a part of an array", _PREDICT.replace("(x", "(x[:9]"), "`x[:9]` is no array", declined=True),
    _example("an expression", _PREDICT.replace("(x", "(x / 255"), "no part of what a name holds", declined=True),
    _example("steps", _PREDICT.replace("verbose=0", "steps=9"), "more than its batch size (steps)", declined=True),
    _example("an ordinary batch", _PREDICT, "not the results of `predict`", declined=True, situation=None),
    _example("not a model", _PREDICT.replace("model.", "net."), "`net` is not known", declined=True),
    _example("in a function", "%%tfmem\npred = run(model)\n", "call of `predict`", declined=True),
    _example(
        "one batch is all",
        _PREDICT,
        "as large as all",
        declined=True,
        batches=(BatchSeen("predict", 400, "arrays"),),
    ),
)
