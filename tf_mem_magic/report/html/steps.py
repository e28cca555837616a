"""Traced steps as HTML: their course stacked by kind, a table by layer, and what else is to be said."""

from __future__ import annotations

from itertools import groupby

from tf_mem_magic.report.html.markup import LINE, escaped, line, plain, prose, table
from tf_mem_magic.report.picture.palette import PARTS
from tf_mem_magic.report.picture.stack import Column, columns_of
from tf_mem_magic.report.traced import StepsView

_HEIGHT = 92
"""Pixels of the picture."""

_COLUMNS = 40
_WIDE = "max-width:700px"
_BEGINS = ";border-left:1px dashed rgba(127,127,127,0.9)"


def steps_html(steps: StepsView) -> str:
    """Draw what ``--trace`` saw, and list it by layer; without events the reason alone."""
    parts = [line(prose(steps.heading))]
    if steps.shares:
        listed = table(("bytes", "share", "layer", "kind"), steps.rows)
        parts += [_picture(steps), _legend(steps), line(prose(steps.layers)), listed, line(escaped(steps.more))]
    return "".join((*parts, *(line(prose(note)) for note in steps.notes)))


def _picture(steps: StepsView) -> str:
    columns = columns_of(steps.traced, _COLUMNS)
    peak = max(steps.traced.peak, 1)
    drawn = [(_pieces(column, peak), column.begins) for column in columns]
    # A step that begins is a column of its own, for its line.
    boxes = []
    for number, ((pieces, begins), same) in enumerate(groupby(drawn)):
        count = len(list(same))
        edge = _BEGINS if begins and number else ""
        boxes.append(f'<span style="flex:{count}{edge}">{pieces}</span>')
    frame = f"{_WIDE};margin:2px 0;border-left:{LINE};border-bottom:{LINE};display:flex;height:{_HEIGHT}px"
    words = escaped(plain(f"{steps.heading}. {steps.layers}"))
    return f'<div role="img" aria-label="{words}" style="{frame};overflow:hidden">{"".join(boxes)}</div>'


def _pieces(column: Column, peak: int) -> str:
    """Give the boxes of a column from the top down; their heights sum to the whole, whatever is rounded."""
    edges, total = [0], 0
    for _, held in column.bytes:
        total += held
        edges.append(min(_HEIGHT, round(_HEIGHT * total / peak)))
    pieces = [f'<span style="display:block;height:{_HEIGHT - edges[-1]}px"></span>']
    for (kind, _), low, high in reversed(list(zip(column.bytes, edges, edges[1:]))):
        if high > low:
            colour = PARTS.get(kind, PARTS["other"])
            pieces.append(f'<span style="display:block;height:{high - low}px;background:{colour}"></span>')
    return "".join(pieces)


def _legend(steps: StepsView) -> str:
    named = "".join(
        f'<span style="display:inline-block;margin-right:14px" title="{escaped(share.basis)}">'
        f'<span style="color:{PARTS.get(share.kind, PARTS["other"])}" aria-hidden="true">■</span> '
        f"{prose(share.label)} <b>{escaped(share.amount)}</b></span>"
        for share in steps.shares
    )
    return f"<div>{named}</div>"
