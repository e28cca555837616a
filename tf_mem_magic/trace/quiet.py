"""What one thread prints is kept from the page while it traces; other threads print on."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import TextIO


class _Quiet(io.StringIO):
    def __init__(self, real: TextIO) -> None:
        super().__init__()
        self._real, self._thread = real, threading.get_ident()

    def write(self, text: str, /) -> int:
        return len(text) if threading.get_ident() == self._thread else self._real.write(text)

    def flush(self) -> None:
        self._real.flush()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what this thread writes to ``sys.stdout`` meanwhile."""
    with contextlib.redirect_stdout(_Quiet(sys.stdout)):
        yield
