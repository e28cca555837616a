"""Warm-up: what an out-of-memory report needs is done while TensorFlow's allocator waits for memory anyway."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable

from tf_mem_magic.core import troubles
from tf_mem_magic.core.recording import Recording

_FIGURE = ("matplotlib.figure", "matplotlib.backends.backend_agg", "tf_mem_magic.report.picture.figure")

LONGEST = 3.0
"""Seconds for which a report waits at most for what is being read for it."""


class WarmUp:
    """Imports what a report needs and reads the notebook, in a thread of its own, once in a run.

    Only for a cell that is about to fail: elsewhere it would slow the cell down and change ``sys.modules``.

    Parameters
    ----------
    so_far : callable
        Gives the recording as if the cell failed now. It is explained, and the outcome dropped: what was read of the
        cell and of those before it stays known.
    """

    def __init__(self, so_far: Callable[[], Recording]) -> None:
        self._so_far = so_far
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, where it has not begun; returns at once and never raises."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._warm, name="tfmem-warm", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            pass  # no thread to be had: the report does it all itself

    def wait(self) -> None:
        """Wait until it is done, where it has begun: two threads that read the same would take longer."""
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(LONGEST)

    def _warm(self) -> None:
        try:
            from tf_mem_magic.explain import explain
            from tf_mem_magic.release import errors, release  # noqa: F401 - needed once the report is shown
            from tf_mem_magic.report.bundle import whole_bundle

            whole_bundle(explain(self._so_far()))
            for name in _FIGURE:
                importlib.import_module(name)
        except Exception as error:  # what is broken shows when the report itself is made
            troubles.note("what a report needs could not be made ready ahead", error)
