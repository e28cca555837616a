"""From a recording to what ran out, where in the user's code, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tf_mem_magic.core.diagnosis import Cause, Diagnosis
from tf_mem_magic.core.recording import Dump, ErrorText, Frame, Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.diagnose import explanation
from tf_mem_magic.diagnose.breakdown import HOST, break_down, discarded, find_leftovers
from tf_mem_magic.diagnose.chunks import take_apart
from tf_mem_magic.diagnose.data.arrays import copied_whole, with_arrays
from tf_mem_magic.diagnose.dump import device_of, newest_dump
from tf_mem_magic.diagnose.errortext import TextFacts
from tf_mem_magic.diagnose.oom import find_oom
from tf_mem_magic.diagnose.places import in_comprehension
from tf_mem_magic.diagnose.situation import find_situation

WAIT = 10.0
"""Seconds that TensorFlow's allocator waits for memory before it gives up: its bytes in use stay as they are then."""

WORTH_NAMING = 0.05
"""Leftovers below this share of the limit are not called the cause, even where just they were missing."""

FULL_POOL = 0.9
"""With this share of the limit in use the pool is full: that the little left lies in pieces is not called the cause."""

FULL_HOST = 0.9
"""A process that dies with this share of its memory limit in use ran out of it."""


def diagnose(recording: Recording) -> Diagnosis | None:
    """Explain a run that ran out of memory.

    Returns
    -------
    Diagnosis or None
        None unless the status is ``oom``, or ``killed`` and something shows that memory had run out: an allocator's
        dump, ``std::bad_alloc`` on stderr, or the host's memory at its limit.
    """
    if recording.status == "oom" and recording.host_full is not None:
        frames = _own(recording.errors[0]) if recording.errors else ()
        return _explain(recording, HOST, TextFacts(), frames, disguised=False)
    if recording.status == "oom":
        found = find_oom(recording.errors, recording.facts, recording.dumps)
        if found is not None:
            device = _device(recording, found.device)
            return _explain(recording, device, found.text, _user_frames(recording, found.error), found.disguised)
    elif recording.status != "killed":
        return None
    shown = _evidence(recording)
    frames = _last_calls(recording) if recording.status == "killed" else ()
    return _explain(recording, shown, TextFacts(), frames, disguised=False) if shown else None


def last_seen(recording: Recording) -> str | None:
    """Say where the code of a kernel that died was when it was last seen; None where that is unknown."""
    frames = _last_calls(recording) if recording.status == "killed" else ()
    return explanation.place(recording.cell.source, _as_shown(recording, frames))


def _last_calls(recording: Recording) -> tuple[Frame, ...]:
    return _own(recording.errors[0]) if recording.errors else ()


def _as_shown(recording: Recording, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Count lines as a person does: from the cell's first, magics included; Python from the first it compiles."""
    dropped = dropped_lines(recording.cell.source)
    return tuple(replace(f, line=f.line + dropped) if f.in_cell else f for f in frames)


def _evidence(recording: Recording) -> str | None:
    """Tell from what a run left behind on which device it ran out of memory; None where nothing shows that."""
    if recording.dumps:
        return _device(recording, device_of(recording.dumps[-1].allocator))
    if "bad_alloc" in recording.stderr:
        return HOST
    rss = recording.get("host:rss")
    if rss and rss.values and rss.limit and rss.values[-1] >= FULL_HOST * rss.limit:
        return HOST
    return None


def _device(recording: Recording, told: str | None) -> str:
    if told is not None and told.startswith("CPU"):
        # Without counters the CPU's memory is simply the machine's.
        return told if recording.dumps or recording.get(f"allocator:{told}") else HOST
    if told is None and recording.main is not None:
        told = recording.main.device
    return told or HOST


def _explain(
    recording: Recording, device: str, text: TextFacts, frames: tuple[Frame, ...], disguised: bool
) -> Diagnosis:
    dump = newest_dump(recording.dumps, device)
    level = _level(recording, device, dump)
    requested = text.requested
    if requested is None and dump is not None:
        requested = dump.requested
    shown = _as_shown(recording, frames)
    inside = [f for f in shown if f.in_cell]
    parts = break_down(recording, device, level.in_use) if level.in_use is not None else ()
    arrays = copied_whole(recording, dump, device)
    parts, layers = take_apart(recording, with_arrays(parts, arrays), dump, requested, device)
    diagnosis = Diagnosis(
        device=device,
        requested=requested,
        shape=text.shape,
        dtype=text.dtype,
        op=text.op or (dump.op if dump else None),
        layer=text.layer,
        line=inside[-1].line if inside else None,
        file=frames[-1].file if frames else None,
        frame=frames[-1] if frames else None,
        in_use=level.in_use,
        limit=level.limit,
        fragmentation=dump.fragmentation if dump else None,
        breakdown=parts,
        layers=layers,
        jit=text.jit,
    )
    diagnosis = replace(diagnosis, cause=_cause(recording, diagnosis, dump))
    diagnosis = replace(diagnosis, situation=find_situation(recording, diagnosis, dump))
    lines = explanation.lines(recording, diagnosis, shown, text.role, dump, disguised)
    if diagnosis.situation is not None:
        lines = explanation.with_situation(lines, diagnosis.situation)
    return replace(diagnosis, text="\n".join(lines.all), detail="\n".join(lines.why))


@dataclass(frozen=True, slots=True)
class _Level:
    """Bytes in use when memory ran out, and the limit; None where nothing tells."""

    in_use: int | None
    limit: int | None


def _level(recording: Recording, device: str, dump: Dump | None) -> _Level:
    series = recording.get("host:rss" if device == HOST else f"allocator:{device}")
    last = None
    if series is not None and series.values:
        end = series.times[-1]
        last = max(value for time, value in zip(series.times, series.values) if time >= end - WAIT)
    elif series is not None:
        last = series.peak
    in_use = dump.in_use if dump and dump.in_use is not None else last
    limit = dump.limit if dump and dump.limit is not None else series.limit if series else None
    if device == HOST and recording.host_full is not None:
        return _Level(recording.host_full.resident, recording.host_full.limit)
    return _Level(in_use, limit)


def _cause(recording: Recording, diagnosis: Diagnosis, dump: Dump | None) -> Cause:
    """Give the first cause that holds; one that cannot be shown by numbers does not hold."""
    if diagnosis.device == HOST:
        return "host"
    requested, in_use, limit = diagnosis.requested, diagnosis.in_use, diagnosis.limit
    if requested is None:
        return "unknown"
    in_pieces = dump is not None and explanation.is_in_pieces(dump, requested)
    if in_use is not None and limit is not None:
        full = in_pieces and in_use >= FULL_POOL * limit
        # Where the last free bytes are in pieces, what is freed has to hold the whole request.
        missing = requested if full else in_use + requested - limit
        if missing > 0:
            if missing <= held_by_others(recording, diagnosis.device, limit):
                return "other-process"
            left = find_leftovers(recording, diagnosis.device).sure + discarded(recording, diagnosis.device)
            if max(missing, WORTH_NAMING * limit) <= left:
                return "leftovers"
        if full:
            return "too-big"
    if in_pieces:
        return "fragmentation"
    if limit is not None and (in_use or 0) + requested > limit:
        return "too-big"
    return "unknown"


def held_by_others(recording: Recording, device: str, limit: int) -> int:
    """Give the bytes by which the limit would be higher without the other processes on the card."""
    facts = recording.facts.device(device)
    if facts is None or not facts.others or facts.logical:
        return 0
    held = sum(other.bytes or 0 for other in facts.others)
    return min(held, max(facts.total - limit, 0)) if facts.total is not None else held


def _user_frames(recording: Recording, error: ErrorText) -> tuple[Frame, ...]:
    """Give the user's frames from the cell to where memory ran out, outermost first.

    An exception that was caught and wrapped shows only the frames inside the ``try``; the raised one has the outer.
    """
    inner = _own(error)
    outer: list[Frame] = []
    for frame in _own(recording.errors[0]):
        if inner and (frame.file, frame.function) == (inner[0].file, inner[0].function):
            return (*outer, *inner)
        outer.append(frame)
    return inner if any(f.in_cell for f in inner) else (*outer, *inner)


def _own(error: ErrorText) -> tuple[Frame, ...]:
    return tuple(f for f in error.frames if f.is_user and not in_comprehension(f))
