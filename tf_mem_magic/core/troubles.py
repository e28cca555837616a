"""Troubles: errors of our own that were contained. Each leaves a line that reports and ``%tfmem doctor`` show."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from dataclasses import dataclass

KEPT = 200
"""Troubles that are remembered; the oldest go first."""

_LONGEST = 500
"""Characters of a line."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One contained error.

    Attributes
    ----------
    number : int
        Counts up over the life of the process.
    where : str
        What could not be done, in words.
    what : str
        The error: its class, its message, and the file and line where it arose.
    time : float
        Unix time at which it was noted first.
    """

    number: int
    where: str
    what: str
    time: float

    @property
    def sentence(self) -> str:
        """The line for the user."""
        return f"tf_mem_magic: {self.where} ({self.what})."


_lock = threading.Lock()
_log: deque[Trouble] = deque(maxlen=KEPT)
_count = 0


def note(where: str, error: BaseException | str) -> Trouble:
    """Remember an error of ours that was contained; never raises.

    Parameters
    ----------
    where : str
        What could not be done, for the user: ``"the facts of models are missing"``. The same error at the same
        place is remembered once for as long as nothing else comes between.
    error : exception or str
        The error, or what to say of it.
    """
    global _count
    what = error if isinstance(error, str) else describe(error)
    with _lock:
        if _log and (_log[-1].where, _log[-1].what) == (where, what):
            return _log[-1]
        _count += 1
        trouble = Trouble(_count, where, what, time.time())
        _log.append(trouble)
    return trouble


def tell(where: str, error: BaseException | str) -> Trouble:
    """Remember an error of ours, and say it in one line on stderr."""
    trouble = note(where, error)
    print(f"tf_mem_magic {where} ({trouble.what}). The cell itself is unaffected.", file=sys.stderr)
    return trouble


def mark() -> int:
    """Give the place in the log where it ends now; for :func:`since`."""
    return _count


def since(place: int = 0) -> tuple[str, ...]:
    """Give the sentences noted after ``place``, oldest first; each once."""
    with _lock:
        found = [trouble.sentence for trouble in _log if trouble.number > place]
    return tuple(dict.fromkeys(found))


def describe(error: BaseException) -> str:
    """Give an error as one printable line; never raises, whatever the error does when it is asked for its text."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = "its text cannot be had"
    text = f"{name}: {message}" if message else name
    place = _place(error)
    return _printable(f"{text}; at {place}" if place else text)


def _place(error: BaseException) -> str:
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    if entry is None:
        return ""
    return f"{entry.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{entry.tb_lineno}"


def _printable(text: str) -> str:
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
