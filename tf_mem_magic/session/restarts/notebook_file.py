"""The notebook's file, where the front end tells which it is: its cells as they are saved now."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tf_mem_magic.session.restarts.plans import Owner

_MOST_BYTES = 64 * 2**20
"""A larger notebook is not read."""


@dataclass(frozen=True, slots=True)
class SavedCells:
    """The code cells of a notebook's file: sources ``by_id``, and when the file was written (Unix ``time``).

    A cell without an id, as in an old notebook, is named by its number.
    """

    by_id: Mapping[str, str]
    time: float


def saved_cells(owner: Owner) -> SavedCells | None:
    """Read the code cells of the owner's notebook; None where its file is not known or cannot be read."""
    path = Path(owner.notebook or os.devnull)
    if path.suffix != ".ipynb":
        return None
    for candidate in dict.fromkeys((path, Path(owner.folder) / path, Path(owner.folder) / path.name)):
        try:
            found = candidate.stat()
            if found.st_size > _MOST_BYTES:
                return None
            cells = json.loads(candidate.read_text(encoding="utf-8"))["cells"]
            code = {
                str(cell.get("id") or f"number {number}"): _text(cell["source"])
                for number, cell in enumerate(cells)
                if cell["cell_type"] == "code"
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        return SavedCells(code, found.st_mtime)
    return None


def _text(source: object) -> str:
    return "".join(source) if isinstance(source, list) else str(source)
