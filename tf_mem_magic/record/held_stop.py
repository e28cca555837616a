"""A person's Stop (SIGINT) while our own code runs around the user's: held back there, and never lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_NONE: Any = object()


class StoppedError(Exception):
    """A Stop ended work of ours."""


class HeldStop:
    """Holds back Stops between :meth:`hold` and :meth:`let_go`; does nothing in other threads than the main one.

    Attributes
    ----------
    stopped : bool
        Whether a Stop came.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._raises = False
        self._before: Any = _NONE

    def hold(self) -> None:
        """Begin to hold Stops back."""
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # it is ignored, ends the process, or was not set by Python: none of our concern
            return
        self._before = handler
        signal.signal(signal.SIGINT, self._handle)

    def let_go(self) -> None:
        """Give the signal back to whom it belonged; idempotent. A Stop from now on is raised as always."""
        before = self._before
        if before is _NONE:
            return
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, before)
        self._before = _NONE

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work``, which a Stop may end, and give what it gives.

        Raises
        ------
        StoppedError
            If a Stop came, now or before.
        """
        if self.stopped:
            raise StoppedError
        try:
            self._raises = True
            made = work()
        except KeyboardInterrupt:
            self.stopped = True
        except Exception:
            if not self.stopped:  # what a Stop came through as, where a library has turned it into an error of its own
                raise
        finally:
            self._raises = False
        if self.stopped:
            raise StoppedError
        return made

    def run_cell(self, work: Callable[[], T]) -> T | None:
        """Call ``work``, which runs code of the user's, as if no Stop were held back; None where one came through."""
        if self.stopped:
            return None
        held = self._before is not _NONE
        self.let_go()
        try:
            return work()
        except KeyboardInterrupt:
            self.stopped = True
            return None
        finally:
            if held:
                self.hold()

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.stopped = True
        if self._raises:
            self._raises = False
            raise KeyboardInterrupt
