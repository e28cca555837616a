"""Live: one moment of a running cell, as the live strip shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LiveSeries:
    """One series until now: the newest ``value``, the ``peak`` so far and the ``limit`` in bytes, and the curve.

    ``times`` (s) and ``values`` (bytes) are decimated to a few hundred points.
    """

    name: str
    value: int
    peak: int
    limit: int | None = None
    times: tuple[float, ...] = ()
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """A moment: ``seconds`` since the cell's start, the series, and a sentence of warning (empty: none).

    ``waiting`` names the device whose allocator is waiting for memory to be freed (None: none is).
    """

    seconds: float
    series: tuple[LiveSeries, ...] = ()
    warning: str = ""
    waiting: str | None = None
