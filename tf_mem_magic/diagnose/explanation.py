"""The sentences of a diagnosis: what happened, where in the user's code, what was needed, and why there was no room."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Estimate
from tf_mem_magic.core.recording import Dump, Frame, Recording
from tf_mem_magic.core.units import Unit, brief_unit, duration, size
from tf_mem_magic.diagnose.breakdown import HOST, discarded, find_leftovers
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.diagnose.places import HOOK, at_top_level, is_cell_file
from tf_mem_magic.memory.pools.pool import GRANULE

_LONGEST_CODE = 100
_TRIFLE = 0.01
"""Share of what the cell left below which what earlier cells left is not worth a word."""

_LONGEST_LIST = 4
_MATTERS = 0.1
"""Share of the limit from which what earlier cells left is said beside another cause."""


@dataclass(frozen=True, slots=True)
class Lines:
    """``happened`` and ``place`` (None: unknown) are one sentence each, ``why`` the rest.

    ``of_size`` are those of ``why`` that tell what was asked for, and that it is too much by itself.
    """

    happened: str
    place: str | None
    why: tuple[str, ...]
    of_size: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All sentences, one a line."""
        return (self.happened, *((self.place,) if self.place else ()), *self.why)


def lines(
    recording: Recording,
    diagnosis: Diagnosis,
    frames: Sequence[Frame],
    role: str | None,
    dump: Dump | None,
    disguised: bool,
) -> Lines:
    """Explain a diagnosis; ``frames`` are the user's own, outermost first, ``role`` what the memory was for."""
    wanted, cause = needed(diagnosis, role, dump), _cause(recording, diagnosis)
    alone = "" if cause else _alone(diagnosis)
    why = (wanted, cause, alone, _different(recording.facts), _how_known(dump, disguised))
    return Lines(
        happened=_happened(recording, diagnosis.device, frames),
        place=place(recording.cell.source, frames, recording.cell.script),
        why=tuple(sentence for sentence in why if sentence),
        of_size=tuple(sentence for sentence in (wanted, alone) if sentence),
    )


def with_situation(lines: Lines, situation: Situation) -> Lines:
    """Say what was being made: in the place of what was needed where it tells that too, else after it."""
    if situation.kind not in _SAYS_THE_SIZE:
        return replace(lines, why=(*lines.why, situation.text))
    return replace(lines, why=(situation.text, *(one for one in lines.why if one not in lines.of_size)))


_SAYS_THE_SIZE = ("weight", "eager-data", "pipeline")
"""Situations whose own sentence says what was asked for, and how much of it there is."""


def is_in_pieces(dump: Dump, requested: int, limit: int | None = None) -> bool:
    """Say whether the pool had enough free bytes for a request, but not in one piece.

    With a ``limit``, what the pool had not taken from the device yet counts as free too.
    """
    free = _free(dump)
    if free is None or dump.largest_free is None:
        return False
    untaken = max(limit - dump.pool, 0) if limit is not None and dump.pool is not None else 0
    return free + untaken >= requested > max(dump.largest_free, untaken)


def place(source: str, frames: Sequence[Frame], script: str = "") -> str | None:
    """Say where in the user's code it happened; None where no frame is known.

    ``"Line 7 of your cell: model.fit(x, y)"``, ``"loop.py:88 in train_step, called from line 1 of your cell: …"``.
    ``script`` is the file's name where the source is no cell.
    """
    if not frames:
        return None
    last = frames[-1]
    outer = next((f for f in frames[:-1] if f.in_cell and (not last.in_cell or at_top_level(f))), None)
    if last.in_cell and not script:
        words = f"Line {last.line} of your cell"
    elif is_cell_file(last.file):
        words = f"Line {last.line} of an earlier cell"
    else:
        words = f"{_base(last.file)}:{last.line}"
    if not at_top_level(last):
        words += f" in {last.function}"
    if outer is not None:
        words += f", called from line {outer.line}" + ("" if last.in_cell else f" of {script or 'your cell'}")
    shown = last if last.in_cell else outer
    code = _code(source, shown.line) if shown else ""
    return f"{words}: {code}" if code else f"{words}."


def _base(file: str) -> str:
    return os.path.basename(file.replace(chr(92), "/"))


def _code(source: str, line: int) -> str:
    rows = source.splitlines()
    code = rows[line - 1].strip() if 0 < line <= len(rows) else ""
    return code if len(code) <= _LONGEST_CODE else code[: _LONGEST_CODE - 1] + "…"


def _happened(recording: Recording, device: str, frames: Sequence[Frame]) -> str:
    where = "of the machine itself" if device == HOST else f"on {device}"
    took = duration(recording.seconds)
    if recording.status == "killed":
        return f"The kernel died after {took}; memory {where} had run out."
    if recording.host_full is not None:
        return f"Interrupted after {took}{progress(recording.facts)}, before host memory ran out."
    memory = "Out of host memory" if device == HOST else f"Out of memory {where}"
    hook = next((f.function for f in reversed(frames) if HOOK.fullmatch(f.function)), None)
    if hook is not None and recording.facts.epochs_done is not None:
        return f"{memory} after {took}, in `{hook}` of a callback, epoch {recording.facts.epochs_done + 1}."
    return f"{memory} after {took}{progress(recording.facts)}."


def progress(facts: Facts) -> str:
    """Say how far the training was, as the end of a sentence; empty where that is unknown."""
    if facts.epochs_done is None:
        return ""
    epoch = f"epoch {facts.epochs_done + 1}"
    if facts.validating:
        return f", in the validation after {epoch}"
    if facts.steps_done is None:
        return f", in {epoch}"
    step = "the first step" if facts.steps_done == 0 else f"step {facts.steps_done + 1}"
    return f", in {step} of {epoch}"


def _different(facts: Facts) -> str:
    """Say what was different this time where steps before it had fitted; empty where none had, or nothing tells."""
    before = facts.steps_done or 0
    if facts.validating or facts.epochs_done is None or not (before or facts.epochs_done):
        return ""
    step = facts.step
    usual = next((seen.batch for seen in facts.batches if seen.method == "fit"), None)
    told = []
    if step is not None and step.length is not None:
        told.append(f"the samples of this batch are {step.length:,} long")
    if step is not None and step.data and usual is not None and step.data[0][0] not in (None, usual):
        told.append(f"this batch has {step.data[0][0]:,} samples instead of {usual:,}")
    if not told:
        return ""
    fitted = f"{before:,} steps before it fitted" if before > 1 else "what came before it fitted"
    return f"{fitted[0].upper()}{fitted[1:]}; {' and '.join(told)}."


def why_not_free(requested: int) -> str:
    """Say of free memory that was enough in all why it did not do, where nothing tells its pieces."""
    return "probably in smaller pieces" if requested > GRANULE else "given back by others after it was asked for"


def needed(diagnosis: Diagnosis, role: str | None = None, dump: Dump | None = None) -> str:
    """Say what was needed and what there was, in numbers that show why it failed."""
    requested, in_use, limit = diagnosis.requested, diagnosis.in_use, diagnosis.limit
    level = [value for value in (in_use, limit) if value is not None]
    unit = brief_unit(level)
    held = ""
    if in_use is not None:
        amount = f"{unit.text(in_use)} of {size(limit, unit)}" if limit is not None else size(in_use, unit)
        held = f"this process held {amount}" if diagnosis.device == HOST else f"{amount} were in use"
    if requested is None:
        return f"{held[0].upper()}{held[1:]}." if held else ""
    # A request of another order than the rest gets a unit of its own: "0.0 GiB" would tell nothing.
    own = unit if level and float(unit.text(requested)) and requested < 1000 * unit.size else brief_unit([requested])
    wanted = f"{_who(diagnosis, role)} needed {size(requested, own)} more{_shape(diagnosis)}"
    if in_use is not None and limit is not None:
        free = max(limit - in_use, 0)
        if diagnosis.device == HOST:
            held += ", and the system gave no more" if requested <= free else ""
        elif requested > free:
            held = f"{_of(free, own, limit, unit)} were free"
            held += ", not quite enough" if own.text(free) == own.text(requested) else ""
        elif dump is not None and is_in_pieces(dump, requested, limit):
            held = _pieces(dump, requested, free, own, limit)
        else:
            held = f"{_of(free, own, limit, unit)} were free, {why_not_free(requested)}"
    return f"{wanted}; {held}." if held else f"{wanted}."


def _pieces(dump: Dump, requested: int, free: int, unit: Unit, limit: int) -> str:
    """Say why free memory that was enough in all did not do: it was in pieces, or some of it not the pool's yet."""
    untaken = max(limit - dump.pool, 0) if dump.pool is not None else 0
    largest = dump.largest_free or 0
    unit = unit if unit.holds(free) else brief_unit([free])
    if untaken > largest:
        return f"{size(free, unit)} were free, {_amount(untaken, unit)} of them not yet taken from the device"
    if not largest:
        return f"{size(free, unit)} were free, not in one piece"
    most = "just under" if unit.text(largest) == unit.text(requested) else "at most"
    return f"{size(free, unit)} were free, in pieces of {most} {_amount(largest, unit)}"


def _of(value: int, own: Unit, limit: int, unit: Unit) -> str:
    """Give bytes beside a limit: in one unit where that tells something, else each in its own."""
    own = own if own.holds(value) else unit
    return f"{_amount(value, own) if own == unit else size(value, own)} of {size(limit, unit)}"


def _amount(value: int, unit: Unit) -> str:
    """Give bytes in a unit that stands beside; "none" rather than "0.0"."""
    return unit.text(value) if not value or float(unit.text(value)) else f"less than 0.1 {unit.name}"


def _who(diagnosis: Diagnosis, role: str | None) -> str:
    """Say what the memory was for, as the beginning of a sentence: ``"Activations of conv2d_4"``."""
    what = "it"
    if role in ("activations", "gradients"):
        what = f"{role} of {diagnosis.layer}"
    elif role == "input":
        what = "the input pipeline"
    elif role == "temporary":
        what = f"a temporary tensor of {diagnosis.layer or diagnosis.op}" if diagnosis.op else "a temporary tensor"
    elif diagnosis.jit:
        what = "a program that XLA compiled"
    elif diagnosis.layer:
        what = _layer(diagnosis.layer)
    elif diagnosis.op:
        what = f"the operation {diagnosis.op}"
    elif diagnosis.shape:
        what = "an array" if diagnosis.device == HOST else "a tensor"
    return what[:1].upper() + what[1:]


def _shape(diagnosis: Diagnosis) -> str:
    """Give the tensor's shape and type: ``" ([256,112,112,128] float32)"``, as TensorFlow's own errors write it."""
    shape = f"[{','.join(map(str, diagnosis.shape))}]" if diagnosis.shape else ""
    told = " ".join(part for part in (shape, diagnosis.dtype) if part)
    return f" ({told})" if told else ""


def _layer(name: str) -> str:
    """Name a layer that is known by its class (``"a Dense layer"``) or by its own name (``"the layer dense_1"``)."""
    if not name[:1].isupper():
        return f"the layer {name}"
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name} layer"


def _cause(recording: Recording, diagnosis: Diagnosis) -> str:
    if recording.host_full is not None:
        full = recording.host_full
        share = round(100 * full.used / full.limit)
        return f"{share} % of what it may use was taken: soon the system would have ended the kernel (--host-stop)."
    if diagnosis.cause == "other-process":
        return _others(recording, diagnosis.device)
    if diagnosis.cause == "leftovers":
        own = find_leftovers(recording, diagnosis.device).sure + discarded(recording, diagnosis.device)
        whole = expected(recording, diagnosis, Effect(released=own))
        too_much = whole is not None and diagnosis.limit is not None and whole.word(diagnosis.limit) == "no"
        return _left(recording, diagnosis.device, whole if too_much else None)
    return _left_beside(recording, diagnosis)


def _alone(diagnosis: Diagnosis) -> str:
    alone = diagnosis.larger_than_device and diagnosis.cause == "too-big"
    if not alone or diagnosis.requested is None:
        return ""
    total = diagnosis.requested + (diagnosis.in_use or 0)
    return f"That alone is more than the limit; with what was in use it comes to {size(total, brief_unit([total]))}."


def _others(recording: Recording, device: str) -> str:
    facts = recording.facts.device(device)
    others = sorted((facts.others if facts else None) or (), key=lambda other: -(other.bytes or 0))
    names = [f"pid {other.pid}" + (f", {other.user}" if other.user else "") for other in others]
    held = size(sum(other.bytes or 0 for other in others))
    return f"Other processes hold {held} of this card ({_listed(names)}): without them the request would have fitted."


def _left(recording: Recording, device: str, whole: Estimate | None = None) -> str:
    left, own = find_leftovers(recording, device), discarded(recording, device)
    unit = brief_unit([left.bytes, own])
    garbage = f"{size(own, unit)} were garbage: what this cell had made before and nothing uses any more."
    parts = []
    if left.names:
        parts.append(f"{size(left.named, unit)} in {_listed(left.names, ', ')}")
    if left.unnamed and not left.maybe_used:
        parts.append(f"{size(left.unnamed, unit)} for which no name was found")
    if own and (not parts or left.sure < _TRIFLE * own):
        return f"{garbage} Without that the request would have fitted."
    told = f"Earlier runs left {' and '.join(parts)} on {device}"
    if own:
        return f"{told}. {garbage} Without both the request would have fitted{_but(whole)}."
    return f"{told}: without that the request would have fitted{_but(whole)}."


def _but(whole: Estimate | None) -> str:
    """Say that the step needs more than the request that failed, where that is known."""
    return f", but not the whole step: about {size((whole.low + whole.high) // 2)}" if whole is not None else ""


def _left_beside(recording: Recording, diagnosis: Diagnosis) -> str:
    """Say what earlier cells left, where that is not the whole cause but a part of it that matters."""
    limit, in_use, requested = diagnosis.limit, diagnosis.in_use, diagnosis.requested
    if diagnosis.device == HOST or not limit or in_use is None or requested is None:
        return ""
    left = find_leftovers(recording, diagnosis.device)
    missing = in_use + requested - left.named - limit
    if not left.names or left.named < _MATTERS * limit or missing <= 0:
        return ""
    unit = brief_unit([left.named])
    return (
        f"Earlier runs left {size(left.named, unit)} in {_listed(left.names, ', ')}; without that {size(missing)} "
        "would still be missing."
    )


def _listed(names: Sequence[str], joint: str = "; ") -> str:
    more = len(names) - _LONGEST_LIST
    return joint.join(names[:_LONGEST_LIST]) + (f" and {more} more" if more > 0 else "")


def _how_known(dump: Dump | None, disguised: bool) -> str:
    if not disguised:
        return ""
    shown = "the allocator's dump does" if dump is not None else "the device was nearly full"
    return f"The error's own words do not speak of memory; {shown}."


def _free(dump: Dump) -> int | None:
    return dump.pool - dump.in_use if dump.pool is not None and dump.in_use is not None else None
