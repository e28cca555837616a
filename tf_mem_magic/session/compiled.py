"""Which cells the shell has compiled: the frames of an error name the one that ran."""

from __future__ import annotations

import linecache
from typing import Any


def compiled_cells(shell: Any) -> dict[str, float]:
    """Give the file names under which the shell compiled its cells, each with a number that a new run changes.

    It is the execution count; IPython 7 does not keep that with the name, but the time.
    """
    counts = getattr(getattr(shell, "compile", None), "_filename_map", None)
    if counts is not None:
        return dict(counts)
    return {name: entry[1] for name, entry in getattr(linecache, "_ipython_cache", {}).items()}
