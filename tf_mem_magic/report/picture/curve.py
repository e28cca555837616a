"""A series made smaller for drawing: no more points than there are places to draw them, extremes kept."""

from __future__ import annotations

from collections.abc import Sequence


def columns(times: Sequence[float], values: Sequence[int], end: float, count: int) -> tuple[int | None, ...]:
    """Give the largest value in each of ``count`` equal spans of 0 to ``end`` seconds.

    A span without a sample holds the value before it; spans before the first and after the last sample are None.
    """
    highest: list[int | None] = [None] * count
    last: list[int | None] = [None] * count
    for time, value in zip(times, values):
        place = min(count - 1, max(0, int(time / end * count))) if end > 0 else 0
        highest[place] = max(value, highest[place] or 0)
        last[place] = value
    final = max((i for i in range(count) if last[i] is not None), default=-1)
    held: int | None = None
    for i in range(final + 1):
        if highest[i] is None:
            highest[i] = held
        else:
            held = last[i]
    return tuple(highest)


def thinned(times: Sequence[float], values: Sequence[int], count: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Keep at most about ``2 * count`` points: of each run of neighbours the smallest and the largest, in order."""
    if len(values) <= 2 * count:
        return tuple(times), tuple(values)
    step = len(values) / count
    kept = {0, len(values) - 1}
    for i in range(count):
        span = range(int(i * step), int((i + 1) * step))
        kept.add(min(span, key=values.__getitem__))
        kept.add(max(span, key=values.__getitem__))
    places = sorted(kept)
    return tuple(times[i] for i in places), tuple(values[i] for i in places)
