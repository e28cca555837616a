"""Whether a changed step finds room in the pieces of an allocator's pool: in this process, or only in a new one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from tf_mem_magic.core.diagnosis import OF_STEP, Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.proposals import Estimate
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.step import StepFacts
from tf_mem_magic.diagnose.breakdown import find_leftovers
from tf_mem_magic.diagnose.data.arrays import copied_whole
from tf_mem_magic.diagnose.dump import grown_pool
from tf_mem_magic.diagnose.expected import step_at, trained_weights, used_variables
from tf_mem_magic.memory.pools.pooled import Pooled
from tf_mem_magic.memory.pools.pooled import ways as ways_through

Room = Literal["here", "likely", "perhaps", "fresh", "alone", "nowhere"]
"""Where the step finds room: in this process's pool, in whichever way it runs; there as long as one kernel with
temporaries runs at a time and the largest region is whole, with the margin of what was measured; there in some of the
ways in which it may run; only in that of a new process; only there, if one kernel with temporaries runs at a time;
nowhere.

Of eight reruns that were likely to find room here seven did, and of five of these cells four in a new process."""

MARGIN = 0.95
"""Share of the limit in which a changed step is to find room: what ran took up to 3 % more than its simulation."""

RESTS = 0.25
"""Share of the largest region that may be taken by what outlasts the run that failed: 0.2 in a notebook that failed
again with 42 of 51 MiB free."""

CLOSE = 0.9
"""Share of the limit above which two kernels at once are better kept apart: one that was to need 0.95 of it failed."""

ABOVE = 1.1
"""How far a measured peak lay above the simulated one in a new process, at most."""

HERE_ABOVE = 1.15
"""The same in the pieces of this process."""

Fresh = Literal["fresh", "alone"]
"""How the step finds room in the pool of a new process."""


def room_for(recording: Recording, diagnosis: Diagnosis, effect: Effect) -> Room | None:
    """Tell whether the step after a change finds room in the regions that the pool has taken.

    An allocator whose pool grows takes regions one by one, each larger than the one before, and on the CPU never
    gives one back: a request that is larger than each of them, and than what is left to take, is met by none of them
    however much is free. The step is run through such a pool, and through one that begins anew.

    Parameters
    ----------
    recording : Recording
        The run that failed, with the allocator's dump and the step.
    diagnosis : Diagnosis
        What filled the memory.
    effect : Effect
        What the change does.

    Returns
    -------
    str or None
        None where nothing tells: the pool is one piece or may give regions back, the step is not known, the change is
        one whose step is not, or the step as it was would have found room by these rules.
    """
    dump = grown_pool(recording, diagnosis)
    if dump is None or not any(way.failed for way in _through(recording, diagnosis, Effect(), (), 1.0)):
        return None
    here = _through(recording, diagnosis, effect, dump.regions)
    if not here:
        return None
    if all(way.failed for way in here):
        return room_in_fresh(recording, diagnosis, effect) or "nowhere"
    if any(way.failed for way in here if way.at_once == 1):
        return room_in_fresh(recording, diagnosis, effect) or "perhaps"
    least = _through(recording, diagnosis, effect, _with_a_rest(dump.regions))
    if not any(way.failed for way in (*here, *least)):
        return "here"
    peak = peak_here(recording, diagnosis, effect)
    if peak is not None and peak.high <= (diagnosis.limit or 0):
        return "likely"
    if all(way.failed for way in least if way.at_once == 1):
        return room_in_fresh(recording, diagnosis, effect) or "perhaps"
    return "perhaps"


def _with_a_rest(regions: tuple[int, ...]) -> tuple[int, ...]:
    """Give regions of which the largest is not whole: what stays from the run that failed may lie in it."""
    largest = max(regions)
    at = regions.index(largest)
    return (*regions[:at], int(largest * (1 - RESTS)), *regions[at + 1 :])


def room_in_fresh(recording: Recording, diagnosis: Diagnosis, effect: Effect, copied: bool = False) -> Fresh | None:
    """Tell whether the step after a change finds room in the pool of a new process, in whichever order it runs.

    With ``copied`` the largest array of the computer's memory lies in the pool as well: TensorFlow copies an array or
    not, by where it happens to lie.
    """
    ways = _through(recording, diagnosis, effect, (), copied=copied)
    if not ways or any(way.failed for way in ways if way.at_once == 1):
        return None
    close = CLOSE * (diagnosis.limit or 0)
    return "alone" if any(way.failed or way.peak > close for way in ways if way.at_once > 1) else "fresh"


def fresh_peak(recording: Recording, diagnosis: Diagnosis, effect: Effect, at_once: int = 2) -> Estimate | None:
    """Give the peak to expect in a process that begins, in chunks as they would lie; None without room for it.

    At most ``at_once`` kernels with temporaries run at a time.
    """
    found = _peak(_through(recording, diagnosis, effect, (), 1.0), at_once, ABOVE)
    if found is None or not diagnosis.limit:
        return None
    return replace(found, high=max(round(found.high / ABOVE), min(found.high, diagnosis.limit)))


def peak_here(recording: Recording, diagnosis: Diagnosis, effect: Effect) -> Estimate | None:
    """Give the peak to expect in the pieces of this process, one kernel with temporaries at a time; None: no room."""
    dump = grown_pool(recording, diagnosis)
    ways = () if dump is None else _through(recording, diagnosis, effect, dump.regions, 1.0)
    return _peak(ways, 1, HERE_ABOVE)


def _peak(ways: tuple[Pooled, ...], at_once: int, above: float) -> Estimate | None:
    found = [way.peak for way in ways if not way.failed and way.at_once <= at_once]
    basis = "the step's own operations, in a pool by the allocator's rules"
    return Estimate(min(found), int(max(found) * above), basis, by_pool=True) if found else None


def _through(
    recording: Recording,
    diagnosis: Diagnosis,
    effect: Effect,
    regions: tuple[int, ...],
    share: float = MARGIN,
    copied: bool = False,
) -> tuple[Pooled, ...]:
    """Run the step after a change through a pool with these regions, in a share of the limit.

    Gives nothing where the step is not known.
    """
    step, limit = recording.facts.step, diagnosis.limit
    if step is None or not limit or not step.packed or step.compiled:
        return ()
    if effect.policy or effect.recompute is not None or effect.staged or effect.jit is not None:
        return ()
    wanted = step.batch
    if effect.batch is not None:
        if step.batch is None or effect.batch[0] < 1:
            return ()
        wanted = max(round(step.batch * effect.batch[1] / effect.batch[0]), 1)
    # Garbage is collected before a rerun; what no name holds is not made again in a new process.
    unnamed = dict(recording.garbage).get(f"allocator:{diagnosis.device}", 0)
    if not regions:
        unnamed = max(unnamed, find_leftovers(recording, diagnosis.device).unnamed or 0)
    held = sorted(_held(recording, diagnosis, effect, unnamed))
    if copied:
        held.append(max((v.bytes for v in recording.facts.values if v.device is None and v.kind == _ARRAY), default=0))
    return _ways(step, wanted, int(limit * share), regions, tuple(size for size in held if size))


def _held(recording: Recording, diagnosis: Diagnosis, effect: Effect, unnamed: int) -> Iterator[int]:
    """Yield the chunks beside the step after a change: each variable, and the rest by what it is.

    ``unnamed``: the bytes of these that are not there any more.
    """
    variables = used_variables(recording, diagnosis.device)
    weights = [size for part, _, size in variables if part == "weights" and size]
    yield from weights
    if effect.slots is None:
        yield from (size for part, _, size in variables if part == "optimizer" and size)
    else:
        yield from weights * effect.slots
    if effect.accumulates:
        yield from trained_weights(recording)
    gone = effect.released + effect.to_host + unnamed
    copies = any(part.kind == "arrays" for part in diagnosis.breakdown) and not effect.to_host
    dump = grown_pool(recording, diagnosis) if copies else None
    arrays = tuple(one.bytes for one in copied_whole(recording, dump, diagnosis.device)) if copies else ()
    yield from arrays
    for part in diagnosis.breakdown:
        if part.kind == "arrays" and arrays:
            continue  # each is a chunk of its own, and what its chunk had beyond it is not asked for again
        beside = part.kind not in OF_STEP and part.kind not in ("weights", "optimizer")
        if beside or part.kind == "inputs":
            left = max(part.bytes - gone, 0) if beside else part.bytes
            gone -= part.bytes - left if beside else 0
            if left:
                yield left


_ARRAY = "numpy.ndarray"


@lru_cache(maxsize=256)
def _ways(
    step: StepFacts, batch: int | None, limit: int, regions: tuple[int, ...], held: tuple[int, ...]
) -> tuple[Pooled, ...]:
    resized = step_at(step, batch)
    return () if resized is None else ways_through(resized, limit, regions, held, step.processor)
