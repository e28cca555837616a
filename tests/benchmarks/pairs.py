"""Pairs of runs, one plain and one tagged, taken in turns so that a change of the machine's load hits both alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Pairs:
    """What each pair measured, in the same order."""

    plain: tuple[float, ...]
    tagged: tuple[float, ...]

    @property
    def extra(self) -> tuple[float, ...]:
        """How much more the tagged run of each pair took."""
        return tuple(tagged - plain for plain, tagged in zip(self.plain, self.tagged))

    @property
    def ratio(self) -> float:
        """The median over the pairs of tagged to plain."""
        return median(self.ratios)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Tagged to plain, for each pair."""
        return tuple(tagged / plain for plain, tagged in zip(self.plain, self.tagged))


def take_pairs(count: int, plain: Callable[[], float], tagged: Callable[[], float]) -> Pairs:
    """Measure ``count`` pairs; which of the two comes first changes from pair to pair."""
    measured: list[tuple[float, float]] = []
    for number in range(count):
        if number % 2:
            second = tagged()
            measured.append((plain(), second))
        else:
            measured.append((plain(), tagged()))
    return Pairs(tuple(p for p, _ in measured), tuple(t for _, t in measured))


def spread(values: tuple[float, ...]) -> tuple[float, float]:
    """Give the quartiles between which the middle half of ``values`` lies; of few values the smallest and largest."""
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high
