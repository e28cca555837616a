"""Round times for an axis of seconds, and how they are written."""

from __future__ import annotations


def moments_up_to(end: float) -> list[float]:
    """Give at most six round times from 0 to ``end`` seconds."""
    steps = [m * 10.0**e for e in range(-4, 1) for m in (1, 2, 5)]
    steps += [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400]
    step = next((s for s in steps if end / s <= 5), end / 5)
    return [i * step for i in range(int(end / step + 1e-9) + 1)]


def clock(seconds: float, end: float) -> str:
    """Write a time on the axis, all in one form: ``"0.4 s"``, ``"0:30"``, ``"2:00:00"``."""
    if end < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if end >= 3600 else f"{minutes}:{rest:02d}"
