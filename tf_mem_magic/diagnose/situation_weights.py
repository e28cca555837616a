"""Weights and the optimizer's values that do not fit, or that fill the device."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.recording import Frame, Recording
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.situation_keys import CREATES, ROOM

_INITIALIZES = frozenset(
    "StatelessRandomUniformV2 StatelessRandomNormalV2 StatelessTruncatedNormalV2 StatelessParameterizedTruncatedNormal "
    "Fill ZerosLike OnesLike Qr QR".split()
)
"""Operations by which Keras's initializers make the first values of a weight."""

_UPDATE = re.compile(r"(?:^|/)(?:Assign(?:Add|Sub)?VariableOp|Resource(?:Sparse)?Apply\w+?)(?:_\d+)?$")

LITTLE = 0.05
"""Share of the limit below which what may depend on the batch is nothing that matters (weights and slots fill it)."""

_WIDE = 10_000
"""Inputs of a dense layer from which a picture was surely flattened into it."""

_LAYER = re.compile(r"\b(Dense|Embedding|LSTM|GRU|SimpleRNN|Conv[123]D)\(\s*(?:units=|filters=|input_dim=)?(\d[\d_]*)")
_RANKS = {"Dense": 2, "Embedding": 2, "LSTM": 2, "GRU": 2, "SimpleRNN": 2, "Conv1D": 3, "Conv2D": 4, "Conv3D": 5}
"""Layers by the axes of their kernel; a recurrent layer's is wider than its units, and is not told by them."""


def weight_made(recording: Recording, diagnosis: Diagnosis, frames: list[Frame]) -> Situation | None:
    """Find a weight, or a value of the optimizer, that was being made.

    Keras leaves its own frames out of the traceback, so what remains has to tell: its initializers draw stateless
    random numbers or fill with a constant, in ``keras/src/backend`` or while a layer is built.
    """
    paths = [(f.file.replace("\\", "/"), f.function) for f in frames]
    by_keras = any("keras/src/" in path and not path.endswith("traceback_utils.py") for path, _ in paths)
    op = diagnosis.op or ""
    building = recording.facts.building
    made = building is not None or any(f in CREATES for _, f in paths) or op in ("VarHandleOp", "VariableV2")
    if building is not None and diagnosis.shape is None:
        # Keras lost the error itself, and went on without the weight.
        diagnosis = replace(diagnosis, shape=building.shape, dtype=diagnosis.dtype or building.dtype)
    if not made and not (by_keras and op in _INITIALIZES):
        return None
    if any("/optimizers/" in path for path, _ in paths):
        text = f"It ran out while the optimizer's own values were made{_each(diagnosis)}."
        reason = "it ran out while the optimizer's own values were made, and those do not shrink with this"
        return Situation("slots", text, helps=ROOM, reason=reason)
    owner = _owner(recording, diagnosis)
    if building is not None:
        article = "an" if building.kind[:1] in "AEIOU" else "a"
        owner = f"`{building.name}`" + (f" ({article} {building.kind} layer)" if building.kind else "")
    named = building.weight if building is not None else ""
    what = f"The {named or 'kernel'} of {owner}" if named or len(diagnosis.shape or ()) > 1 else f"A weight of {owner}"
    alone = f"{what}{_described(diagnosis)}"
    if diagnosis.larger_than_device and diagnosis.limit is not None:
        text = f"{alone}, which is more than the device has ({size(diagnosis.limit, brief_unit([diagnosis.limit]))})."
    else:
        text = f"{alone}, and it was being made."
    advice, code = _smaller_weight(recording, diagnosis, owner)
    helps: tuple[str, ...] = ("other-gpu",) if diagnosis.larger_than_device else ROOM
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


@lru_cache(maxsize=4096)
def _layers_in(text: str) -> frozenset[tuple[str, int]]:
    return frozenset((kind, int(number.replace("_", ""))) for kind, number in _LAYER.findall(text))


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


def filled_by_weights(diagnosis: Diagnosis) -> Situation | None:
    """Find weights and the optimizer's values that fill the device by themselves, where one of them was updated."""
    if diagnosis.in_use is None or not diagnosis.limit:
        return None
    parts = dict.fromkeys(("weights", "optimizer"), 0)
    moving = 0
    for part in diagnosis.breakdown:
        if part.kind in parts:
            parts[part.kind] += part.bytes
        elif part.kind not in ("values", "arrays", "earlier", "garbage"):
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
    return Situation("weights-fill", text, helps=ROOM, reason=reason)


def _like_a_weight(diagnosis: Diagnosis) -> bool:
    """Whether it was the gradient of a dense kernel that was asked for: its tensor has no batch."""
    return bool(diagnosis.op and "gradient_tape" in diagnosis.op and "MatMul" in diagnosis.op and diagnosis.shape)
