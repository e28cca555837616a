"""The timeline as numbers to draw: which curves, on which scale, with which marks. Decided here, for every renderer."""

from __future__ import annotations

from dataclasses import dataclass

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Series
from tf_mem_magic.core.units import Unit
from tf_mem_magic.report.measures import OFF_SCALE, amount, focus, limit_of, peak_moment, quantity, took, unit_of
from tf_mem_magic.report.picture.curve import columns

COLUMNS = 100
"""Places of a chart that is drawn of columns."""

_LOWER = 2
"""How many times the main series' height a line beside it may reach: more would flatten the curve."""

_NAMES = {
    "pool": "pool",
    "allocator": "in use",
    "host": "host memory",
    "process": "this process",
    "device": "all processes",
}

_MORE = 1.25
"""How far above the limit and the curves a failed request is drawn, unless it alone is more than the device has."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One measured course: ``columns`` are bytes in each of :data:`COLUMNS` equal spans of the chart's time.

    Attributes
    ----------
    name : str
        What a legend calls it: ``in use``, or ``before`` and ``after`` the change.
    kind : str
        The series' kind, which has a colour (``allocator``).
    mark : str
        ✗ where the run failed, ✓ where it went well after a change; else empty.
    """

    name: str
    kind: str
    columns: tuple[int | None, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Cap:
    """A request that failed: from ``base`` to ``end``, in bytes, as far as it is drawn.

    Where that is not all of it, ``label`` says how much it is.
    """

    base: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A timeline on one scale.

    Attributes
    ----------
    curves : tuple of Curve
        The first is filled; the second, of the run before it, stands behind.
    seconds : float
        The length of the time axis.
    top : int
        Bytes at the upper edge.
    limit : int or None
        Bytes of the limit, where it is within the chart.
    limit_label, top_label, end_label : str
        Words for the limit, the upper edge, and the end of time.
    peak_label : str
        Words for the highest value: ``"peak 13.9 GiB at 0:12"``.
    about : str
        What is drawn: ``in use on GPU:0``.
    cap : Cap or None
        The request that failed.
    lines : tuple of Curve
        What is drawn as thin lines: the pool, and the device as all processes use it.
    """

    curves: tuple[Curve, ...]
    seconds: float
    top: int
    limit: int | None
    limit_label: str
    top_label: str
    end_label: str
    peak_label: str
    about: str
    cap: Cap | None = None
    lines: tuple[Curve, ...] = ()


def chart_of(outcome: Outcome) -> Chart | None:
    """Choose what is drawn of a run: its main series; where it is compared, both runs on the same axes."""
    main, unit, limit = focus(outcome), unit_of(outcome), limit_of(outcome)
    comparison = outcome.comparison
    before = comparison.before if comparison is not None else None
    if main is None or not (main.values or (before is not None and before.values)):
        return None
    runs = [main] if before is None else [main, before]
    seconds = max(*(_last(series) for series in runs), outcome.recording.seconds if before is None else 0.0) or 1e-3
    cap = request_drawn(outcome, max(map(_highest, runs)))
    beside = [] if before is not None else _beside(outcome, main)
    highest = max(*map(_highest, (*runs, *beside)), cap.end if cap else 0) or unit.size
    near = limit is not None and limit <= OFF_SCALE * highest
    top = max(highest, limit) if near and limit is not None else highest
    names = [_NAMES.get(main.kind, main.kind)] if before is None else ["after", "before"]
    marks = ["✗" if outcome.recording.status in ("oom", "error", "killed") else ""]
    if comparison is not None and before is not None:
        marks = ["✓" if s == "ok" else "✗" for s in (comparison.status_after, comparison.status_before)]
    curves = tuple(
        Curve(name, series.kind, columns(series.times, series.values, seconds, COLUMNS), mark)
        for name, series, mark in zip(names, runs, marks)
    )
    return Chart(
        curves,
        seconds,
        top,
        limit if near else None,
        _limit_words(limit, near, unit),
        amount(top, unit if top < 1000 * unit.size else None),
        took(seconds),
        _peak_words(main, unit),
        quantity(main),
        cap,
        tuple(
            Curve(_NAMES[series.kind], series.kind, columns(series.times, series.values, seconds, COLUMNS))
            for series in beside
        ),
    )


def _beside(outcome: Outcome, main: Series) -> list[Series]:
    """Choose what is drawn beside the main series: what the same device holds, where the scale allows."""
    top = max(_highest(main), limit_of(outcome) or 0)
    same = (series for series in outcome.recording.series if series is not main and series.device == main.device)
    return [s for s in same if s.device and s.kind in ("pool", "device") and s.values and _highest(s) <= _LOWER * top]


def request_drawn(outcome: Outcome, highest: int) -> Cap | None:
    """Place the failed request: on top of what was in use, and never ending below the limit that it did not fit under.

    Where free memory was in pieces too small for it, it stands on top of those: what is free below could not be used.
    """
    diagnosis = outcome.diagnosis
    if diagnosis is None or diagnosis.requested is None or outcome.comparison is not None:
        return None
    requested, limit = diagnosis.requested, diagnosis.limit
    base = diagnosis.in_use if diagnosis.in_use is not None else highest
    if limit is not None and base + requested <= limit:
        dump = next(iter(outcome.recording.dumps[-1:]), None)
        usable = dump.largest_free if dump is not None and dump.largest_free is not None else 0
        base = limit - min(usable, requested - 1)
    end = base + requested
    if not diagnosis.larger_than_device:
        end = min(end, max(int(_MORE * max(highest, limit or 0, base)), base + 1))
    is_whole = end == base + requested
    return Cap(base, end, "✗ needed" if is_whole else f"✗ +{amount(requested, unit_of(outcome))}")


def _limit_words(limit: int | None, near: bool, unit: Unit) -> str:
    if limit is None:
        return ""
    return (
        f"limit {amount(limit, unit)}"
        if near
        else f"↑ limit {amount(limit, unit if limit < 1000 * unit.size else None)}"
    )


def _peak_words(series: Series, unit: Unit) -> str:
    if series.peak is None:
        return ""
    bound = "≥ " if series.peak_basis == "sampled" else ""
    return f"peak {bound}{amount(series.peak, unit)} {peak_moment(series)}".rstrip()


def _highest(series: Series) -> int:
    return max(series.peak or 0, *series.values, 0)


def _last(series: Series) -> float:
    return series.times[-1] if series.times else 0.0
