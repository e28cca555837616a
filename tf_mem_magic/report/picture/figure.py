"""The timeline as a matplotlib figure. Only matplotlib's object API: no pyplot, no backend chosen, no rcParams set."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Series
from tf_mem_magic.core.step import TracedSteps
from tf_mem_magic.core.units import Unit, brief_unit
from tf_mem_magic.report.comparison_words import MARKS, STATUS_WORDS
from tf_mem_magic.report.measures import OFF_SCALE, amount, focus, limit_of, peak_moment, unit_of
from tf_mem_magic.report.picture import palette
from tf_mem_magic.report.picture.chart import Cap, request_drawn
from tf_mem_magic.report.picture.curve import thinned
from tf_mem_magic.report.picture.moments import clock, moments_up_to
from tf_mem_magic.report.picture.stack import draw_stack
from tf_mem_magic.report.sentences import headline, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 6.6
_HEIGHT = 2.3
_STEPS = 1.9
"""Inches that traced steps add below the timeline."""

_DPI = 200
_COLOURS = 32
_POINTS = 700
_SIGNS = "✓✗●→×–≥…"
"""Signs in a headline that the font has, beside the letters of European languages."""

_TIGHT = 0.7
"""Share of its limit from which host memory gets a chart of its own beside a device's."""

_MOST_ROWS = 3
_FONT: dict[str, Any] = {
    "fontfamily": "DejaVu Sans",
    "fontsize": 9,
    "color": palette.TEXT,
    "usetex": False,
    "parse_math": False,
}
"""Set on every text, so that neither the user's rcParams nor a ``$`` in a name changes how it looks."""


def draw_png(outcome: Outcome, *, titled: bool = False) -> bytes:
    """Draw the timeline as a PNG with a transparent background, in few colours: notebooks carry it for good."""
    from PIL import Image

    figure = draw(outcome)
    if titled:
        _title(figure, f"{mark(outcome)} {headline(outcome)}")
    figure.set_dpi(_DPI)
    canvas: Any = figure.canvas
    canvas.draw()
    width, height = canvas.get_width_height()
    image = Image.frombuffer("RGBA", (width, height), bytes(canvas.buffer_rgba()), "raw", "RGBA", 0, 1)
    buffer = io.BytesIO()
    image.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _title(figure: Figure, words: str) -> None:
    """Put the headline on top, in as many lines as it takes; the charts keep their size below it."""
    lines = textwrap.wrap("".join(c if " " <= c < "\u0250" or c in _SIGNS else "?" for c in words), 80)
    width, height = figure.get_size_inches()
    taller = height + 0.19 * len(lines)
    boxes = [axes.get_position() for axes in figure.axes]
    figure.set_size_inches(width, taller)
    for axes, box in zip(figure.axes, boxes):
        axes.set_position((box.x0, box.y0 * height / taller, box.width, box.height * height / taller))
    figure.text(0.01, 1 - 0.03 / taller, "\n".join(lines), va="top", ha="left", **(_FONT | {"fontsize": 10}))


def draw(outcome: Outcome) -> Figure:
    """Draw the timeline: one row for each device, before beside after where there is a comparison."""
    comparison = outcome.comparison
    if comparison is not None and comparison.before is not None and comparison.after is not None:
        return _comparison(outcome)
    return _timeline(outcome)


def _figure(height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=100, facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def _timeline(outcome: Outcome) -> Figure:
    rows, hidden = _rows(outcome)
    traced = outcome.recording.traced
    steps = traced if traced is not None and traced.times else None
    figure = _figure(_HEIGHT + 0.8 * (max(len(rows), 1) - 1) + (_STEPS if steps else 0))
    heights = [1.6] + [0.8] * (len(rows) - 1)
    margins = _margins(figure, _STEPS if steps else 0)
    grid = figure.add_gridspec(max(len(rows), 1), 1, height_ratios=heights, hspace=0.45, **margins)
    if steps is not None:
        _steps(figure, steps)
    end = _end(outcome.recording.seconds, [series for row in rows for series in row])
    highest = max((_highest(row) for row in rows[:1]), default=0)
    failed = request_drawn(outcome, highest)
    right = end if failed is None else 1.035 * end
    for place, row in enumerate(rows or [()]):
        axes = figure.add_subplot(grid[place])
        limit = limit_of(outcome) if place == 0 else row[0].limit
        unit = unit_of(outcome) if place == 0 else brief_unit([_highest(row)])
        _panel(axes, row, unit, end, right, limit, failed if place == 0 else None)
        if place < len(rows) - 1:
            axes.set_xticklabels([])
        _legend(axes, row)
    if hidden:
        figure.text(0.99, 0.01, f"{hidden} more not drawn", ha="right", va="bottom", **_FONT)
    return figure


def _comparison(outcome: Outcome) -> Figure:
    """Draw both runs on the same axes: the run before as a silhouette behind the one after."""
    comparison = outcome.comparison
    assert comparison is not None
    before, after = comparison.before, comparison.after
    assert before is not None
    assert after is not None
    figure = _figure(_HEIGHT)
    axes = figure.add_subplot(figure.add_gridspec(1, 1, **_margins(figure))[0])
    unit, limit, end = unit_of(outcome), limit_of(outcome), _end(0.0, (before, after))
    times, values = thinned(before.times, before.values, _POINTS)
    scaled = [value / unit.size for value in values]
    axes.fill_between(times, scaled, color=palette.BEFORE, alpha=0.5, linewidth=0)
    axes.plot(times, scaled, color=palette.TEXT, linewidth=0.9, linestyle="-")
    _panel(axes, (after,), unit, end, end, limit, None, _highest((before,)))
    words = [(f"■ before: {STATUS_WORDS[comparison.status_before]} {MARKS[comparison.status_before]}", palette.TEXT)]
    colour = palette.SERIES.get(after.kind, palette.TEXT)
    words.append((f"■ after: {STATUS_WORDS[comparison.status_after]} {MARKS[comparison.status_after]}", colour))
    _named(axes, words)
    return figure


def _margins(figure: Figure, below: float = 0) -> dict[str, float]:
    width, height = figure.get_size_inches()
    bottom = (below + 0.28) / height
    return {"left": 0.42 / width, "right": 1 - 1.2 / width, "bottom": bottom, "top": 1 - 0.32 / height}


def _steps(figure: Figure, traced: TracedSteps) -> None:
    """Draw the traced steps below the timeline, on their own scales."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.42 / width, 0.28 / height, 1 - 1.62 / width, (_STEPS - 0.62) / height))
    unit = brief_unit([traced.peak])
    draw_stack(axes, traced, unit, _FONT)
    _frame(axes, unit, traced.seconds or 1e-3, traced.peak)
    _named(axes, [("traced steps", palette.TEXT)])


def _rows(outcome: Outcome) -> tuple[list[tuple[Series, ...]], int]:
    """Group the series by device, the report's main one first; host memory joins it where the scales allow."""
    main = focus(outcome)
    if main is None:
        return [], 0
    groups: dict[str | None, list[Series]] = {main.device: []}
    for series in outcome.recording.series:
        groups.setdefault(series.device, []).append(series)
    host = groups.pop(None, [])
    rows = [tuple(sorted(group, key=lambda s: s.name != main.name)) for group in groups.values() if group]
    if not rows:
        return [tuple(host)], 0
    top = max(_highest(rows[0]), limit_of(outcome) or 0)
    if host and 0.1 * top <= _highest(host) <= 1.2 * top:
        rows[0] = (*rows[0], *host)
    elif host and any(s.limit and (s.peak or 0) > _TIGHT * s.limit for s in host):
        rows.insert(1, tuple(host))
    return rows[:_MOST_ROWS], max(0, len(rows) - _MOST_ROWS)


def _highest(row: tuple[Series, ...] | list[Series]) -> int:
    return max([0, *(s.peak or 0 for s in row), *(max(s.values, default=0) for s in row)])


def _end(seconds: float, row: tuple[Series, ...] | list[Series]) -> float:
    return max([seconds, *(series.times[-1] for series in row if series.times)]) or 1e-3


def _panel(
    axes: Axes,
    row: tuple[Series, ...],
    unit: Unit,
    end: float,
    right: float,
    limit: int | None,
    failed: Cap | None,
    top: int = 0,
) -> None:
    """Draw one device: its first series filled, the others as thin lines, limit, peak and the failed request."""
    highest = max(top, _highest(row))
    beyond = limit is not None and limit > OFF_SCALE * highest > 0
    if limit is not None and not beyond:
        highest = max(highest, limit)
    ceiling = highest
    if failed is not None:
        ceiling = max(highest, failed.end)
    ceiling = ceiling or unit.size
    labels: list[tuple[float, str, str]] = []
    for place, series in enumerate(row):
        _curve(axes, series, unit, filled=place == 0)
    if row and row[0].peak is not None:
        labels.append(_peak(axes, row[0], unit, end))
    if limit is not None:
        words = f"limit {amount(limit, unit if limit < 1000 * unit.size else None)}"
        if beyond:
            labels.append((1.06 * ceiling / unit.size, f"↑ {words}", palette.LIMIT))
        else:
            axes.axhline(limit / unit.size, color=palette.LIMIT, linewidth=1, dashes=(4, 3))
            labels.append((limit / unit.size, words, palette.LIMIT))
    if failed is not None:
        _cap(axes, failed, unit, end, ceiling)
        labels.append((failed.end / unit.size, failed.label, palette.FAILED))
    axes.set_xlim(0, right)
    axes.set_ylim(0, 1.06 * ceiling / unit.size)
    _write_labels(axes, labels)
    _frame(axes, unit, end, ceiling)
    if not row:
        axes.text(0.5, 0.5, "memory was not measured", ha="center", va="center", transform=axes.transAxes, **_FONT)


def _curve(axes: Axes, series: Series, unit: Unit, filled: bool) -> None:
    colour = palette.SERIES.get(series.kind, palette.TEXT)
    times, values = thinned(series.times, series.values, _POINTS)
    scaled = [value / unit.size for value in values]
    marker = "o" if len(scaled) == 1 else ""
    axes.plot(times, scaled, color=colour, linewidth=1.3 if filled else 0.9, marker=marker, markersize=4, linestyle="-")
    if filled and len(scaled) > 1:
        axes.fill_between(times, scaled, color=colour, alpha=0.35, linewidth=0)


def _peak(axes: Axes, series: Series, unit: Unit, end: float) -> tuple[float, str, str]:
    """Mark the peak; a counter's peak that no sample reached is a line of dots at its height."""
    assert series.peak is not None
    height = series.peak / unit.size
    colour = palette.SERIES.get(series.kind, palette.TEXT)
    time, seen = series.peak_time, max(series.values, default=0)
    if time is not None and seen >= 0.9 * series.peak:
        axes.plot([time], [height], marker="v", markersize=5, color=colour, linestyle="", clip_on=False)
        when = f"\n{peak_moment(series)}"
    else:
        axes.plot([0, end], [height, height], color=colour, linewidth=1, linestyle=":")
        when = "\nbetween samples" if series.values else "\nno samples"
    bound = "≥ " if series.peak_basis == "sampled" else ""
    return (height, f"peak {bound}{amount(series.peak, unit)}{when}", colour)


def _cap(axes: Axes, failed: Cap, unit: Unit, end: float, ceiling: int) -> None:
    from matplotlib.patches import Rectangle

    base = failed.base
    height = max(failed.end - base, 0.02 * ceiling) / unit.size
    axes.add_patch(
        Rectangle(
            (end, base / unit.size),
            0.032 * end,
            height,
            facecolor="none",
            edgecolor=palette.FAILED,
            hatch="//////",
            linewidth=1,
            clip_on=False,
        )
    )


def _write_labels(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write the labels right of the axes, at their heights, moved apart where they would overlap."""
    top = axes.get_ylim()[1]
    inches = axes.bbox.height / axes.figure.dpi
    line = 0.165 * top / inches
    floor = top
    for height, words, colour in sorted(labels, key=lambda label: -label[0]):
        half = line * (1 + words.count("\n")) / 2
        place = min(height, floor - half)
        axes.annotate(
            words,
            (1, place),
            xytext=(5, 0),
            textcoords="offset points",
            xycoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            linespacing=1.1,
            **(_FONT | {"color": colour}),
        )
        floor = place - half


def _frame(axes: Axes, unit: Unit, end: float, ceiling: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.patch.set_alpha(0)
    axes.grid(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.TEXT)
        spine.set_linewidth(0.6)
    axes.tick_params(which="both", color=palette.TEXT, length=3, width=0.6, direction="out", top=False, right=False)
    sizes = [s for s in MaxNLocator(nbins=3, steps=[1, 2, 4, 5, 10]).tick_values(0, ceiling / unit.size) if s >= 0]
    sizes = [s for s in sizes if s <= ceiling / unit.size]
    axes.set_yticks(sizes)
    axes.set_yticklabels([f"{s:g}" for s in sizes], **_FONT)
    axes.annotate(
        unit.name, (0, 1), xytext=(-6, 4), textcoords="offset points", xycoords="axes fraction", ha="right", **_FONT
    )
    moments = moments_up_to(end)
    axes.set_xticks(moments)
    axes.set_xticklabels([clock(m, end) for m in moments], **_FONT)


def _legend(axes: Axes, row: tuple[Series, ...]) -> None:
    """Name the device and its curves above the axes, each curve in its colour."""
    names = {"allocator": "in use", "process": "this process", "device": "device, all processes"}
    device = (row[0].device or "this process") if row else ""
    words = [(device.encode("ascii", "replace").decode("ascii"), palette.TEXT)]
    for series in row:
        name = "host memory" if series.kind == "host" else names.get(series.kind, series.kind)
        words.append((f"■ {name}", palette.SERIES.get(series.kind, palette.TEXT)))
    _named(axes, words)


def _named(axes: Axes, words: list[tuple[str, str]]) -> None:
    """Write names side by side above the axes, each in its colour."""
    place = 6.0
    for text, colour in words:
        drawn = axes.annotate(
            text,
            (0, 1),
            xytext=(place, 5),
            textcoords="offset points",
            xycoords="axes fraction",
            **(_FONT | {"color": colour}),
        )
        place += drawn.get_window_extent().width * 72 / axes.figure.dpi + 9
