"""What is said of a run beside its outcome: failures that were caught, functions traced anew, what is left behind."""

from __future__ import annotations

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.units import brief_unit, size, size_range
from tf_mem_magic.diagnose.dump import device_of

RETRACED = 10
"""Traces of one function in one cell from which it is said: a few belong to a training (other shapes, validation)."""

LEFT_BEHIND = 1 << 20
"""Bytes below which what a run left behind is not worth a word."""

UNNAMED = 0.05
"""Share of the limit from which it is said that no name holds what a cell left."""

MUCH_UNNAMED = 16 << 20
"""Bytes from which it is."""


def retraced(recording: Recording) -> tuple[str, ...]:
    """Say which functions under ``tf.function`` were traced again and again: each trace keeps a graph of its own."""
    often = [one for one in recording.facts.traced if one.after - one.before >= RETRACED]
    return tuple(
        f"`{one.name}` was traced {one.after - one.before} times in this cell: each new Python value of an argument, "
        "or new shape, makes a graph of its own, which stays in memory. Give it tensors (`tf.constant(i)`) instead."
        for one in often
    )


def threaded(recording: Recording) -> tuple[str, ...]:
    """Say that it ran out in a thread of the cell's own, beside which others may compute."""
    if recording.status != "oom" or not recording.in_a_thread:
        return ()
    return (
        "It ran out in a thread that the cell began: what its other threads take at the same time is not known, so no "
        "peak is estimated. Fewer threads at once need less too.",
    )


def next_run(outcome: Outcome, previous: Recording | None) -> tuple[str, ...]:
    """Say that the next run of the cell will not fit, where two runs of it left more behind each."""
    recording = outcome.recording
    main = recording.main
    if previous is None or main is None or main.peak is None or not main.limit or main.device is None:
        return ()
    if (recording.status, previous.status) != ("ok", "ok"):
        return ()
    left = [_left(one, main.name) for one in (previous, recording)]
    before, after = dict(recording.before).get(main.name), dict(recording.after).get(main.name)
    if before is None or after is None or min(left) < max(LEFT_BEHIND, max(left) // 2):
        return ()
    need = after + main.peak - before
    if need <= main.limit:
        return ()
    unit = brief_unit([main.limit])
    names = [f"`{name}`" for name, _ in outcome.leftovers[:3]]
    where = f" ({', '.join(names)})" if names else ""
    return (
        f"Each run of this cell leaves about {size(left[-1], unit)} more on {main.device}{where}: the next would need "
        f"{unit.text(need)} of {size(main.limit, unit)}.",
    )


def unnamed(recording: Recording) -> tuple[str, ...]:
    """Say what a run that went well left on its device that no name holds, where that is a part that matters.

    Everything that names may hold of it is taken off: what the cell made, and what it may have added to models.
    """
    main = recording.main
    if recording.status != "ok" or main is None or main.device is None or not main.limit or recording.facts.partial:
        return ()
    facts, device = recording.facts, main.device
    held = sum(v.bytes for v in facts.values if v.origin == "cell" and v.device == device)
    held += sum(m.weight_bytes - m.earlier_bytes + m.optimizer_bytes for m in facts.models if m.device == device)
    left = _left(recording, main.name) - held
    if left < max(UNNAMED * main.limit, MUCH_UNNAMED):
        return ()
    return (
        f"No name holds {size(left)} of what this cell left on {device}: `%tfmem free` collects what nothing needs.",
    )


def _left(recording: Recording, name: str) -> int:
    return max(dict(recording.after).get(name, 0) - dict(recording.before).get(name, 0), 0)


def caught(recording: Recording) -> str:
    """Say that memory ran out though the cell ended well, and what was asked for in vain."""
    requests = recording.caught
    devices = sorted({device for one in requests if (device := device_of(one.allocator))})
    where = f" on {' and '.join(devices)}" if devices else ""
    sizes = [one.bytes for one in requests if one.bytes]
    op = max(requests, key=lambda one: one.bytes).op
    amount = ""
    if sizes:
        low, high, unit = min(sizes), max(sizes), brief_unit(sizes)
        amount = f" of {size(low, unit) if low == high else size_range(low, high, unit)}"
    if len(requests) == 1:
        told = f"a request{amount}{f' for {op}' if op else ''} got no memory"
    else:
        told = f"{len(requests)} requests{amount} got no memory{f', the largest for {op}' if op else ''}"
    full_at = recording.facts.full_at
    batches = list(dict.fromkeys(str(seen.batch) for seen in full_at))
    at = f" at {'batch' if len(batches) == 1 else 'batches of'} {' and '.join(batches)}" if batches else ""
    return f"Memory ran out{where}{at}, and the error stayed in your code, a library or a thread: {told}."
