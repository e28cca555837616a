"""Distill: a narrower student learns from the trained model, in a cell of its own."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording, Status
from tf_mem_magic.core.tag import TAG
from tf_mem_magic.notebook.fit_call import FitCall, check_data, find_fit, free_names
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.guards import keras_since, no_strategy, python
from tf_mem_magic.remedies._engine.question import INFERENCE, Ask, remedy

KEY = "distill"
TITLE = "Distill"
AFTER_SUCCESS = True

_TESTED = (3, 12)
"""The oldest Keras that this was tested with."""

_LEFT_OUT = ("callbacks", "initial_epoch", "verbose", "validation_freq")
_WHY = (
    "Layers half as wide have up to four times fewer weights. The student learns from the data and from what the model "
    "says of them."
)
_CAVEATS = (
    "The student is another model, and may be less good: the new cell prints the results of both.",
    "A student may do as well without a teacher: `hard=1.0` trains it on the data alone, to compare.",
    "It trains anew for as many epochs as your `fit` has, and meanwhile both models take memory.",
    "The model itself stays as it is; its memory comes back only when you let go of it.",
    "The temperature (4) and the share of the data's own loss (0.1) are common first choices, not tuned for your data.",
    "All of the student's weights are new: frozen or pretrained ones are not taken over.",
    "Measured on the CPU, not on a GPU.",
    "The new cell imports tf_mem_magic.",
)


@remedy(KEY, TITLE, (python,))
def propose(ask: Ask) -> Proposal:
    """Offer a cell that trains a narrower student of the model which the cell trained with ``fit``."""
    cell, facts = ask.cell, ask.facts
    if ask.recording.status != "ok":
        _check_inference(ask)
    if "apply.distill" in cell.source:
        raise RefusedError("this cell distills already")
    keras_since(*_TESTED)(ask)
    no_strategy(ask)
    fit = find_fit(cell, facts)
    if fit.model.no_student is None:
        raise RefusedError(f"it is not known how `{fit.model.name}` is made")
    if fit.model.no_student:
        raise RefusedError(fit.model.no_student)
    check_data(fit, facts, cell, _LEFT_OUT)
    return Proposal(
        KEY,
        f"Distill `{fit.model.name}` into a student of half its width",
        _new_cell(fit, facts, cell),
        ask.source,
        "nothing",
        caveats=_caveats(fit),
        why=_WHY,
        new_cell=True,
    )


def _check_inference(ask: Ask) -> None:
    """Refuse after an out-of-memory, unless it was inference that failed: a smaller model needs less there."""
    if ask.line is None:
        raise RefusedError("it is not known which line ran out of memory, and a student helps inference only")
    if ask.host_ran_out:
        raise RefusedError("the computer's own memory ran out, and a model is a small part of that")
    if not {called_name(call) for call in ask.failing} & INFERENCE:
        raise RefusedError("it is for inference, and it was not inference that ran out of memory")


def _new_cell(fit: FitCall, facts: Facts, cell: PythonCell) -> str:
    name = fit.model.name
    student, history = free_names(cell, facts, "apply.distill", f"{name}_student", "distillation")
    kept = [(word, ast.unparse(node)) for word, node in fit.given.items() if word not in _LEFT_OUT]
    arguments = [text if word in ("x", "y") else f"{word}={text}" for word, text in kept]
    lines = (
        TAG,
        "from tf_mem_magic import apply",
        "",
        f"# A new model like `{name}`, half as wide inside, learns from it; `{name}` itself stays as it is.",
        f"{student} = apply.narrower({name}, 0.5)",
        f"{history} = apply.distill({name}, {student}, {', '.join([*arguments, 'temperature=4.0', 'hard=0.1'])})",
        "",
    )
    return cell.newline.join(lines)


def _caveats(fit: FitCall) -> tuple[str, ...]:
    caveats = list(_CAVEATS)
    if "validation_data" not in fit.given:
        caveats.append("There are no validation data, so results are those on the data that it trains on.")
    if "callbacks" in fit.given:
        caveats.append("The callbacks of your `fit` are left out.")
    if fit.model.schedule is not None:
        caveats.append("The learning-rate schedule begins anew.")
    if "BatchNormalization" in fit.model.layers:
        caveats.append("BatchNormalization gets its own statistics in the student; the model's stay as they are.")
    return tuple(caveats)


_MODEL = ModelFacts("model", ("Dense",), steps=8, form="sequential", no_student="")
_IN_CELL = """%%tfmem
from tf_mem_magic import apply

# A new model like `model`, half as wide inside, learns from it; `model` itself stays as it is.
model_student = apply.narrower(model, 0.5)
distillation = apply.distill(model, model_student, {0}, temperature=4.0, hard=0.1)
"""


def _known(
    source: str, model: ModelFacts = _MODEL, status: Status = "ok", line: int | None = None, keras: str = "3.15.1"
) -> Context:
    facts = Facts(
        "2.21.0",
        keras,
        True,
        models=(model,),
        datasets=(DatasetFacts("ds", batch=32, cardinality=10), DatasetFacts("rows", "generator")),
        earlier_cells=("import keras",),
        repeatable=("x", "y", "x_val", "y_val", "ds"),
    )
    cell = Cell(source)
    diagnosis = None if status == "ok" else Diagnosis("GPU:0", line=line)
    return Context(cell, Recording(cell, status=status, facts=facts), diagnosis)


_FIT = "%%tfmem\nmodel.fit(x, y, batch_size=64, epochs=5, verbose=0)\n"
_THEN = _FIT + "out = model.predict(x_val)\n"

EXAMPLES: tuple[Example, ...] = (
    Example("arrays", _known(_FIT), _IN_CELL.format("x, y, batch_size=64, epochs=5")),
    Example(
        "validation data",
        _known("%%tfmem\nh = model.fit(x, y, validation_data=(x_val, y_val), callbacks=[stop])"),
        _IN_CELL.format("x, y, validation_data=(x_val, y_val)"),
    ),
    Example("a dataset", _known("%%tfmem\nmodel.fit(ds, epochs=8)\n"), _IN_CELL.format("ds, epochs=8")),
    Example("inference ran out", _known(_THEN, status="oom", line=3), _IN_CELL.format("x, y, batch_size=64, epochs=5")),
    Example("training ran out", _known(_THEN, status="oom", line=2), "it was not inference", declined=True),
    Example("a line not known", _known(_THEN, status="oom"), "not known which line", declined=True),
    Example(
        "a structure that cannot be narrowed",
        _known(_FIT, replace(_MODEL, no_student="the model holds another model")),
        "holds another model",
        declined=True,
    ),
    Example("a structure not known", _known(_FIT, replace(_MODEL, no_student=None)), "how `model` is", declined=True),
    Example("no training", _known(_FIT, replace(_MODEL, steps=0)), "trained no Keras model", declined=True),
    Example("a generator", _known("model.fit(rows, steps_per_epoch=9)"), "only once", declined=True),
    Example("an older Keras", _known(_FIT, keras="3.3.3"), "tested with Keras 3.12", declined=True),
)
