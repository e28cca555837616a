"""The peak to expect at another batch size, from runs of the same cell that were measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log2

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import Estimate, Point
from tf_mem_magic.core.units import brief_unit, size

TYPICAL = 0.08
"""How far a straight line through two batch sizes was off for five of six measured models, up to 8 times the batch."""

REPEAT = 0.1
"""How far the peaks of two equal runs lay apart at most: 0.06 in nearly all that were measured, 0.094 on a busy CPU."""

NOISE = 0.03
"""How far one run's peak is taken to lie from the mean of equal runs: a third of :data:`REPEAT`, unmeasured."""

WORST = 0.89
"""How much the sixth needed beyond its line at 8 times the batch (the line said 47 % too little)."""

WORST_DOUBLINGS = 3
"""Doublings of the batch at which :data:`WORST` was seen; nearer, the range is narrower in proportion."""


def estimate_peak(points: Iterable[Point], batch: int) -> Estimate | None:
    """Estimate the peak at ``batch``.

    Parameters
    ----------
    points : iterable of Point
        Measured runs of the cell. One that ran out of memory only says that its batch needs more than its peak.
    batch : int
        The batch size to estimate for.

    Returns
    -------
    Estimate or None
        Bytes. None without two completed runs at different batch sizes. The range is that of a straight line
        through the two nearest, wider the farther ``batch`` lies from them (what the line itself may miss, and what
        the noise of its two points comes to there), and never against a measured run: more
        samples never need less. None also above the completed batches where a larger one ran out that the line says
        needs less: small batches may all need the same, while weights are made or updated, and tell nothing then.
    """
    points = tuple(points)
    peaks = _completed(points)
    if len(peaks) < 2 or batch < 1:
        return None
    first, second = sorted(sorted(peaks, key=lambda b: abs(log2(b / batch)))[:2])
    slope = max(peaks[second] - peaks[first], 0) / (second - first)
    if batch < first:
        # No run takes less than nothing at batch 0.
        slope = min(slope, peaks[first] / first)
    line = peaks[first] + slope * (batch - first)

    def widest(at: int) -> float:
        away = _doublings_away(at, first, second)
        return (peaks[first] + slope * (at - first)) * (1 + TYPICAL + WORST * away / WORST_DOUBLINGS)

    if batch > second and any(p.peak > widest(p.batch) for p in points if not p.fitted and p.batch > batch):
        return None
    share = (batch - first) / (second - first)
    noise = NOISE * (abs(1 - share) * peaks[first] + abs(share) * peaks[second])
    low = line * (1 - TYPICAL * (1 + _doublings_away(batch, first, second))) - noise
    high = widest(batch) + noise
    smaller = [p.peak * (1 - REPEAT) if p.fitted else p.peak for p in points if p.batch <= batch]
    larger = [peak * (1 + REPEAT) for b, peak in peaks.items() if b >= batch]
    low = max([low, *smaller])
    high = min([max(high, low), *larger])
    low = min(low, high)
    unit = brief_unit([peaks[first], peaks[second]])
    basis = (
        f"a straight line through {size(peaks[first], unit)} measured at batch {first} "
        f"and {size(peaks[second], unit)} at batch {second}"
    )
    return Estimate(max(int(low), 0), int(high), basis)


def largest_power_of_two(points: Iterable[Point], limit: int, below: int) -> int | None:
    """Give the largest power of two below ``below`` that is expected to fit ``limit`` bytes.

    A batch size that completed fits; one that ran out of memory, and any larger, does not. None where there is no
    estimate for a batch above those that completed (:func:`estimate_peak`), and where not even a batch of 1 is
    expected to fit.
    """
    points = tuple(points)
    done = {p.batch for p in points if p.fitted}
    below = min([below, *(p.batch for p in points if not p.fitted)])
    if len(done) < 2 or below < 2:
        return None
    batch: int = 1 << ((below - 1).bit_length() - 1)
    while batch >= 1:
        if batch in done:
            return batch
        estimate = estimate_peak(points, batch)
        if estimate is None:
            return None
        if estimate.high <= limit:
            return batch
        batch //= 2
    return None


def half_or_less(diagnosis: Diagnosis | None, batch: int, below: int, reserved: int = 0) -> int:
    """Give half of ``below``, halved again while the step that ran out of memory could not get as far even so.

    Parameters
    ----------
    diagnosis : Diagnosis or None
        What ran out. Weights, optimizer and values stay; the rest of what was in use, and an allocation whose first
        dimension is the batch (or a whole program of XLA), are taken to shrink with the batch.
    batch : int
        The batch size that ran out of memory.
    below : int
        The batch size to be under.
    reserved : int
        Bytes of the limit that will be needed for something else.

    Returns
    -------
    int
        At least 0. Not an estimate: what comes after that point in the step is not known.
    """
    smaller = below // 2
    if diagnosis is None or not diagnosis.limit or not diagnosis.requested or not _grows(diagnosis, batch):
        return smaller
    stays = sum(part.bytes for part in diagnosis.breakdown) - diagnosis.of_step
    shrinks = diagnosis.of_step + diagnosis.requested
    room = diagnosis.limit - reserved - stays
    while smaller > 1 and room > 0 and shrinks * smaller > room * batch:
        smaller //= 2
    return smaller


def _grows(diagnosis: Diagnosis, batch: int) -> bool:
    """Say whether the allocation that failed grows with the batch."""
    first = diagnosis.shape[0] if diagnosis.shape else 0
    return diagnosis.jit or (batch > 1 and first > 0 and first % batch == 0)


def _completed(points: Iterable[Point]) -> Mapping[int, int]:
    """Give the highest peak of the completed runs at each batch size."""
    peaks: dict[int, int] = {}
    for point in points:
        if point.fitted:
            peaks[point.batch] = max(point.peak, peaks.get(point.batch, 0))
    return peaks


def _doublings_away(batch: int, first: int, second: int) -> float:
    """Say how many doublings ``batch`` lies outside the measured batch sizes; 0 between them."""
    if batch > second:
        return log2(batch / second)
    return log2(first / batch) if batch < first else 0.0
