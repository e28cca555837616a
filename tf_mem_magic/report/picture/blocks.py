"""The timeline drawn of block characters, for terminals and for pages that drop styles."""

from __future__ import annotations

from tf_mem_magic.report.picture.chart import Chart, Curve

_BLOCKS = " ▁▂▃▄▅▆▇█"


def drawn(chart: Chart, width: int) -> list[str]:
    """Give the lines of a timeline of ``width`` columns; before and after, one above the other on the same axes."""
    lines = []
    for curve in reversed(chart.curves):
        label = f"{curve.name:<7}" if len(chart.curves) > 1 else ""
        rows = _rows(_spread(curve, width - len(label)), chart.top, 1 if label else 3)
        lines += [f"{label}{row}".rstrip() for row in rows[:-1]]
        lines.append(f"{label}{rows[-1].rstrip()} {curve.mark}".rstrip())
    return lines


def scale(chart: Chart) -> str:
    """Say what is drawn, from where to where, and over which time."""
    ceiling = f"the {chart.limit_label.replace('limit ', 'limit, ')}" if chart.limit == chart.top else chart.top_label
    beyond = f", {chart.limit_label}" if chart.limit_label and chart.limit != chart.top else ""
    return f"{chart.about}, drawn from 0 to {ceiling}, over {chart.end_label}{beyond}"


def _spread(curve: Curve, room: int) -> list[int | None]:
    """Give a curve in ``room`` places, each the largest of the columns that it covers."""
    count = len(curve.columns)
    spans = [
        curve.columns[i * count // room : max((i + 1) * count // room, i * count // room + 1)] for i in range(room)
    ]
    return [max((value for value in span if value is not None), default=None) for span in spans]


def _rows(body: list[int | None], top: int, rows: int) -> list[str]:
    """Draw values as ``rows`` lines of eighth-blocks, the highest line first; something is never drawn as nothing."""
    eighths = [None if v is None else max(1 if v else 0, round(v / top * rows * 8)) for v in body]
    return [
        "".join(" " if e is None else _BLOCKS[min(8, max(0, e - row * 8))] for e in eighths)
        for row in reversed(range(rows))
    ]
