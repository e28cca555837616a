"""The course of traced steps, stacked by kind: what lies there always at the bottom, what comes and goes above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from tf_mem_magic.core.diagnosis import PartKind
from tf_mem_magic.core.step import TracedSteps
from tf_mem_magic.core.units import Unit
from tf_mem_magic.report.picture.palette import PARTS, TEXT
from tf_mem_magic.report.traced import KIND_WORDS

ORDER: tuple[str, ...] = get_args(PartKind)
"""Kinds from the bottom to the top."""


_SMALL = 0.02
"""Share of the peak below which a kind is not named beside the picture."""


@dataclass(frozen=True, slots=True)
class Column:
    """One span of the traced time: the bytes of each kind at its highest moment, and whether a step begins in it."""

    bytes: tuple[tuple[str, int], ...]
    begins: bool = False


def columns_of(traced: TracedSteps, count: int) -> tuple[Column, ...]:
    """Give ``count`` equal spans of the traced time; one without a moment holds what the one before ended with.

    Kinds stand from the bottom to the top; those without bytes are left out.
    """
    if not traced.times:
        return ()
    courses = dict(traced.course)
    kinds = [kind for kind in (*ORDER, *(k for k in courses if k not in ORDER)) if kind in courses]
    totals = [sum(values[i] for values in courses.values()) for i in range(len(traced.times))]
    width = traced.seconds / count or 1.0
    highest: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, time in enumerate(traced.times):
        span = min(int(time / width), count - 1)
        last[span] = i
        if totals[i] > totals[highest.setdefault(span, i)]:
            highest[span] = i
    begun = {min(int(start / width), count - 1) for start in traced.starts}
    found, held = [], 0
    for span in range(count):
        at = highest.get(span, held)
        held = last.get(span, held)
        found.append(Column(tuple((kind, courses[kind][at]) for kind in kinds if courses[kind][at]), span in begun))
    return tuple(found)


def draw_stack(axes: Any, traced: TracedSteps, unit: Unit, font: dict[str, Any]) -> None:
    """Draw the course on a matplotlib ``Axes``: areas with their names, a line where each step begins, the peak.

    ``font`` is how texts are set.
    """
    courses = dict(traced.course)
    kinds = [kind for kind in ORDER if kind in courses]
    scaled = [[value / unit.size for value in courses[kind]] for kind in kinds]
    colours = [PARTS.get(kind, PARTS["other"]) for kind in kinds]
    axes.stackplot(traced.times, *scaled, colors=colours, alpha=0.8, linewidth=0)
    for start in traced.starts:
        axes.axvline(start, color=TEXT, linewidth=0.6, dashes=(2, 2))
    axes.plot([traced.peak_time], [traced.peak / unit.size], marker="v", markersize=5, color=TEXT, clip_on=False)
    axes.set_xlim(0, traced.seconds or 1e-3)
    axes.set_ylim(0, 1.06 * traced.peak / unit.size)
    named = [kind for kind in kinds if dict(traced.parts).get(kind, 0) >= _SMALL * traced.peak]
    for place, kind in enumerate(reversed(named)):
        axes.annotate(
            f"■ {KIND_WORDS.get(kind, kind)}",
            (1, 1),
            xytext=(5, -2 - 11 * place),
            textcoords="offset points",
            xycoords="axes fraction",
            va="center",
            **(font | {"fontsize": 7, "color": PARTS.get(kind, TEXT)}),
        )
