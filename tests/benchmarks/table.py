"""The results as one Markdown table, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from statistics import median

from tests.benchmarks.pairs import Pairs, spread


@dataclass(frozen=True, slots=True)
class Row:
    """One result: the runs that were compared, the cost in words, its target, and whether that is met."""

    name: str
    plain: str
    tagged: str
    ratio: str
    cost: str
    target: str = "—"
    met: bool | None = None


HEADING = ("benchmark", "plain", "tagged", "tagged ÷ plain", "cost: median (spread)", "target", "verdict")


def paired_row(name: str, pairs: Pairs, most_ms: float | None = None) -> Row:
    """Give the row for pairs of durations in seconds; the cost is what the tagged run took more."""
    extra = median(pairs.extra)
    return Row(
        name,
        milliseconds(median(pairs.plain)),
        milliseconds(median(pairs.tagged)),
        f"{pairs.ratio:.2f}",
        f"{milliseconds(extra)} ({between(pairs.extra)})",
        "—" if most_ms is None else f"≤ {most_ms:g} ms",
        None if most_ms is None else 1000 * extra <= most_ms,
    )


def single_row(name: str, seconds: tuple[float, ...], most_ms: float | None = None) -> Row:
    """Give the row for durations in seconds that have no plain counterpart."""
    middle = median(seconds)
    cost = milliseconds(middle) + (f" ({between(seconds)})" if len(seconds) > 1 else "")
    target = "—" if most_ms is None else f"≤ {most_ms:g} ms"
    return Row(name, "—", "—", "—", cost, target, None if most_ms is None else 1000 * middle <= most_ms)


def milliseconds(seconds: float) -> str:
    """Give a duration in milliseconds, three digits or so."""
    value = 1000 * seconds
    return f"{value:.1f} ms" if abs(value) < 100 else f"{value:.0f} ms"


def between(seconds: tuple[float, ...]) -> str:
    """Give the spread of durations."""
    low, high = spread(seconds)
    return f"{milliseconds(low).removesuffix(' ms')} to {milliseconds(high)}"


def heading() -> str:
    """Give the first two lines of the Markdown table."""
    return f"| {' | '.join(HEADING)} |\n|{'---|' * len(HEADING)}"


def line(row: Row) -> str:
    """Give a row as a line of the Markdown table."""
    verdict = {True: "met", False: "**missed**", None: "—"}[row.met]
    return f"| {' | '.join((row.name, row.plain, row.tagged, row.ratio, row.cost, row.target, verdict))} |"


def machine() -> str:
    """Name the machine, its load now, and the versions that matter."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    versions = ", ".join(f"{name} {found}" for name in PACKAGES if (found := version_of(name)))
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}), load over 1, 5 and 15 minutes {load}; "
        f"Python {platform.python_version()}, {versions}."
    )


PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "ipython", "ipykernel", "ipywidgets", "matplotlib")


def version_of(package: str) -> str | None:
    """Give the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
