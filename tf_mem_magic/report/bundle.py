"""The static report as MIME bundles: what is saved, printed and exported.

In a notebook a report takes three outputs: what happened, what can be done (live: the panel), and why. The picture is
in the last one alone, for exports that show no HTML; pages draw the chart themselves.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.report.picture.live import Live

PICTURE = "image/png"


def whole_bundle(outcome: Outcome) -> dict[str, str]:
    """Give the report as one output: HTML, plain text, and a picture for exports that show neither."""
    from tf_mem_magic.report.html.page import render_html
    from tf_mem_magic.report.text import render_text

    return {"text/html": render_html(outcome), "text/plain": render_text(outcome), **picture(outcome, titled=True)}


def head_bundle(outcome: Outcome) -> dict[str, str]:
    """Give what happened.

    As plain text it is the whole report, but for the timeline, which the last output has as a picture.
    """
    from tf_mem_magic.report.html.page import head_html
    from tf_mem_magic.report.text import render_text
    from tf_mem_magic.report.view import view_of

    return {"text/html": head_html(view_of(outcome)), "text/plain": render_text(outcome, chart=False)}


def choices_bundle(outcome: Outcome) -> dict[str, str]:
    """Give what can be done, for a page without buttons."""
    from tf_mem_magic.report.html.page import choices_html
    from tf_mem_magic.report.view import view_of

    return {"text/html": choices_html(view_of(outcome)), "text/plain": ""}


def rest_bundle(outcome: Outcome, *, with_picture: bool = True) -> dict[str, str]:
    """Give why: the chart, what filled the memory, what is folded; ``with_picture`` the chart also as a PNG."""
    from tf_mem_magic.report.html.page import rest_html
    from tf_mem_magic.report.view import view_of

    page = rest_html(view_of(outcome))
    return {"text/html": page, "text/plain": "", **(picture(outcome) if with_picture else {})}


def picture(outcome: Outcome, *, titled: bool = False) -> dict[str, str]:
    """Draw the timeline as a PNG in base64; nothing for a run too short for one.

    ``titled``: under its headline, for exports that show the picture in place of the words.
    """
    from tf_mem_magic.report.sentences import has_timeline

    if not has_timeline(outcome):
        return {}
    from tf_mem_magic.report.picture.figure import draw_png

    return {PICTURE: base64.b64encode(draw_png(outcome, titled=titled)).decode("ascii")}


def changed_cell_bundle(
    outcome: Outcome, applied: tuple[tuple[str, str], ...], remarks: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Give the report with the cell that really ran and the remedies (key, title) that changed it, also as JSON.

    For runs that nobody watches: the notebook keeps the old source, so what ran must be told. ``remarks`` are
    sentences about the change.
    """
    from tf_mem_magic.report.html.markup import code_to_copy, escaped

    bundle: dict[str, Any] = whole_bundle(outcome)
    source = outcome.recording.cell.source
    titles = ", ".join(title for _, title in applied)
    told = " ".join([f"Changed without a click: {titles}.", *remarks, "The cell as it ran:"])
    bundle["text/plain"] += f"\n\n{told}\n{source}"
    bundle["text/html"] += f"<div>{escaped(told)}</div>{code_to_copy(source)}"
    changes = [{"remedy": key, "title": title} for key, title in applied]
    return {**bundle, **_record(outcome, changes, source, remarks)}


def tried_bundle(outcome: Outcome) -> dict[str, Any]:
    """Give the report of a run that nothing helped, with all that was tried without a click, also as JSON."""
    from tf_mem_magic.report.html.markup import code_to_copy, escaped
    from tf_mem_magic.report.tries import words_of

    bundle: dict[str, Any] = whole_bundle(outcome)
    for number, one in enumerate(outcome.tries, 1):
        bundle["text/html"] += f"<div>Tried {number}: {escaped(words_of(one))}</div>{code_to_copy(one.source)}"
    return {**bundle, **_record(outcome, [], outcome.recording.cell.source)}


def _record(
    outcome: Outcome, changes: list[dict[str, str]], source: str, remarks: tuple[str, ...] = ()
) -> dict[str, Any]:
    from tf_mem_magic.report.tries import tries_json

    record = {
        "status": outcome.recording.status,
        "changes": changes,
        "remarks": list(remarks),
        "tries": tries_json(outcome),
        "source": source,
    }
    return {"application/json": json.loads(json.dumps(record))}


def undone_bundle(said: str) -> dict[str, str]:
    """Say that the cell has its old code again, in the place of the report."""
    from tf_mem_magic.report.html.markup import prose

    head = '<span style="font-weight:600;font-size:1.15em">↶ Undone, not run yet</span>'
    page = f'<section class="tfmem-report"><div class="tfmem-headline">{head}</div><div>{prose(said)}</div></section>'
    return {"text/html": page, "text/plain": f"↶ Undone, not run yet. {said}"}


def running_bundle(live: Live) -> dict[str, str]:
    """Say that the cell is running and what its memory is: what is left where the job is killed."""
    from tf_mem_magic.report.html.markup import escaped
    from tf_mem_magic.report.picture.strip import summary

    text = f"● {summary(live)}"
    return {"text/html": f"<div>{escaped(text)}</div>", "text/plain": text}
