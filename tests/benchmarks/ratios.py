"""A row for each model of the memory model's benchmarks: expected ranges by measured peaks, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import median

from tests.benchmarks.memory_models import DEVELOPMENT, HELD_OUT

MIB = 1 << 20
Ratio = tuple[float, float, float]
"""Middle, low and high end of an expected range, each by the measured peak."""


def compared(expected: Mapping[str, tuple[int, int]], peaks: Mapping[str, int]) -> tuple[str, list[Ratio]]:
    """Compare the ranges expected at some batch sizes with the peaks measured there, in bytes: a cell, and ratios."""
    ratios, cells = [], []
    for batch, (low, high) in expected.items():
        peak = peaks[batch]
        ratios.append(((low + high) / 2 / peak, low / peak, high / peak))
        cells.append(f"{batch}: {peak / MIB:.0f} [{low / MIB:.0f}, {high / MIB:.0f}] {ratios[-1][0] - 1:+.0%}")
    return "; ".join(cells), ratios


def print_table(
    columns: tuple[str, ...],
    names: Iterable[str],
    row: Callable[[str, str, str, int], tuple[tuple[str, ...], list[Ratio]]],
) -> None:
    """Print a row for each model that is named, all without names, as it comes; then what all ratios tell.

    ``row`` is given a model's name, code, data and batch; where it raises, the row says so.
    """
    wanted = set(names)
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    ratios: list[Ratio] = []
    for name, (code, data, batch) in {**DEVELOPMENT, **HELD_OUT}.items():
        if wanted and name not in wanted:
            continue
        try:
            cells, more = row(name, code, data, batch)
        except Exception as error:
            cells, more = (name, f"{type(error).__name__}: {str(error)[-200:]!r}"), []
        ratios += more
        print("| " + " | ".join((*cells, *("",) * (len(columns) - len(cells)))) + " |", flush=True)
    if ratios:
        off = sorted(abs(middle - 1) for middle, _, _ in ratios)
        print(f"\n{len(ratios)} peaks: median error of the middle {median(off):.1%}, ", end="")
        print(f"{sum(one <= 0.1 for one in off) / len(off):.0%} within 10 %, ", end="")
        print(f"{sum(high < 1 for _, _, high in ratios)} above the range, ", end="")
        print(f"{sum(low > 1 for _, low, _ in ratios)} below it")
