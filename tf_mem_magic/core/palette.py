"""One colour for each category, the same in figure, bar and table.

Every colour has a contrast of 3:1 or more against white and against ``#111``, so that one picture serves light and
dark pages, and neighbours differ for people who see red and green alike (the tests compute both). A colour is never
the only carrier of a meaning.
"""

from __future__ import annotations

IN_USE = "#2f7fd1"
POOL = "#7a6ff0"
PROCESS = "#a855b8"
DEVICE = "#8a7a5c"
HOST = "#c26a12"
LIMIT = "#767676"
FAILED = "#d9362f"
TEXT = "#767676"

SERIES: dict[str, str] = {
    "allocator": IN_USE,
    "pool": POOL,
    "process": PROCESS,
    "device": DEVICE,
    "host": HOST,
}
"""Colour by a series' kind."""

PARTS: dict[str, str] = {
    "other": IN_USE,
    "optimizer": "#c26a12",
    "weights": "#0e9a72",
    "values": "#a855b8",
    "earlier": "#7d7d7d",
}
"""Colour by a part's kind. Activations and temporaries are what the timeline moves with, so they share its colour."""
