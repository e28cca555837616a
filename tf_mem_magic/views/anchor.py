"""One widget that never closes, so that the page's way to the kernel stays open."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


def drop_anchor() -> None:
    """Open the widget that stays, where there is none: before the first panel, and after ``Widget.close_all()``.

    JupyterLab 4.4 and later carries what the page says to all widgets over one subshell of the kernel, and deletes that
    with the last of them (``CommHandler`` of its services package). A widget that opens in the same moment still takes
    the one that goes: ipykernel then answers "Unknown subshell_id", and every word of the page is lost, clicks too. A
    rerun closes a panel and opens the next.
    """
    if _anchor().comm is None:
        _anchor.cache_clear()
        _anchor()


@lru_cache(maxsize=1)
def _anchor() -> Any:
    import ipywidgets

    return ipywidgets.Layout()
