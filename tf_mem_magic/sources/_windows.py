"""Peaks of nested windows, from a counter that knows only the peak since its last reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tf_mem_magic.core.recording import PeakBasis


@dataclass(frozen=True, slots=True)
class Level:
    """One open window: the highest peaks seen in it, and the series whose counter somebody else reset meanwhile."""

    peaks: Mapping[str, int]
    doubtful: frozenset[str] = frozenset()

    def raised(self, peaks: Mapping[str, int], doubtful: frozenset[str]) -> Level:
        """Give this window after ``peaks`` (bytes, by series) were seen inside it."""
        highest = dict(self.peaks)
        for name, peak in peaks.items():
            highest[name] = max(peak, highest.get(name, peak))
        return Level(highest, self.doubtful | doubtful)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows open now, outermost first.

    The lowest level never ends: it holds what was counted since the counter came into being. ``last`` is what the
    counter showed when it was last read, and empty after it was reset.

    The caller resets the counter right after ``begin``, and only then. A spike in the few microseconds between
    reading and resetting is lost.
    """

    levels: tuple[Level, ...] = (Level({}),)
    last: Mapping[str, int] | None = None

    def see(self, peaks: Mapping[str, int]) -> Windows:
        """Note what the counter shows: ``peaks`` since its reset, in bytes by series.

        A peak below the last one means that somebody else reset the counter: what the windows know of that series
        is from then on a lower bound.
        """
        if peaks == self.last:
            return self
        last = self.last or {}
        doubtful = frozenset(name for name, peak in peaks.items() if peak < last.get(name, peak))
        innermost = self.levels[-1].raised(peaks, doubtful)
        return replace(self, levels=(*self.levels[:-1], innermost), last={**last, **peaks})

    def begin(self, peaks: Mapping[str, int]) -> Windows:
        """Open a window inside the innermost one, the counter showing ``peaks`` before the caller resets it."""
        return Windows((*self.see(peaks).levels, Level({})))

    def end(self, peaks: Mapping[str, int]) -> tuple[Windows, Mapping[str, tuple[int, PeakBasis]]]:
        """Close the innermost window, the counter showing ``peaks``; give what remains open, and its peaks."""
        seen = self.see(peaks)
        *outer, closed = seen.levels
        if outer:
            outer[-1] = outer[-1].raised(closed.peaks, closed.doubtful)
            seen = replace(seen, levels=tuple(outer))
        found: dict[str, tuple[int, PeakBasis]] = {}
        for name, peak in closed.peaks.items():
            found[name] = (peak, "sampled" if name in closed.doubtful else "counter")
        return seen, found
