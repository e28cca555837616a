"""What was being made when memory ran out, where that decides which remedies can help at all."""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.recording import Frame, Recording
from tf_mem_magic.core.units import brief_unit, size

CREATES = frozenset({"add_weight", "add_variable", "add_variable_from_reference", "_initialize_with_initializer"})
"""Functions of Keras that make variables."""

_INITIALIZES = frozenset(
    "StatelessRandomUniformV2 StatelessRandomNormalV2 StatelessTruncatedNormalV2 StatelessParameterizedTruncatedNormal "
    "Fill ZerosLike OnesLike Qr QR".split()
)
"""Operations by which Keras's initializers make the first values of a weight."""

_UPDATE = re.compile(r"(?:^|/)(?:Assign(?:Add|Sub)?VariableOp|Resource(?:Sparse)?Apply\w+?)(?:_\d+)?$")
_GRAPH = re.compile(r"/|^__inference|^(?:Stateful)?PartitionedCall")
_TO_DEVICE = re.compile(r"_EagerConst|^Const$|_Recv|_HostRecv|CopyToDevice")
_CONVERTS = frozenset({"convert_to_eager_tensor", "convert_to_tensor", "_constant_eager_impl", "from_tensor_slices"})
_RUNS_MODELS = frozenset(
    "fit evaluate predict train_on_batch test_on_batch predict_on_batch fit_generator evaluate_generator "
    "predict_generator".split()
)

LITTLE = 0.05
"""Share of the limit below which what may depend on the batch is nothing that matters (weights and slots fill it)."""

_HELD = ("free-leftovers", "collect-garbage", "close-sessions")
"""Remedies that release what earlier code holds."""

_ROOM = (*_HELD, "memory-growth", "device-limit", "other-gpu", "async-allocator")
"""Remedies that make room without changing what is computed."""

GROWN = 0.25
"""Share of the bytes in use that a list must hold before it is what filled the device."""

_WIDE = 10_000
"""Inputs of a dense layer from which a picture was surely flattened into it."""


def find_situation(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Tell what was being made when memory ran out; None where that rules nothing out.

    It is read from the frames of the error (which of Keras's functions was making something), from the operation and
    the shape that the error names, and from the parts of the bytes in use.
    """
    if diagnosis.device == "host" or diagnosis.cause == "host" or diagnosis.jit:
        return None
    frames = [frame for error in recording.errors for frame in error.frames]
    for found in (
        _variable(recording, diagnosis, frames),
        _growing(recording, diagnosis),
        _filled_by_weights(diagnosis),
        _constant(diagnosis, frames),
        _one_sample(recording, diagnosis),
        _eager(recording, diagnosis, frames),
    ):
        if found is not None:
            return found
    return None


def _variable(recording: Recording, diagnosis: Diagnosis, frames: list[Frame]) -> Situation | None:
    """Find a weight, or a value of the optimizer, that was being made.

    Keras leaves its own frames out of the traceback, so what remains has to tell: its initializers draw stateless
    random numbers or fill with a constant, in ``keras/src/backend`` or while a layer is built.
    """
    paths = [(f.file.replace("\\", "/"), f.function) for f in frames]
    by_keras = any("keras/src/" in path and not path.endswith("traceback_utils.py") for path, _ in paths)
    op = diagnosis.op or ""
    made = any(function in CREATES for _, function in paths) or op in ("VarHandleOp", "VariableV2")
    if not made and not (by_keras and op in _INITIALIZES):
        return None
    if any("/optimizers/" in path for path, _ in paths):
        text = f"It ran out while the optimizer's own values were made{_each(diagnosis)}."
        reason = "it ran out while the optimizer's own values were made, and those do not shrink with this"
        return Situation("slots", text, helps=("lighter-optimizer", *_ROOM), reason=reason)
    owner = _owner(recording, diagnosis)
    what = f"The kernel of {owner}" if len(diagnosis.shape or ()) > 1 else f"A weight of {owner}"
    alone = f"{what}{_described(diagnosis)}"
    if diagnosis.larger_than_device and diagnosis.limit is not None:
        text = f"{alone}, which is more than the device has ({size(diagnosis.limit, brief_unit([diagnosis.limit]))})."
    else:
        text = f"{alone}, and it was being made."
    advice, code = _smaller_weight(recording, diagnosis, owner)
    helps: tuple[str, ...] = ("other-gpu",) if diagnosis.larger_than_device else _ROOM
    reason = "it ran out while a weight was made, and weights take the same with this"
    return Situation("weight", text, advice, code, helps, reason=reason)


def _each(diagnosis: Diagnosis) -> str:
    if diagnosis.requested is None:
        return ""
    return f": {size(diagnosis.requested, brief_unit([diagnosis.requested]))} for one more"


def _described(diagnosis: Diagnosis) -> str:
    """Give shape and size of what was asked for: ``", [131072, 1024] float32, alone needs 512 MiB"``."""
    shape = f", {list(diagnosis.shape)} {diagnosis.dtype or ''}".rstrip() + "," if diagnosis.shape else ""
    needs = (
        size(diagnosis.requested, brief_unit([diagnosis.requested])) if diagnosis.requested else "more than was free"
    )
    return f"{shape} alone needs {needs}"


def _owner(recording: Recording, diagnosis: Diagnosis) -> str:
    """Name the kind of layer that has such a weight, where the notebook's text has exactly one of that width."""
    shape = diagnosis.shape or ()
    texts = (recording.cell.source, *recording.facts.earlier_cells)
    written = {layer for text in texts for layer in _layers_in(text)}
    found = {
        (kind, number)
        for kind, number in written
        if shape and len(shape) == _RANKS[kind] and number == (shape[0] if kind == "Embedding" else shape[-1])
    }
    if len(found) != 1:
        return "a layer"
    kind, units = found.pop()
    return f"the layer `{kind}({units}, …)`"


_LAYER = re.compile(r"\b(Dense|Embedding|LSTM|GRU|SimpleRNN|Conv[123]D)\(\s*(?:units=|filters=|input_dim=)?(\d[\d_]*)")


@lru_cache(maxsize=4096)
def _layers_in(text: str) -> frozenset[tuple[str, int]]:
    return frozenset((kind, int(number.replace("_", ""))) for kind, number in _LAYER.findall(text))


_RANKS = {"Dense": 2, "Embedding": 2, "LSTM": 2, "GRU": 2, "SimpleRNN": 2, "Conv1D": 3, "Conv2D": 4, "Conv3D": 5}
"""Layers by the axes of their kernel; a recurrent layer's is wider than its units, and is not told by them."""


def _smaller_weight(recording: Recording, diagnosis: Diagnosis, owner: str) -> tuple[str, str]:
    """Say what makes such a weight smaller, with lines to copy where the notebook shows the usual reason."""
    shape = diagnosis.shape or ()
    texts = (recording.cell.source, *recording.facts.earlier_cells)
    flattened = any("Flatten(" in text for text in texts)
    if "Embedding" not in owner and len(shape) == 2 and shape[0] >= _WIDE and flattened:
        advice = (
            f"`Flatten` hands all {shape[0]:,} values of a sample to a Dense layer: pool them first, or use fewer "
            "units. Both make another model."
        )
        return advice, "layers.GlobalAveragePooling2D(),  # in the place of layers.Flatten()"
    if "Embedding" in owner and len(shape) == 2:
        return f"Fewer entries than {shape[0]:,}, or vectors shorter than {shape[1]:,}: both make another model.", ""
    if len(shape) >= 2:
        return f"Fewer units than {shape[-1]:,}, or a smaller input to this layer: both make another model.", ""
    return "", ""


def _growing(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find a list or dict that a loop filled with tensors until the device was full."""
    held = [one for one in recording.facts.grown if one.device == diagnosis.device and one.after > one.before + 1]
    if not held or not diagnosis.in_use:
        return None
    most = max(held, key=lambda one: one.bytes)
    if most.bytes < GROWN * diagnosis.in_use:
        return None
    unit = brief_unit([diagnosis.in_use])
    text = (
        f"`{most.name}` went from {most.before:,} to {most.after:,} entries in this cell, and its tensors hold "
        f"{unit.text(most.bytes)} of the {size(diagnosis.in_use, unit)} in use."
    )
    advice = f"Keep numbers instead of tensors in `{most.name}`, or only their sum or mean."
    code = f"{most.name}.append(value.numpy())  # in the computer's memory; or float(value) for a single number"
    reason = f"`{most.name}` fills the memory with tensors, round by round, and would with this too"
    return Situation("growing", text, advice, code, ("list-to-host", *_ROOM), reason=reason)


def _filled_by_weights(diagnosis: Diagnosis) -> Situation | None:
    """Find weights and the optimizer's values that fill the device by themselves, where one of them was updated."""
    if diagnosis.in_use is None or not diagnosis.limit:
        return None
    parts = dict.fromkeys(("weights", "optimizer"), 0)
    moving = 0
    for part in diagnosis.breakdown:
        if part.kind in parts:
            parts[part.kind] += part.bytes
        elif part.kind not in ("values", "earlier", "garbage"):
            moving += part.bytes
    held = sum(parts.values())
    updating = _UPDATE.search(diagnosis.op or "") is not None
    if moving >= LITTLE * diagnosis.limit or held < diagnosis.in_use / 2 or not (updating or _like_a_weight(diagnosis)):
        return None
    unit = brief_unit([diagnosis.limit])
    text = (
        f"Weights ({unit.text(parts['weights'])}) and the optimizer's values ({unit.text(parts['optimizer'])}) fill "
        f"{unit.text(held)} of {size(diagnosis.limit, unit)}: a smaller batch frees nothing."
    )
    reason = (
        f"weights and the optimizer's values fill the device, and only {size(moving, brief_unit([moving]))} depend on "
        "what this changes"
    )
    return Situation("weights-fill", text, helps=("lighter-optimizer", *_ROOM), reason=reason)


def _like_a_weight(diagnosis: Diagnosis) -> bool:
    """Whether it was the gradient of a dense kernel that was asked for: its tensor has no batch."""
    return bool(diagnosis.op and "gradient_tape" in diagnosis.op and "MatMul" in diagnosis.op and diagnosis.shape)


def _constant(diagnosis: Diagnosis, frames: list[Frame]) -> Situation | None:
    """Find an array that was copied to the device as a whole before anything was computed with it."""
    if not diagnosis.device.startswith("GPU"):
        return None
    converts = any(f.function in _CONVERTS for f in frames) and not any(f.function in _RUNS_MODELS for f in frames)
    named = _TO_DEVICE.search(diagnosis.op or "") is not None
    if not (converts and (named or not diagnosis.op)):
        return None
    slices = any(f.function in ("from_tensor_slices", "from_tensors") for f in frames)
    what = "`from_tensor_slices` copies the whole array" if slices else "The whole array was copied"
    needs = f" ({size(diagnosis.requested, brief_unit([diagnosis.requested]))})" if diagnosis.requested else ""
    return Situation(
        "constant",
        f"{what}{needs} to {diagnosis.device} before the first step.",
        helps=("keep-on-host", *(_ROOM if diagnosis.cause == "other-process" else (*_HELD, "other-gpu"))),
        reason="it ran out while an array was copied to the device as a whole, which this does not change",
    )


def _one_sample(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find inference that ran out on a single sample, of which no batch takes less."""
    methods = {seen.method for seen in recording.facts.batches}
    shape, op = diagnosis.shape or (), diagnosis.op or ""
    infers = bool(methods) and methods <= {"predict", "evaluate"} and "gradient" not in op
    if not infers or diagnosis.layer is None or len(shape) < 3 or shape[0] != 1:
        return None
    return Situation(
        "one-sample",
        f"One sample alone needs it ({' × '.join(map(str, shape[1:]))} values in one layer): no batch takes less.",
        "Give the model the picture in tiles that overlap, or compute this call on the CPU.",
        rules_out=("smaller-batch", "accumulate-gradients"),
        reason="it is one sample that does not fit, and no batch takes less",
    )


def _eager(recording: Recording, diagnosis: Diagnosis, frames: list[Frame]) -> Situation | None:
    """Find one operation on all rows at once, outside any model, training step or graph."""
    functions = {f.function for f in frames}
    outside = functions & (_RUNS_MODELS | {"gradient", "apply_gradients", "minimize", "build", "_initialize"} | CREATES)
    in_layer = any(re.search(r"keras/src/(?:layers|models)/", f.file.replace("\\", "/")) for f in frames)
    shape = diagnosis.shape or ()
    if not diagnosis.op or _GRAPH.search(diagnosis.op) or outside or in_layer or len(shape) < 2:
        return None
    if any(f.function == "__call__" and "polymorphic" in f.file for f in frames):
        return None
    needs = (
        size(diagnosis.requested, brief_unit([diagnosis.requested])) if diagnosis.requested else "more than was free"
    )
    advice, code = _instead(recording, diagnosis)
    return Situation(
        "eager-data",
        f"The result of one operation on all rows, {list(shape)} {diagnosis.dtype or ''}".rstrip() + f", is {needs}.",
        advice,
        code,
        helps=("rows-in-chunks", "cpu-offload", "keep-on-host", *_ROOM),
        reason="it ran out in an operation on the data, outside any model, which this does not change",
    )


def _instead(recording: Recording, diagnosis: Diagnosis) -> tuple[str, str]:
    """Say how to do without a result for all rows at once, by the operation."""
    shape = diagnosis.shape or ()
    if diagnosis.op == "OneHot":
        return (
            f"Keep the integer labels: a sparse loss needs no one-hot copy of {prod(shape):,} numbers.",
            'model.compile(optimizer, loss="sparse_categorical_crossentropy")  # with the integer labels',
        )
    if len(shape) >= 3 and shape[0] == shape[1] and shape[0] > 1:
        return (
            f"All {shape[0]:,} × {shape[1]:,} pairs are held with {prod(shape[2:]):,} values each: compute some rows "
            "of them at a time, and keep only what is reduced.",
            _pairs(recording, shape),
        )
    return (f"Do it for a few of the {shape[0]:,} rows at a time, or in the data set's `.map`, after `.batch`.", "")


def _pairs(recording: Recording, shape: tuple[int, ...]) -> str:
    """Write the squared distances of all pairs in rows, where the name of the array is known."""
    wanted = (shape[0], *shape[2:])
    names = [value.name for value in recording.facts.values if value.shape == wanted and value.name.isidentifier()]
    if len(names) != 1 or len(shape) != 3:
        return ""
    x = names[0]
    step = max(1, min(128, shape[0] // 8))
    return (
        f"rows = range(0, len({x}), {step})\n"
        f"parts = [tf.reduce_sum(({x}[i : i + {step}, None] - {x}[None]) ** 2, -1) for i in rows]\n"
        "distances = tf.concat(parts, 0)"
    )
