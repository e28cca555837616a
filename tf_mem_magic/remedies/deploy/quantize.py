"""Quantize: a copy of a model with its weights in a few bits, in a cell of its own, for inference."""

from __future__ import annotations

import re

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts, release
from tf_mem_magic.core.proposals import Choice, Context, Example, Proposal, RefusedError
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.core.units import brief_unit
from tf_mem_magic.diagnose.breakdown import deployable
from tf_mem_magic.notebook.samples import calls_of, find_sample
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.remedies._engine.guards import apply_is_free, keras_since, python
from tf_mem_magic.remedies._engine.question import Ask, remedy
from tf_mem_magic.report.measures import amount

KEY = "quantize"
TITLE = "Quantize"
GUARDS = (keras_since(3, 12), python, apply_is_free)
AFTER_SUCCESS = True


_LITE_TESTED = (2, 21)
"""The oldest TensorFlow whose TensorFlow Lite was seen to convert convolutions rightly: 2.16 does not."""

_LEAST = 0.1
"""Share of the weights' bytes below which what quantizing saves is not worth a cell."""

_INFERENCE = frozenset({"predict", "evaluate", "predict_on_batch", "test_on_batch"})
_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
_CAVEATS = (
    "Outputs change a little: the new cell prints by how much, on up to 32 samples.",
    "The copy is for predictions; it is not trained further. The memory of the model's own weights comes back only "
    "when you let go of the model.",
    "The peak of `predict` may fall less than the weights, or rise: a layer widens its weights again when it is "
    "called. Measured on the CPU: 37 → 26 MiB for equal dense layers, 39 → 39 for a transformer, 33 → 41 where one "
    "layer holds nearly all. Not measured on a GPU.",
    "The new cell imports tf_mem_magic.",
)
_LITE_CAVEATS = (
    "Outputs change a little: the new cell prints by how much, on up to 32 samples.",
    "The result runs in TensorFlow Lite, not in Keras.",
    "The converter starts TensorFlow once more in a process of its own, which takes some seconds.",
    "The new cell imports tf_mem_magic.",
)
_INT4_NOTE = "smaller, but less exact; on the CPU its predictions took up to 4 times the memory of the model's own"
_LITE_NOTE = "for phones and other small devices; the converter runs in a process of its own"


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it for the model whose inference ran out of memory, or which a cell that went well is about."""
    if ask.recording.status == "ok":
        return _after_success(ask.context, ask.cell)
    model = _ran_out(ask)
    reason = _why_not_int8(model)
    if reason:
        raise RefusedError(reason)
    _check_helps(model, ask.diagnosis)
    return _int8(ask.context, ask.cell, model)


def _after_success(context: Context, cell: PythonCell) -> Proposal:
    models = deployable(context.recording)
    if not models:
        raise RefusedError("the cell does not work on a Keras model")
    model = next((m for m in models if not _why_not_int8(m)), models[0])
    reason, lite_reason = _why_not_int8(model), _why_not_lite(model, context.recording.facts)
    if reason and lite_reason:
        raise RefusedError(reason)
    facts = context.recording.facts
    sample = find_sample(cell, model.name, facts)
    lite = _lite_source(model, sample, _free_name(model, "tflite", facts, cell))
    if reason:
        return Proposal(
            key=KEY,
            title=f"Convert `{model.name}` to TensorFlow Lite (int8 weights)",
            source=lite,
            original=context.cell.source,
            preserves="close numerics",
            caveats=(*_LITE_CAVEATS, *_sample_caveat(sample)),
            why=f"Keras itself cannot help here: {reason}.",
            new_cell=True,
        )
    others = [Choice("int4", _source(model, "int4", sample, _free_name(model, "int4", facts, cell)), _INT4_NOTE)]
    others += [] if lite_reason else [Choice("TensorFlow Lite (int8 weights)", lite, _LITE_NOTE)]
    return _int8(context, cell, model, tuple(others))


def _int8(context: Context, cell: PythonCell, model: ModelFacts, choices: tuple[Choice, ...] = ()) -> Proposal:
    facts = context.recording.facts
    sample = find_sample(cell, model.name, facts)
    after = model.weight_bytes - model.quantizable * 3 // 4
    unit = brief_unit([model.weight_bytes])
    return Proposal(
        key=KEY,
        title=f"Quantize a copy of `{model.name}` to int8",
        source=_source(model, "int8", sample, _free_name(model, "int8", facts, cell)),
        original=context.cell.source,
        preserves="close numerics",
        caveats=(*_CAVEATS, *_sample_caveat(sample)),
        why=f"Weights {unit.text(model.weight_bytes)} → about {amount(after, unit)}, computed; the new cell measures.",
        choices=choices,
        new_cell=True,
    )


def _ran_out(ask: Ask) -> ModelFacts:
    """Find the model whose inference ran out of memory."""
    if ask.line is None:
        raise RefusedError("it is not known which line ran out of memory, and it helps inference only")
    if ask.host_ran_out:
        raise RefusedError("the computer's own memory ran out, and weights are a small part of that")
    for model in [m for m in ask.facts.models if not m.local]:
        for call in calls_of(ask.cell, model.name):
            if call in ask.failing:
                if getattr(call.func, "attr", "") in _INFERENCE:
                    return model
                raise RefusedError("it makes a trained model smaller, not its training, which is what ran out here")
    if ask.gradients:
        raise RefusedError(f"it makes a trained model smaller for inference, and `{ask.gradients}` is what ran out")
    if ask.inference:
        raise RefusedError(f"`{ask.inference}` ran out of memory, and of which model it was called is not followed")
    raise RefusedError("it helps where `predict` or `evaluate` ran out of memory, and here that is not known")


def _check_helps(model: ModelFacts, diagnosis: Diagnosis | None) -> None:
    """Refuse where what is saved, less what widening the largest weight takes, is not what was missing."""
    saved = max(model.quantizable * 3 // 4 - model.widest, 0)
    needed = diagnosis.requested if diagnosis is not None else None
    if needed is None:
        raise RefusedError("it is not known how much more memory was needed, so neither whether smaller weights help")
    if saved < needed:
        unit = brief_unit([saved, needed])
        raise RefusedError(
            f"it would save {amount(saved, unit)} at most while the model predicts, and {amount(needed, unit)} more "
            "were needed"
        )


def _why_not_int8(model: ModelFacts) -> str:
    """Say why Keras cannot quantize a copy of the model; empty: it can."""
    if not model.weight_bytes:
        return f"`{model.name}` has no weights yet"
    if model.dtype_policy.startswith("mixed_") or "float16" in model.dtype_policy:
        return f"`{model.name}` computes in 16 bits ({model.dtype_policy}), which was not tested with quantized weights"
    if not model.quantizable:
        return (
            f"`{model.name}` has no layer with float32 weights that Keras can quantize (Dense, EinsumDense, Embedding)"
        )
    if model.quantizable * 3 // 4 < _LEAST * model.weight_bytes:
        share = round(100 * model.quantizable / model.weight_bytes)
        return f"only {share} % of `{model.name}`'s weights are in layers that Keras can quantize"
    if not model.copyable:
        return (
            f"Keras cannot make a copy of `{model.name}`: it, or a layer in it, is a class of its own that does not "
            "describe itself (get_config)"
        )
    return ""


def _why_not_lite(model: ModelFacts, facts: Facts) -> str:
    """Say why TensorFlow Lite is not offered; empty: it is."""
    if release(facts.tensorflow) < _LITE_TESTED:
        return f"TensorFlow Lite was tested with TensorFlow {_LITE_TESTED[0]}.{_LITE_TESTED[1]} and later"
    if not model.weight_bytes:
        return f"`{model.name}` has no weights yet"
    if model.dtype_policy != "float32":
        return f"`{model.name}` does not compute in float32 throughout"
    if not model.copyable:
        return f"`{model.name}` is no functional or sequential model, which is what was tested"
    if _RECURRENT & set(model.layers):
        return f"`{model.name}` has recurrent layers, which TensorFlow Lite does not convert by itself"
    return ""


def _free_name(model: ModelFacts, ending: str, facts: Facts, cell: PythonCell) -> str:
    """Make a name for the result that neither the notebook's cells nor the kernel know."""
    stem = re.sub(r"\W+", "_", model.name).strip("_")
    names = [f"{stem}_{ending}", *(f"{stem}_{ending}_{n}" for n in range(2, 100))]
    held = (*(m.name for m in facts.models), *(d.name for d in facts.datasets), *(v.name for v in facts.values))
    told = "\n".join((cell.source, *facts.earlier_cells, *held))
    return next(name for name in names if not re.search(rf"{name}(?!\w)", told))


def _source(model: ModelFacts, mode: str, sample: str | None, name: str) -> str:
    given = f", sample={sample}" if sample else ""
    return (
        f"%%tfmem\n# A copy with {mode} weights, for predictions; {model.name} itself stays as it is.\n"
        f'from tf_mem_magic import apply\n{name} = apply.quantize({model.name}, "{mode}"{given})'
    )


def _lite_source(model: ModelFacts, sample: str | None, name: str) -> str:
    given = f", sample={sample}" if sample else ""
    return (
        f"%%tfmem\n# {model.name} as a TensorFlow Lite model with int8 weights; {model.name} itself stays as it is.\n"
        f"from tf_mem_magic import apply\n{name} = apply.tflite({model.name}{given})\n"
        f'# To keep it: open("{name}.tflite", "wb").write({name})'
    )


def _sample_caveat(sample: str | None) -> tuple[str, ...]:
    if sample:
        return ()
    return ("The data of the cell has no name that the new cell could use: add `sample=` to have the error measured.",)


_MIB = 1 << 20
_MODEL = ModelFacts(
    "model", ("Dense",), "Adam", weight_bytes=36 * _MIB, quantizable=36 * _MIB, steps=8, copyable=True, widest=6 * _MIB
)
_FIT = "%%tfmem\nmodel.fit(x, y, batch_size=64)"
_PREDICT = "%%tfmem\nscores = model.predict(x, batch_size=512)"


def _known(
    source: str,
    *models: ModelFacts,
    status: str = "ok",
    line: int | None = None,
    requested: int | None = None,
    keras: str = "3.15.1",
    earlier: tuple[str, ...] = (),
) -> Context:
    cell = Cell(source)
    facts = Facts("2.21.0", keras, True, models=models, earlier_cells=earlier)
    diagnosis = None if status == "ok" else Diagnosis("GPU:0", requested, line=line)
    return Context(cell, Recording(cell, status=status, facts=facts), diagnosis)  # type: ignore[arg-type]


def _expected(sample: str = ", sample=x", name: str = "model_int8") -> str:
    return (
        "%%tfmem\n# A copy with int8 weights, for predictions; model itself stays as it is.\n"
        f'from tf_mem_magic import apply\n{name} = apply.quantize(model, "int8"{sample})'
    )


EXAMPLES: tuple[Example, ...] = (
    Example("a model that was trained", _known(_FIT, _MODEL), _expected()),
    Example("a name that is taken", _known(_FIT, _MODEL, earlier=("model_int8 = 3",)), _expected(name="model_int8_2")),
    Example("data without a name", _known("%%tfmem\nmodel.fit(load(), y)", _MODEL), _expected(sample="")),
    Example(
        "predictions that ran out of memory",
        _known(_PREDICT, _MODEL, status="oom", line=2, requested=20 * _MIB),
        _expected(),
    ),
    Example(
        "layers that only TensorFlow Lite makes smaller",
        _known(_FIT, ModelFacts("model", ("Conv2D",), weight_bytes=_MIB, copyable=True)),
        "%%tfmem\n# model as a TensorFlow Lite model with int8 weights; model itself stays as it is.\n"
        "from tf_mem_magic import apply\nmodel_tflite = apply.tflite(model, sample=x)\n"
        '# To keep it: open("model_tflite.tflite", "wb").write(model_tflite)',
    ),
    Example("a training that ran out", _known(_FIT, _MODEL, status="oom", line=2), "not its training", declined=True),
    Example(
        "activations that fill the memory",
        _known(_PREDICT, _MODEL, status="oom", line=2, requested=200 * _MIB),
        "21.0 MiB at most while the model predicts, and 200 MiB more were needed",
        declined=True,
    ),
    Example(
        "a subclassed model",
        _known(_FIT, ModelFacts("model", ("Dense",), weight_bytes=_MIB, quantizable=_MIB)),
        "Keras cannot make a copy",
        declined=True,
    ),
    Example(
        "mixed precision",
        _known(_FIT, ModelFacts("model", dtype_policy="mixed_float16", weight_bytes=_MIB, quantizable=_MIB)),
        "computes in 16 bits",
        declined=True,
    ),
    Example("no model", _known("%%tfmem\nx = 1"), "does not work on a Keras model", declined=True),
    Example("an older Keras", _known(_FIT, _MODEL, keras="3.3.3"), "tested with Keras 3.12", declined=True),
    Example(
        "a name of one's own",
        _known(_FIT, _MODEL, earlier=("def apply(f): ...",)),
        "uses the name `apply`",
        declined=True,
    ),
)
