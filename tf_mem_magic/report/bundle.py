"""The static report as a MIME bundle: what is saved, printed and exported."""

from __future__ import annotations

import base64
import json

from tf_mem_magic.core.live import Live
from tf_mem_magic.core.outcome import Outcome


def static_bundle(outcome: Outcome, *, with_figure: bool = True, above_panel: bool = False) -> dict[str, str]:
    """Give the report as HTML and plain text; the figure is a picture inside the HTML.

    A run too short for a timeline gets no figure. ``above_panel`` leaves out what a panel below shows with buttons.
    """
    from tf_mem_magic.report.html import render_html
    from tf_mem_magic.report.sentences import has_timeline
    from tf_mem_magic.report.text import render_text

    picture = None
    if with_figure and has_timeline(outcome):
        from tf_mem_magic.report.figure import draw_png

        picture = base64.b64encode(draw_png(outcome)).decode("ascii")
    return {"text/html": render_html(outcome, picture, above_panel=above_panel), "text/plain": render_text(outcome)}


def changed_cell_bundle(outcome: Outcome, applied: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Give the report with the cell that really ran and the remedies (key, title) that changed it, also as JSON.

    For runs that nobody watches: the notebook keeps the old source, so what ran must be told.
    """
    from tf_mem_magic.report.html import escaped

    bundle = static_bundle(outcome)
    source = outcome.recording.cell.source
    titles = ", ".join(title for _, title in applied)
    told = f"Changed without a click: {titles}. The cell as it ran:"
    bundle["text/plain"] += f"\n\n{told}\n{source}"
    bundle["text/html"] += f"<div>{escaped(told)}</div><pre>{escaped(source)}</pre>"
    changes = [{"remedy": key, "title": title} for key, title in applied]
    record = {"status": outcome.recording.status, "changes": changes, "source": source}
    return {**bundle, "application/json": json.loads(json.dumps(record))}


def running_bundle(live: Live) -> dict[str, str]:
    """Say that the cell is running and what its memory is: what is left where the job is killed."""
    from tf_mem_magic.report.html import escaped
    from tf_mem_magic.report.strip import summary

    text = f"● {summary(live)}"
    return {"text/html": f"<div>{escaped(text)}</div>", "text/plain": text}
