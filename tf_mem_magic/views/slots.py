"""Slots: outputs reserved before the cell runs, filled when there is something to say."""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import Mapping
from typing import Any

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Slot:
    """One display of the running cell, addressed by its display id.

    It publishes through the shell's publisher of the moment it was made, in that moment's context: so updates from
    the sampler's thread reach the right cell, also while the cell captures its own output.
    """

    def __init__(self, shell: Any) -> None:
        self._publish = shell.display_pub.publish
        self._context = contextvars.copy_context()
        self._id = f"tfmem-{uuid.uuid4().hex}"
        self._shown = self._holds = False

    def reserve(self) -> None:
        """Take the place in the cell's output, still empty."""
        self.fill({"text/html": "", "text/plain": ""})

    def fill(self, data: dict[str, Any]) -> None:
        """Show a MIME bundle in the slot, in place of what it held."""
        update, self._shown, self._holds = self._shown, True, any(data.values())
        self._context.copy().run(
            self._publish, data, {}, transient={"display_id": self._id}, update=update
        )  # fmt: skip

    def fill_widget(self, widget: Any, text: str) -> None:
        """Show an ipywidgets widget; ``text`` is for pages that cannot."""
        view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        self.fill({WIDGET_VIEW: view, "text/plain": text})

    def empty(self) -> None:
        """Show nothing any more; a slot that was never shown stays away."""
        if self._holds:
            self.reserve()


def can_show(shell: Any) -> bool:
    """Tell whether the shell has a page (a kernel), as opposed to a terminal."""
    return getattr(shell, "kernel", None) is not None


def is_attended(shell: Any) -> bool:
    """Tell whether a person sits before the page.

    nbclient, nbconvert and papermill run cells with ``allow_stdin`` off: nobody is there to click, and a widget
    would stay in the saved notebook, broken.
    """
    return can_show(shell) and bool(getattr(shell.kernel, "_allow_stdin", False))


def parent_cell_id(shell: Any) -> str | None:
    """Give the notebook's id of the cell that is running; None where the page does not tell."""
    cell_id = _parent_metadata(shell).get("cellId")
    return None if cell_id is None else str(cell_id)


def parent_tags(shell: Any) -> frozenset[str]:
    """Give the tags of the cell that is running; JupyterLab tells them, nbclient and papermill do not."""
    tags = _parent_metadata(shell).get("tags")
    return frozenset(map(str, tags)) if isinstance(tags, (list, tuple)) else frozenset()


def rerun_identity(shell: Any, info: Any) -> str | None:
    """Give the identity that the page's message carries where it runs a cell for one of our buttons.

    IPython passes the message's metadata on since version 9 (``info.cell_meta``); older ones leave it with the kernel.
    """
    identity = our_metadata(shell, info).get("rerun")
    return str(identity) if identity else None


def our_metadata(shell: Any, info: Any) -> Mapping[str, Any]:
    """Give what our own script in the page sent along with the request that runs the cell; empty for a person's."""
    for metadata in (getattr(info, "cell_meta", None), _parent_metadata(shell)):
        ours = metadata.get("tfmem") if isinstance(metadata, Mapping) else None
        if isinstance(ours, Mapping) and ours:
            return ours
    return {}


def _parent_metadata(shell: Any) -> Mapping[str, Any]:
    """Give what the page sent with the request that runs the cell."""
    try:
        metadata = shell.kernel.get_parent()["metadata"]
    except (AttributeError, KeyError, LookupError, TypeError):
        return {}
    return metadata if isinstance(metadata, Mapping) else {}
