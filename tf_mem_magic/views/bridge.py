"""The bridge: one small anywidget that draws the live strip and carries the panel's wishes to the notebook."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from tf_mem_magic.views.anchor import drop_anchor

_SCRIPTS = ("notebook.js", "notice.js", "strip.js", "moments.js", "replay.js", "bridge.js")


@lru_cache(maxsize=1)
def script() -> str:
    """Give the page's script, one module joined from its parts, with the style of what lies around the panel."""
    folder = files("tf_mem_magic.views")
    around = (folder / "page.css").read_text(encoding="utf-8")
    parts = (f"const PAGE_STYLE = {json.dumps(around)};", *((folder / n).read_text(encoding="utf-8") for n in _SCRIPTS))
    return "\n".join(parts)


@lru_cache(maxsize=1)
def style() -> str:
    """Give the style sheet; the panel carries it in its HTML, so that it works without the script."""
    return (files("tf_mem_magic.views") / "bridge.css").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _bridge_class() -> Any:
    import anywidget
    import traitlets

    class Bridge(anywidget.AnyWidget):
        """Page side of a panel; talks by custom messages ``{"op": ...}``, both ways."""

        _esm = script()
        root = traitlets.Unicode().tag(sync=True)
        view_id = traitlets.Unicode().tag(sync=True)
        announce = traitlets.Unicode().tag(sync=True)
        frozen = traitlets.Unicode().tag(sync=True)
        running = traitlets.Bool(True).tag(sync=True)
        buttons = traitlets.Int(0).tag(sync=True)
        failed = traitlets.Bool(False).tag(sync=True)
        elapsed = traitlets.Float(0.0).tag(sync=True)
        fresh = traitlets.Bool(False).tag(sync=True)

    return Bridge


def open_bridge(root: str, view_id: str, on_message: Callable[[Mapping[str, Any]], None]) -> Any:
    """Open the bridge of the panel whose outer widget has the model id ``view_id`` and the class ``root``.

    ``on_message`` gets each message of the page, in whatever thread the kernel handles it.
    """
    drop_anchor()
    bridge = _bridge_class()(root=root, view_id=view_id)
    bridge.on_msg(lambda _widget, content, _buffers: on_message(content))
    return bridge
