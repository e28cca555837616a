"""The static report as a MIME bundle: what is saved, printed and exported."""

from __future__ import annotations

import base64

from tf_mem_magic.core.outcome import Outcome


def static_bundle(outcome: Outcome, *, with_figure: bool = True, above_panel: bool = False) -> dict[str, str]:
    """Give the report as HTML and plain text; the figure is a picture inside the HTML.

    A run too short for a timeline gets no figure. ``above_panel`` leaves out what a panel below shows with buttons.
    """
    from tf_mem_magic.core.page import render_html
    from tf_mem_magic.core.sentences import has_timeline
    from tf_mem_magic.core.text import render_text

    picture = None
    if with_figure and has_timeline(outcome):
        from tf_mem_magic.views.figure import draw_png

        picture = base64.b64encode(draw_png(outcome)).decode("ascii")
    return {"text/html": render_html(outcome, picture, above_panel=above_panel), "text/plain": render_text(outcome)}
