"""An alarm: one timer at a time, for what the page must do in time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Alarm:
    """Calls something after a while, in a thread of its own, unless it is set anew or cancelled before."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def set(self, seconds: float, then: Callable[[], None]) -> None:
        """Call ``then`` in ``seconds``, in place of what was set before."""
        self.cancel()
        self._timer = threading.Timer(seconds, then)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Call nothing. Idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
