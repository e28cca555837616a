"""One colour for each category, the same in figure, bar and table.

Every colour has a contrast of 3:1 or more against white and against ``#111``, so that one picture serves light and
dark pages, and neighbours differ for people who see red and green alike (the tests compute both). A colour is never
the only carrier of a meaning.
"""

from __future__ import annotations

IN_USE = "#1976d2"
POOL = "#8e552f"
PROCESS = "#7b24ff"
DEVICE = "#767676"
HOST = "#c77700"
LIMIT = "#767676"
FAILED = "#d6281e"
BEFORE = "#9a9a9a"
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
    "optimizer": "#b8336a",
    "weights": "#8a9400",
    "values": "#1f9e97",
    "arrays": "#8b977b",
    "earlier": "#836e4e",
    "garbage": "#6040f0",
    "inputs": "#b3824e",
    "activations": "#1e9bdb",
    "gradients": "#297608",
    "updates": "#3c8da9",
    "workspace": "#136fa2",
    "rounding": "#4c7afc",
}
"""Colour by a part's kind. Activations and temporaries are what the timeline moves with, so they share its colour."""
