"""The batch size to try next: one that is expected to fit, and that finds room in pieces that can be had."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.diagnose.expected import LEAST_SHARE, batch_sizes, largest_batch
from tf_mem_magic.diagnose.room.pieces import Room, room_for


def batch_to_try(
    recording: Recording, diagnosis: Diagnosis, batch: int, below: int, extra: Effect | None = None
) -> int | None:
    """Choose a batch size under ``below`` where ``batch`` ran out, and ``extra`` is changed as well.

    It is :func:`~tf_mem_magic.diagnose.expected.largest_batch`, where that finds room in the pool of this process.
    Else it is the largest that does, no less than an eighth of ``below``; or, as a restart is needed anyway, the
    largest that finds room in a new one.
    """
    found = largest_batch(recording, diagnosis, batch, below, extra)
    if found is None:
        return None

    def room(one: int) -> Room | None:
        effect = Effect(batch=(batch, one))
        return room_for(recording, diagnosis, effect if extra is None else extra.then(effect))

    if room(found or max(below // 2, 1)) in (None, "here"):
        return found
    sizes = batch_sizes(below)
    here = (one for one in sizes if one >= below // LEAST_SHARE and room(one) == "here")
    fresh = (one for one in sizes if room(one) in ("fresh", "alone"))
    return next(here, None) or next(fresh, None) or found
