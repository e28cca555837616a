"""What was being made when memory ran out, where that decides which remedies can help at all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.recording import Dump, Frame, Recording
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.breakdown import models_in_containers
from tf_mem_magic.diagnose.places import HOOK, tape_around_loop
from tf_mem_magic.diagnose.situation_data import (
    MOST,
    alike,
    constant,
    eager,
    jacobian,
    joins,
    one_hot_in_host,
    one_sample,
    outputs,
    pipeline,
    whole_arrays,
)
from tf_mem_magic.diagnose.situation_keys import ROOM
from tf_mem_magic.diagnose.situation_weights import filled_by_weights, weight_made

GROWN = 0.25
"""Share of the bytes in use that a list must hold before it is what filled the device."""


def find_situation(recording: Recording, diagnosis: Diagnosis, dump: Dump | None = None) -> Situation | None:
    """Tell what was being made when memory ran out; None where that rules nothing out.

    It is read from the frames of the error (which of Keras's functions was making something), from the operation and
    the shape that the error names, from the parts of the bytes in use, and from the chunks of ``dump``.
    """
    frames = [frame for error in recording.errors for frame in error.frames]
    if diagnosis.device == "host" or diagnosis.cause == "host":
        return one_hot_in_host(diagnosis, frames)
    if diagnosis.jit:
        return None
    filling, kept = _kept(recording, diagnosis)
    for found in (
        kept if filling > (diagnosis.requested or 0) else None,
        whole_arrays(recording, diagnosis, dump, MOST),
        weight_made(recording, diagnosis, frames),
        kept,
        filled_by_weights(diagnosis),
        jacobian(diagnosis),
        constant(diagnosis, frames),
        pipeline(recording, diagnosis),
        _callback(diagnosis, frames),
        outputs(recording, diagnosis),
        _validation(recording, diagnosis),
        _one_tape(recording, diagnosis),
        _in_pieces(recording, diagnosis),
        one_sample(recording, diagnosis),
        whole_arrays(recording, diagnosis, dump),
        eager(recording, diagnosis, frames),
    ):
        if found is not None:
            return found
    return None


def _kept(recording: Recording, diagnosis: Diagnosis) -> tuple[int, Situation | None]:
    """Find the list or dict that filled the device; of one with tensors and one with models that which holds more.

    The bytes that it holds are given too: a list of models runs out while a further one is built as often as in its
    training, and the small weight that was being made then is not what filled the device.
    """
    found = (_growing(recording, diagnosis), _models_kept(recording, diagnosis))
    return max((one for one in found if one is not None), key=lambda one: one[0], default=(0, None))


def _growing(recording: Recording, diagnosis: Diagnosis) -> tuple[int, Situation] | None:
    """Find a list or dict that a loop filled with tensors until the device was full, and the bytes of these."""
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
    if joined := joins(diagnosis, most.bytes):
        advice = f"Keep NumPy arrays in `{most.name}`, and join them in the computer's memory."
        code = f"{most.name}.append(value.numpy()); then {joined}({most.name})"
    helps = (*ROOM, "cpu-offload") if joined else ROOM
    reason = f"`{most.name}` fills the memory with tensors, round by round, and would with this too"
    return most.bytes, Situation("growing", text, advice, code, helps, reason=reason, holder=most.name)


def _validation(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find a validation that needs more than the training, which had fitted."""
    facts = recording.facts
    if not facts.validating:
        return None
    batches = {seen.method: seen.batch for seen in facts.batches}
    trained, validated = batches.get("fit"), batches.get("evaluate")
    sizes = f", in batches of {validated:,} where training takes {trained:,}" if _differ(trained, validated) else ""
    return Situation(
        "validation",
        f"The training of this epoch fitted; its validation needs more{sizes}.",
        rules_out=("accumulate-gradients", "rematerialize", "freeze-base-layers"),
        reason="it ran out in the validation, where nothing is kept for gradients: the training itself fitted",
    )


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _callback(diagnosis: Diagnosis, frames: Sequence[Frame]) -> Situation | None:
    """Find a callback that computes something of its own beside the training."""
    hook = next((f.function for f in reversed(frames) if f.is_user and HOOK.fullmatch(f.function)), None)
    if hook is None:
        return None
    direct = diagnosis.layer is not None and "/" not in (diagnosis.op or "")
    advice, code = (
        (
            "There a model is called on all samples at once: `predict` takes some at a time.",
            "self.model.predict(data, batch_size=32, verbose=0)  # in the place of self.model(data)",
        )
        if direct
        else ("Compute it there for fewer samples at a time.", "")
    )
    return Situation(
        "callback-call" if direct else "callback",
        f"It ran out in `{hook}` of a callback, beside the training, which itself fitted.",
        advice,
        code,
        rules_out=(
            "smaller-batch",
            "accumulate-gradients",
            "rematerialize",
            "freeze-base-layers",
            "graph-mode",
            "mixed-precision",
            "lighter-optimizer",
        ),
        reason=f"it ran out in `{hook}` of a callback, and the training itself fitted",
    )


def _models_kept(recording: Recording, diagnosis: Diagnosis) -> tuple[int, Situation] | None:
    """Find a list or dict that holds the models which the cell made, one after the other, and their bytes."""
    held = models_in_containers(recording.facts, diagnosis.device)
    if not held or not diagnosis.in_use:
        return None
    name, sizes = max(held.items(), key=lambda entry: sum(entry[1]))
    if len(sizes) < _MODELS or sum(sizes) < GROWN * diagnosis.in_use:
        return None
    unit = brief_unit([diagnosis.in_use])
    told = Situation(
        "models-kept",
        f"`{name}` keeps {len(sizes)} models of this cell, with their optimizers: {unit.text(sum(sizes))} of the "
        f"{size(diagnosis.in_use, unit)} in use.",
        f"Keep in `{name}` what the models measured, or their weights, and let go of each before the next is made.",
        f"{name}{_filled(recording.cell.source, name)}  # in the computer's memory",
        ROOM,
        reason=f"`{name}` fills the memory with models, one after the other, and would with this too",
        holder=name,
    )
    return sum(sizes), told


def _filled(source: str, name: str) -> str:
    """Write how the weights of a model go where the cell puts the model."""
    in_dict = re.search(rf"\b{re.escape(name)}\[([^\]\n]+)\]\s*=[^=]", source)
    return f"[{in_dict[1]}] = model.get_weights()" if in_dict else ".append(model.get_weights())"


_MODELS = 3
"""Models in a list from which it is what grew."""


def _one_tape(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find a gradient tape that records all rounds of a loop: it keeps the activations of each of them."""
    if "gradient" in (diagnosis.op or "") or not tape_around_loop(recording.cell.source, diagnosis.line):
        return None
    if alike(recording, diagnosis, _ROUNDS) is None:
        return None
    return Situation(
        "one-tape",
        "One gradient tape records all rounds of the loop, and keeps the activations of each until the end.",
        "Open the tape inside the loop and take the gradients of each batch there; added up, they are the same.",
        "for batch in data:\n    with tf.GradientTape() as tape:\n        loss = loss_of(batch)\n"
        "    gradients = tape.gradient(loss, model.trainable_variables)  # add them up, or apply them here",
        helps=ROOM,
        reason="one gradient tape keeps the activations of all rounds of the loop, and does so with this too",
    )


_ROUNDS = 3
"""Equal chunks from which a tape has surely kept those of several rounds."""


def _in_pieces(recording: Recording, diagnosis: Diagnosis) -> Situation | None:
    """Find a pool that lies in pieces since a run before this one ran out of memory."""
    requested, in_use, limit = diagnosis.requested, diagnosis.in_use, diagnosis.limit
    if not recording.failed_before or diagnosis.cause != "fragmentation" or in_use is None or not limit:
        return None
    if requested is None or in_use > _MOSTLY_FREE * limit:
        return None
    device = recording.facts.device(diagnosis.device)
    # A pool that grows on demand is made of pieces in a fresh kernel too: others, and fewer of them.
    whole = device is not None and device.growth is False
    unit = brief_unit([limit])
    return Situation(
        "in-pieces",
        f"{unit.text(limit - in_use)} of {size(limit, unit)} are free, but in pieces, and a run of this kernel ran out "
        f"before. A fresh kernel begins {'with one piece' if whole else 'without them'}.",
    )


_MOSTLY_FREE = 0.5
"""Share of the limit in use up to which it is the pieces, and not the step itself, that leave no room."""
