"""The largest batch that is expected to fit, found with few questions: each costs walks through a step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import inf

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.diagnose.expected import expected

LEAST_SHARE = 8
"""A batch that may fit is no smaller than this part of the one that did not: each step down makes an epoch longer."""

MOST_OF_IT = 0.6
"""Share of the peak from which on it is said hardly to depend on the batch, where one sample takes that much."""


def largest_batch(
    recording: Recording, diagnosis: Diagnosis, batch: int, below: int, extra: Effect | None = None
) -> int | None:
    """Give the largest batch size under ``below`` that is expected to fit, of :func:`batch_sizes`.

    ``batch`` is the one that ran out. Where none is expected to fit for certain, it is the largest that fits rather
    than not: the middle of its range is under the limit, and it is no less than an eighth of ``below``. None where
    nothing can be estimated; 0 where not even one sample is expected to fit.
    """
    limit, half = diagnosis.limit, max(below // 2, 1)
    if limit is None or expected(recording, diagnosis, Effect(batch=(batch, half))) is None:
        return None

    def needed(share: float) -> Callable[[int], float]:
        def of(one: int) -> float:
            effect = Effect(batch=(batch, one))
            estimate = expected(recording, diagnosis, effect if extra is None else extra.then(effect))
            return inf if estimate is None else estimate.low + share * (estimate.high - estimate.low)

        return of

    for share, least in ((1.0, 1), (0.5, max(below // LEAST_SHARE, 1))):
        found = largest_within(limit, batch_sizes(below), needed(share), (half, batch))
        if found >= least:
            return found
    return 0


def largest_within(limit: int, sizes: Sequence[int], needed: Callable[[int], float], known: Sequence[int] = ()) -> int:
    """Give the largest of some sizes that needs no more than a limit; 0: none does.

    What is needed never falls as the size grows, and lies near a straight line: the size is asked next that the line
    through the two nearest on either side of the limit tells.

    Parameters
    ----------
    limit : int
        What there is.
    sizes : sequence of int
        The sizes, smallest first.
    needed : callable
        Gives what a size needs.
    known : sequence of int
        Sizes whose needs cost nothing to ask for.
    """
    needs = {one: needed(one) for one in known}
    while True:
        least = min((one for one, need in needs.items() if need > limit), default=sizes[-1] + 1 if sizes else 0)
        most = max((one for one, need in needs.items() if need <= limit and one < least), default=0)
        between = [one for one in sizes if most < one < least]
        if not between:
            return max((one for one in sizes if one <= most), default=0)
        told = _crossing(needs, limit)
        at = len(between) // 2 if told is None else bisect_left(between, told + 1) - 1
        one = between[min(max(at, 0), len(between) - 1)]
        needs[one] = needed(one)


def _crossing(needs: dict[int, float], limit: int) -> float | None:
    """Give the size at which the line through the two known ones nearest to the limit meets it; None: there is none."""
    near = sorted((one for one, need in needs.items() if need < inf), key=lambda one: abs(needs[one] - limit))[:2]
    if len(near) < 2:
        return None
    first, second = sorted(near)
    slope = (needs[second] - needs[first]) / (second - first)
    return first + (limit - needs[first]) / slope if slope > 0 else None


def hardly_depends(recording: Recording, diagnosis: Diagnosis, batch: int, smaller: int = 1) -> int | None:
    """Give the peak to expect with one sample where that is still most of the peak with ``batch`` of them; in bytes.

    It is asked for only where ``smaller``, a batch whose peak is known, takes most of it as well.
    """

    def peak(one: int) -> int:
        estimate = expected(recording, diagnosis, Effect(batch=(batch, one)))
        return 0 if estimate is None else estimate.low + estimate.high

    least = MOST_OF_IT * peak(batch)
    if not least or peak(smaller) < least:
        return None
    one = peak(1)
    return one // 2 if one >= least else None


def batch_sizes(below: int, measured: bool = False) -> list[int]:
    """List the batch sizes to try, smallest first: powers of two, and multiples of eight that are parts of them.

    Three quarters (96, 192, …), and where a peak of the step was measured, five and seven eighths (80, 112, …).
    """
    powers = [2**n for n in range(below.bit_length() + 1)]
    parts = (5, 6, 7) if measured else (6,)
    between = [eighths * power // 8 for power in powers for eighths in parts if eighths * power % 64 == 0]
    return sorted(one for one in {*powers, *between} if 0 < one < below)
