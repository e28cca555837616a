"""The batch size to try next: one that is expected to fit, and that finds room in pieces that can be had."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.diagnose.room.pieces import Room, room_for, room_in_fresh
from tf_mem_magic.diagnose.room.search import LEAST_SHARE, batch_sizes, largest_batch


def batch_to_try(
    recording: Recording, diagnosis: Diagnosis, batch: int, below: int, extra: Effect | None = None
) -> int | None:
    """Choose a batch size under ``below`` where ``batch`` ran out, and ``extra`` is changed as well.

    It is :func:`~tf_mem_magic.diagnose.room.search.largest_batch`, where that is no less than an eighth of ``below``
    and finds room in the pool of this process, or may and is sure to fit. Else it is the largest that finds room there
    in whichever way the step runs, no less than an eighth; or the largest that finds room in a new process.
    """
    found = largest_batch(recording, diagnosis, batch, below, extra)
    if found is None or recording.in_a_thread:
        return None

    def after(one: int) -> Effect:
        effect = Effect(batch=(batch, one))
        return effect if extra is None else extra.then(effect)

    def room(one: int) -> Room | None:
        return room_for(recording, diagnosis, after(one))

    least = below // LEAST_SHARE
    first = found or max(below // 2, 1)
    fits = room(first) in (None, "here", "likely") or (
        room(first) == "perhaps" and surely_fits(recording, diagnosis, after(first))
    )
    if fits and (found >= least or room(first) is None):
        return found
    sizes = batch_sizes(below)[::-1]
    here = (one for one in sizes if one >= least and room(one) in ("here", "likely"))
    fresh = (
        one
        for copied in (True, False)
        for one in sizes
        if (one >= least or not fits) and room_in_fresh(recording, diagnosis, after(one), copied) is not None
    )
    return next(here, None) or next(fresh, None) or found


def surely_fits(recording: Recording, diagnosis: Diagnosis, effect: Effect) -> bool:
    """Tell whether the upper end of the peak to expect after a change is within the limit."""
    estimate = expected(recording, diagnosis, effect)
    return estimate is not None and diagnosis.limit is not None and estimate.high <= diagnosis.limit
