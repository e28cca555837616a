"""A plan as HTML: the table with a bar for each peak, readable without the colours."""

from __future__ import annotations

from tf_mem_magic.diagnose.planning.values import Plan, Row
from tf_mem_magic.report.html.markup import FAINT, LINE, MONO, escaped, line, prose
from tf_mem_magic.report.picture.palette import BEFORE, FAILED
from tf_mem_magic.report.plan import HEAD, basis, cells, fits_here, headline, heads, is_tight

_WIDE = "min(160px,22vw)"
"""How long the longest bar is: on a narrow page the batches beside it are to be seen."""

_LABEL = "Ways to train, and the largest batch that fits"
"""What the table is called where it is reached by the keyboard, to be scrolled."""

_CELL = "padding:2px 14px 2px 0;white-space:nowrap"
_FIRST = "padding:2px 14px 2px 0;white-space:normal;min-width:9em;text-align:left"
"""Of the column that names the ways, which may take several lines."""


def plan_html(plan: Plan) -> str:
    """Give a plan as HTML."""
    names = heads(plan)
    styles = [_FIRST, *(f"{_CELL};text-align:right" for _ in names[1:])]
    over = (
        f'<tr style="background:none"><td colspan="2"></td><th scope="colgroup" colspan="{len(names) - 2}" '
        f'style="{_CELL};text-align:left;font-weight:600;border-bottom:{LINE}">{escaped(HEAD)}</th></tr>'
    )
    head = "".join(
        f'<th scope="col" style="{style};font-weight:600">{escaped(name) or "way to train"}</th>'
        for name, style in zip(names, styles)
    )
    body = "".join(_row(plan, row, words, styles) for row, words in zip(plan.rows, cells(plan)))
    box = f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="{_LABEL}">'
    table = (
        f'{box}<table style="border-collapse:collapse;margin:4px 0;{MONO};border:0">'
        f'<thead>{over}<tr style="background:none">{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    told = [line(f"<b>{prose(headline(plan))}</b>"), line(prose(fits_here(plan))), table, line(prose(basis(plan)))]
    return "".join([*told, *(line(prose(note)) for note in plan.notes)])


def _row(plan: Plan, row: Row, words: tuple[str, ...], styles: list[str]) -> str:
    first = f'<th scope="row" style="{styles[0]};font-weight:normal">{escaped(words[0])}</th>'
    peak = f'<td style="{styles[1]}">{escaped(words[1])}{_bar(plan, row)}</td>'
    rest = "".join(f'<td style="{style}">{escaped(word)}</td>' for word, style in zip(words[2:], styles[2:]))
    return f'<tr style="background:none">{first}{peak}{rest}</tr>'


def _bar(plan: Plan, row: Row) -> str:
    """Draw a peak: full up to the lower end, faint up to the upper one."""
    longest = max(one.high for one in plan.rows) or 1
    low = round(100 * row.low / longest)
    high = round(100 * row.high / longest) - low
    colour = FAILED if is_tight(plan, row) else BEFORE
    box, whole = "display:inline-block;height:6px;vertical-align:middle", f"width:{_WIDE};margin-left:auto"
    return (
        f'<span aria-hidden="true" style="display:block;{whole};text-align:left;line-height:8px">'
        f'<span style="{box};width:{low}%;background:{colour}"></span>'
        f'<span style="{box};width:{high}%;background:{FAINT};border:1px solid {colour};box-sizing:border-box"></span>'
        "</span>"
    )
