"""Which text is an edited version of a cell, where cells have no names: by what it binds, and by its likeness."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import SequenceMatcher

from tf_mem_magic.core.tag import TAG, find_tag
from tf_mem_magic.notebook.read_first import bound_anew, rebuilt_names
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

LIKE = 0.6
"""Share of two texts that must agree for one to be the other, edited, by likeness alone."""

_LONG = 2000
"""Characters from which on texts are compared by lines."""


def is_version(text: str, cell: str, others: Collection[str] = ()) -> bool:
    """Tell whether ``text`` is ``cell``, edited: it binds what the cell binds, or most of it is the same.

    Parameters
    ----------
    text : str
        What ran, or stands in the notebook now.
    cell : str
        The cell as it was.
    others : collection of str
        The other cells of the notebook: a text that is one of them, or more like it, is no version of ``cell``.
    """
    if _plain(text) == _plain(cell):
        return True
    if not _plain(text) or any(_plain(text) == _plain(other) for other in others):
        return False
    like = _likeness(text, cell)
    if any(_likeness(text, other) > like for other in others):
        return False
    binds = _binds(cell)
    return like >= LIKE or (bool(binds) and binds <= rebuilt_names(text))


def newest_version(texts: Sequence[str], cell: str, others: Collection[str] = ()) -> int | None:
    """Give the place of the last text that is ``cell``, edited or not; None: there is none."""
    return next((n for n in reversed(range(len(texts))) if is_version(texts[n], cell, others)), None)


def version_among(texts: Iterable[str], cell: str, others: Collection[str] = ()) -> str:
    """Give the text of the notebook that is ``cell`` now: itself where it is there, else its only edited version.

    Where there is none, or several may be it, ``cell``.
    """
    found = {text for text in texts if is_version(text, cell, others)}
    return next(iter(found)) if len(found) == 1 and not any(_plain(t) == _plain(cell) for t in found) else cell


def _plain(text: str) -> str:
    lines = text.strip().splitlines()
    tagged = find_tag(text) is not None
    return "\n".join(line for line in lines if not (tagged and line.startswith(TAG))).strip()


def _likeness(one: str, other: str) -> float:
    a, b = _plain(one), _plain(other)
    if max(len(a), len(b)) > _LONG:
        return SequenceMatcher(None, a.splitlines(), b.splitlines(), autojunk=False).ratio()
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def _binds(text: str) -> set[str]:
    read = read_cell(text)
    return bound_anew(read.tree.body) if isinstance(read, PythonCell) else set()
