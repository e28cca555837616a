"""Data, results and single samples that do not fit, whatever the batch."""

from __future__ import annotations

import re
from math import prod

from tf_mem_magic.core.diagnosis import OF_STEP, Diagnosis, Situation
from tf_mem_magic.core.recording import Dump, Frame, Recording
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.data.arrays import asked_for, copied_whole
from tf_mem_magic.diagnose.situation_keys import CREATES, HELD, ROOM, RUNS_MODELS

_GRAPH = re.compile(r"/|^__inference|^(?:Stateful)?PartitionedCall")
_OF_A_MODEL = re.compile(r"^(?:__call__|call|forward)$|(?:^|_)(?:train|step|loss)(?:_|$)")
"""Functions of the user's that by their name are a model, a layer, or a step of training."""

_TO_DEVICE = re.compile(r"_EagerConst|^Const$|_Recv|_HostRecv|CopyToDevice")
_LARGE = 0.1
"""Share of the limit from which one result is what did not fit; a smaller one only met a device that others fill."""

MATTERS = 0.1
"""Share of the limit that such arrays take, from which a person is told of them."""

MOST = 0.5
"""Share of the limit from which they are told of, and not the small weight that was being made beside them."""

_NO_STEP = 0.1
"""Share of the limit below which what the step holds is not what filled the device."""

_TOLD = 2
"""Arrays that a sentence names."""

_CONVERTS = frozenset({"convert_to_eager_tensor", "convert_to_tensor", "_constant_eager_impl", "from_tensor_slices"})


def constant(diagnosis: Diagnosis, frames: list[Frame]) -> Situation | None:
    """Find an array that was copied to the device as a whole before anything was computed with it."""
    if not diagnosis.device.startswith("GPU"):
        return None
    converts = any(f.function in _CONVERTS for f in frames) and not any(f.function in RUNS_MODELS for f in frames)
    named = _TO_DEVICE.search(diagnosis.op or "") is not None
    if not (converts and (named or not diagnosis.op)):
        return None
    slices = any(f.function in ("from_tensor_slices", "from_tensors") for f in frames)
    what = "`from_tensor_slices` copies the whole array" if slices else "The whole array was copied"
    needs = f" ({size(diagnosis.requested, brief_unit([diagnosis.requested]))})" if diagnosis.requested else ""
    return Situation(
        "constant",
        f"{what}{needs} to {diagnosis.device} before the first step.",
        helps=ROOM if diagnosis.cause == "other-process" else (*HELD, "other-gpu"),
        reason="it ran out while an array was copied to the device as a whole, which this does not change",
    )


def whole_arrays(
    recording: Recording, diagnosis: Diagnosis, dump: Dump | None, share: float = MATTERS
) -> Situation | None:
    """Find arrays that fill at least ``share`` of the memory as a whole, whatever the batch; None: they do not."""
    limit = diagnosis.limit or diagnosis.in_use
    if not limit:
        return None
    found = list(copied_whole(recording, dump, diagnosis.device))
    wanted = asked_for(recording, diagnosis.requested, diagnosis.device, diagnosis.shape)
    found += [wanted] if wanted is not None else []
    total, taken = sum(one.bytes for one in found), sum(one.taken for one in found)
    if taken < share * limit:
        return None
    method = next(seen.method for seen in recording.facts.batches if seen.source == "arrays")
    unit = brief_unit([total])
    told = ", ".join(f"{f'`{one.name}`, ' if one.name else ''}{list(one.shape)} {one.dtype}" for one in found[:_TOLD])
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    stays = sum(part.bytes for part in diagnosis.breakdown if part.kind in OF_STEP and part.kind != "rounding")
    # What was asked for in vain is of the step too, unless it was one of the arrays.
    stays += 0 if wanted is not None else diagnosis.requested or 0
    variables = sum(part.bytes for part in diagnosis.breakdown if part.kind in ("weights", "optimizer"))
    alone = stays < _NO_STEP * limit and variables < taken
    return Situation(
        "arrays",
        f"`{method}` copies the arrays that it is given to {diagnosis.device} as a whole ({told}{more}): "
        f"{size(total, unit)}, whatever the batch.",
        "Give Keras batches of them instead: a generator, a `keras.utils.PyDataset`, or `apply.stream`.",
        helps=HELD if alone else None,
        reason="it is whole arrays that fill the memory, and they take the same with this",
    )


def outputs(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find a ``predict`` whose results fill the device: Keras keeps those of all batches and joins them at the end."""
    batches = {seen.batch for seen in recording.facts.batches if seen.method == "predict"}
    if not batches or {seen.method for seen in recording.facts.batches} != {"predict"}:
        return None
    shape = diagnosis.shape or ()
    joining = (diagnosis.op or "").startswith("Concat") and bool(shape) and shape[0] > max(batches)
    if joining and diagnosis.requested:
        needs = f"are joined there: {list(shape)} {diagnosis.dtype or ''}".rstrip()
        needs += f", {size(diagnosis.requested, brief_unit([diagnosis.requested]))} once more"
    else:
        held = alike(recording, diagnosis)
        if held is None:
            return None
        count, each = held
        needs = f"fill it: {count} of {size(each, brief_unit([each]))} each so far"
    return Situation(
        "outputs",
        f"`predict` keeps the results of all batches on {diagnosis.device}, and they {needs}.",
        "Predict some of the rows at a time: the results then lie in the computer's memory.",
        helps=ROOM,
        reason="it is the results of `predict` that fill the memory, and they take the same with this",
    )


def pipeline(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find a pipeline of ``tf.data`` that holds many elements at once: a shuffle buffer, a cache, a long queue."""
    if not diagnosis.device.startswith("CPU") or all(_DRAWS.search(one.message) is None for one in recording.errors):
        return None
    held = alike(recording, diagnosis)
    if held is None:
        return None
    count, each = held
    return Situation(
        "pipeline",
        f"The data pipeline holds {count:,} tensors of {size(each, brief_unit([each]))} each: a shuffle buffer, a "
        "cache or a queue of `tf.data` fills it.",
        "Shuffle before the data are loaded or made large, or in a smaller buffer; put a cache into a file.",
        "data.shuffle(1000)  # instead of as many as there are samples",
        helps=ROOM,
        reason="it is elements that the data pipeline holds which fill the memory, and they take the same with this",
    )


_DRAWS = re.compile(r"\bIteratorGetNext\b|__IteratorGetNext_")

_ALIKE = 8
"""Chunks of one size from which they are taken for as many elements, or results of as many batches."""

_MOST_ALIKE = 0.5
"""Share of the bytes in use that they must hold before they are what filled the device."""


def alike(recording: Recording, diagnosis: Diagnosis, least: int = _ALIKE) -> tuple[int, int] | None:
    """Give number and size of equal chunks that hold most of the memory; None where there are none."""
    chunks = [chunk for dump in recording.dumps[-1:] for chunk in dump.chunks]
    if not chunks or not diagnosis.in_use:
        return None
    requested, _, count = max(chunks, key=lambda chunk: chunk[0] * chunk[2])
    return (count, requested) if count >= least and requested * count >= _MOST_ALIKE * diagnosis.in_use else None


_JOINED = 0.9
"""Share of what entries hold from which one request for a joining operation is for all of them."""


def joins(diagnosis: Diagnosis, held: int) -> str:
    """Give NumPy's function for what ran out, where that joined entries which hold so many bytes; empty: it did not."""
    if (diagnosis.requested or 0) < _JOINED * held:
        return ""
    op = diagnosis.op or ""
    return "np.stack" if op.startswith("Pack") else "np.concatenate" if op.startswith("Concat") else ""


def jacobian(diagnosis: Diagnosis) -> Situation | None:
    """Find a Jacobian whose rows are computed side by side (TensorFlow's ``pfor``)."""
    if not re.search(r"(?:^|/)pfor(?:/|$)", diagnosis.op or ""):
        return None
    # A tile is the one row put side by side; other operations may hold rows and samples in one axis.
    rows = diagnosis.shape[0] if diagnosis.shape and _TILES.search(diagnosis.op or "") else 0
    many = f" ({rows:,} of them)" if rows > 1 else ""
    return Situation(
        "jacobian",
        f"The rows of a Jacobian{many} are computed at once, each by a backward pass of its own.",
        "Compute them one after the other, or for fewer samples at a time.",
        "jac = tape.jacobian(y, x, experimental_use_pfor=False)  # with tf.GradientTape(persistent=True)",
        helps=ROOM,
        reason="it is the rows of a Jacobian, all at once, that fill the memory",
    )


_TILES = re.compile(r"(?:^|/)pfor/Tile(?:_\d+)?$")


def one_sample(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find inference or training that ran out on a single sample, of which no batch takes less."""
    methods = {seen.method for seen in recording.facts.batches}
    shape, op = diagnosis.shape or (), diagnosis.op or ""
    if not methods:
        return _few_pictures(recording, diagnosis)
    if diagnosis.layer is None or len(shape) < 3 or shape[0] != 1:
        return None
    values = f"{' × '.join(map(str, shape[1:]))} values in one layer"
    if methods <= {"predict", "evaluate"} and "gradient" not in op:
        return Situation(
            "one-sample",
            f"One sample alone needs it ({values}): no batch takes less.",
            "Give the model the picture in tiles that overlap, or compute this call on the CPU.",
            rules_out=("smaller-batch", "accumulate-gradients"),
            reason="it is one sample that does not fit, and no batch takes less",
        )
    if {seen.batch for seen in recording.facts.batches} != {1}:
        return None
    pairs = len(shape) >= 3 and shape[-1] == shape[-2] > 1
    shorter = "shorter: half the length takes a quarter of that" if pairs else "smaller"
    return Situation(
        "one-sample",
        f"One sample alone needs it ({values}), with what is kept of the other layers for its gradients.",
        f"Cut the samples into parts, or make them {shorter}. Both make other training data.",
        rules_out=("smaller-batch", "accumulate-gradients"),
        reason="it is one sample that does not fit, and no batch takes less",
    )


_FEW, _SIDE, _PICTURES = 3, 16, 0.2
"""Pictures that are no batch; pixels of a side from which values are a picture's, no kernel's; their share of the bytes
in use from which they matter."""


def _few_pictures(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find a step of the notebook's own that computes one picture, or a few side by side, and has no batch."""
    step = recording.facts.step
    if step is None or not diagnosis.in_use or (step.batch is not None and step.batch > 1):
        return None
    values = [row for row in diagnosis.layers if row.shape is not None and len(row.shape) == 4]
    pictures = [row for row in values if row.shape is not None and min(row.shape[1:3]) >= _SIDE]
    if sum(row.bytes for row in pictures) < _PICTURES * diagnosis.in_use:
        return None
    largest = max(pictures, key=lambda row: row.bytes // row.count)
    count, height, width, *_ = largest.shape or (0, 0, 0)
    if not 0 < count <= _FEW:
        return None
    who = {1: "One picture alone needs it", 2: "Two pictures at once need it"}.get(
        count, "Three pictures at once need it"
    )
    return Situation(
        "one-sample",
        f"{who} ({height} × {width} × {(largest.shape or (0,))[-1]} values in one layer), with what is kept of the "
        "other layers for the gradients.",
        "Make the pictures smaller: half the height and half the width take about a quarter of that.",
        rules_out=("smaller-batch", "accumulate-gradients") if count == 1 else (),
        reason="it is one picture that does not fit, and no batch takes less",
    )


def eager(recording: Recording, diagnosis: Diagnosis, frames: list[Frame]) -> Situation | None:
    """Find one operation on all rows at once, outside any model, training step or graph."""
    functions = {f.function for f in frames}
    outside = functions & (RUNS_MODELS | {"gradient", "apply_gradients", "minimize", "build", "_initialize"} | CREATES)
    in_layer = any(re.search(r"keras/src/(?:layers|models)/", f.file.replace("\\", "/")) for f in frames)
    shape = diagnosis.shape or ()
    if not diagnosis.op or _GRAPH.search(diagnosis.op) or outside or in_layer or len(shape) < 2:
        return None
    if recording.facts.batches or recording.facts.epochs_done is not None:
        return None  # inside one of Keras's methods, whose own frames the error leaves out
    if (diagnosis.requested or 0) < _LARGE * (diagnosis.limit or 0):
        return None
    if any(f.function == "__call__" and "polymorphic" in f.file for f in frames):
        return None
    step = recording.facts.step
    if (step is not None and step.function) or any(f.is_user and _OF_A_MODEL.search(f.function) for f in frames):
        return None  # a graph, or what a model of one's own computes of a batch
    needs = (
        size(diagnosis.requested, brief_unit([diagnosis.requested])) if diagnosis.requested else "more than was free"
    )
    advice, code = _instead(recording, diagnosis)
    return Situation(
        "eager-data",
        f"The result of one operation on all rows, {list(shape)} {diagnosis.dtype or ''}".rstrip() + f", is {needs}.",
        advice,
        code,
        helps=ROOM,
        reason="it ran out in an operation on the data, outside any model, which this does not change",
    )


def one_hot_in_host(diagnosis: Diagnosis, frames: list[Frame]) -> Situation | None:
    """Find labels that Keras was making one-hot in the computer's own memory."""
    shape = diagnosis.shape or ()
    if len(shape) < 2 or not any(f.function == "to_categorical" for f in frames):
        return None
    needs = f" of {size(diagnosis.requested)}" if diagnosis.requested else ""
    advice, code = _SPARSE
    return Situation(
        "eager-data",
        f"`to_categorical` makes an array{needs}: {shape[-1]:,} numbers for each of {prod(shape[:-1]):,} labels.",
        advice.format(prod(shape)),
        code,
    )


_SPARSE = (
    "Keep the integer labels: a sparse loss needs no one-hot copy of {:,} numbers.",
    'model.compile(optimizer, loss="sparse_categorical_crossentropy")  # with the integer labels',
)


def _instead(recording: Recording, diagnosis: Diagnosis) -> tuple[str, str]:
    """Say how to do without a result for all rows at once, by the operation."""
    shape = diagnosis.shape or ()
    if diagnosis.op == "OneHot":
        return _SPARSE[0].format(prod(shape)), _SPARSE[1]
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
