"""The chart and the bars as HTML: coloured boxes and words in the page's own colour, nothing that a sanitiser drops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from tf_mem_magic.report.choices import UNKNOWN, Expected
from tf_mem_magic.report.html.markup import FAINT, LINE, escaped, fold, line, prose
from tf_mem_magic.report.picture import blocks
from tf_mem_magic.report.picture.chart import COLUMNS, Chart, Curve
from tf_mem_magic.report.picture.palette import BEFORE, FAILED, PARTS, SERIES
from tf_mem_magic.report.sentences import Share
from tf_mem_magic.report.view import Bar

_HEIGHT = 92
"""Pixels of the chart's box."""

_BLOCKS_WIDE = 60
"""Characters of the timeline that is seen where styles are dropped."""

_CAP = 4
"""Columns that the failed request takes, at the end of time."""

_WORTH_NAMING = 0.01
"""Share of what was in use below which a part is drawn, but not named."""

_STRIP = "font-size:0;line-height:0;white-space:nowrap;overflow:hidden"
_BOXES = "display:flex;align-items:flex-end;overflow:hidden"
_WIDE = "max-width:700px"


def chart_html(chart: Chart, words: str, *, timed: bool = True) -> str:
    """Draw a timeline; ``words`` describe it for those who cannot see it, ``timed``: the end of time is written."""
    edge = chart.limit if chart.limit is not None else chart.top
    above = round(_HEIGHT * (chart.top - edge) / chart.top)
    below = _HEIGHT - above
    # What lies above the limit is a strip of its own, so that the limit is the line between the two.
    upper, lower = [], _columns(chart.curves, below / edge, below)
    if chart.cap is not None:
        upper += [
            f'<span style="flex:{COLUMNS}"></span>',
            _cap(chart.cap.base - edge, chart.cap.end - edge, _HEIGHT / chart.top, above),
        ]
        lower.append(_cap(chart.cap.base, min(chart.cap.end, edge), below / edge, below))
    limit = ";border-top:1px dashed rgba(127,127,127,0.9)" if chart.limit is not None else ""
    drawn = f'<div style="{_BOXES};height:{above}px">{"".join(upper)}</div>' if above else ""
    drawn += f'<div style="{_BOXES};height:{below}px{limit}">{"".join(lower)}</div>'
    drawn += "".join(_line(curve, below / edge, below, chart.cap is not None) for curve in chart.lines)
    frame = f"{_WIDE};margin:2px 0;border-left:{LINE};border-bottom:{LINE}"
    picture = f'<div role="img" aria-label="{escaped(words)}" style="{frame}">{drawn}</div>'
    picture += (_times(chart) if timed else "") + _in_blocks(chart)
    return f'<div style="margin:6px 0">{_legend(chart)}{picture}</div>'


def _in_blocks(chart: Chart) -> str:
    """Draw the timeline once more, of characters: seen only where a viewer drops every style, as GitHub's does."""
    rows = "\n".join((*blocks.drawn(chart, _BLOCKS_WIDE), blocks.scale(chart)))
    return f'<pre style="display:none">{escaped(rows)}</pre>'


def _cap(base: int, end: int, scale: float, most: int) -> str:
    """Give the failed request's box from ``base`` to ``end`` bytes above the strip's lower edge."""
    low, high = (min(most, max(0, round(scale * value))) for value in (base, end))
    lift = f";margin-bottom:{low}px" if low else ""
    return f'<span style="flex:{_CAP};height:{max(high - low, 0)}px;background:{FAILED}{lift}"></span>'


def _line(curve: Curve, scale: float, most: int, has_cap: bool) -> str:
    """Lay a thin line over the columns: spans with nothing but an upper edge, drawn back up over the strip."""
    heights = [None if value is None else min(most, round(scale * value)) for value in curve.columns]
    edge = f";border-top:1px solid {SERIES.get(curve.kind, PARTS['other'])}"
    spans = []
    for height, same in groupby(heights):
        style = f"flex:{len(list(same))};height:{max((height or 0) - 1, 0)}px{'' if height is None else edge}"
        spans.append(f'<span style="{style}"></span>')
    rest = f'<span style="flex:{_CAP}"></span>' if has_cap else ""
    return f'<div style="{_BOXES};height:{most}px;margin-top:-{most}px">{"".join(spans)}{rest}</div>'


def _columns(curves: Sequence[Curve], scale: float, most: int) -> list[str]:
    """Give the columns from left to right; what the run before had more of stands on top, in its own colour."""
    first = curves[0]
    behind = curves[1].columns if len(curves) > 1 else (None,) * len(first.columns)
    heights = [
        (min(most, round(scale * (now or 0))), min(most, round(scale * (then or 0))))
        for now, then in zip(first.columns, behind)
    ]
    colour = SERIES.get(first.kind, PARTS["other"])
    boxes = []
    for (now, then), same in groupby(heights):
        top = f";border-top:{then - now}px solid {BEFORE}" if then > now else ""
        boxes.append(f'<span style="flex:{len(list(same))};height:{now}px;background:{colour}{top}"></span>')
    return boxes


def _legend(chart: Chart) -> str:
    """Name what is drawn, each name behind its colour."""
    first = chart.curves[0]
    words = [(SERIES.get(first.kind, PARTS["other"]), first.name if len(chart.curves) == 1 else f"after {first.mark}")]
    if len(chart.curves) > 1:
        words.append((BEFORE, f"before {chart.curves[1].mark}"))
    words += [(SERIES.get(curve.kind, PARTS["other"]), curve.name) for curve in chart.lines]
    if chart.cap is not None:
        words.append((FAILED, chart.cap.label))
    named = "".join(
        f'<span style="display:inline-block;margin-right:14px">'
        f'<span style="color:{colour}" aria-hidden="true">■</span> {prose(text)}</span>'
        for colour, text in words
    )
    # The sentence above says how high it is; what is beyond the chart is told here.
    line = "limit" if chart.limit is not None else chart.limit_label
    limit = f'<span style="display:inline-block"><span aria-hidden="true">┄</span> {prose(line)}</span>'
    return f"<div>{named}{limit if line else ''}</div>"


def _times(chart: Chart) -> str:
    return f'<div style="{_WIDE};text-align:right">{escaped(chart.end_label)}</div>'


def bar_html(bar: Bar) -> str:
    """Draw what filled the memory: one bar in parts, and what most of it was; opened, every part and its layers."""
    parts = "".join(
        f'<span style="display:inline-block;vertical-align:top;height:12px;width:{100 * share.fraction:.2f}%;'
        f"box-sizing:border-box;border-right:1px solid rgba(127,127,127,0.15);"
        f'background:{PARTS.get(share.kind, PARTS["other"])}"></span>'
        for share in bar.shares
    )
    named = [_part_named(share) for share in bar.shares if share.fraction >= _WORTH_NAMING]
    first = "".join(named[: bar.main])
    rest = f"<div>{''.join(named)}</div>" if len(named) > bar.main else ""
    opened = line(prose(bar.heading)) + rest + line(prose(bar.layers))
    return (
        f'<div style="margin:6px 0 10px"><div style="{_STRIP};{_WIDE};border-radius:2px;margin:2px 0" role="img" '
        f'aria-label="{escaped(bar.heading)}">{parts}</div>{fold(first, opened)}</div>'
    )


def _part_named(share: Share) -> str:
    """Name a part of the bar behind its colour."""
    return (
        f'<span style="display:inline-block;margin-right:14px" title="{escaped(share.basis)}">'
        f'<span style="color:{PARTS.get(share.kind, PARTS["other"])}" aria-hidden="true">■</span> '
        f"{prose(share.label)} <b>{escaped(share.amount)}</b></span>"
    )


def expected_html(expected: Expected | None) -> str:
    """Give the peak to expect with its word and a small bar; without one an empty place, with its meaning to hover."""
    if expected is None:
        return f'<span title="{UNKNOWN}" aria-label="not known" role="img" style="cursor:help">┄┄</span>'
    words = escaped(expected.range) + (f" <b>{escaped(expected.word)}</b>" if expected.word else "")
    if expected.low is None or expected.high is None:
        return f'<span title="expected peak: {escaped(expected.basis)}">{words}</span>'
    low, high = (56 * min(1.0, max(0.0, share)) for share in (expected.low, expected.high))
    frame = (
        f"display:inline-block;width:56px;height:8px;vertical-align:middle;border:{LINE};background:{FAINT};{_STRIP}"
    )
    parts = _part(low, "") + _part(max(high - low, 1), ";opacity:0.5")
    bar = f'<span aria-hidden="true" style="{frame}">{parts}</span>'
    return f'<span title="expected peak: {escaped(expected.basis)}">{words} {bar}</span>'


def _part(width: float, more: str) -> str:
    style = f"display:inline-block;vertical-align:top;height:8px;width:{width:.0f}px;background:{PARTS['other']}{more}"
    return f'<span style="{style}"></span>'
