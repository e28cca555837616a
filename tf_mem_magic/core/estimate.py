"""The peak to expect at another batch size, from runs that were measured."""

from __future__ import annotations

from collections.abc import Iterable

from tf_mem_magic.core.proposals import Estimate, Point


def estimate_peak(points: Iterable[Point], batch: int) -> Estimate | None:
    """Estimate the peak at ``batch``; None without two completed runs at different batch sizes."""
    return None


def largest_power_of_two(points: Iterable[Point], limit: int, below: int) -> int | None:
    """Give the largest power of two below ``below`` that is expected to fit ``limit`` bytes; None where none is."""
    return None
