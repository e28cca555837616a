"""``--host-stop``: a cell that is about to use up the computer's memory is interrupted before the system kills it all.

When memory is used up, Linux ends whole processes: the kernel with everything in it. An interrupt before that costs
one cell, and leaves a report.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

from tf_mem_magic.core.recording import HostFull
from tf_mem_magic.sources import Unavailable
from tf_mem_magic.sources import host as host_source
from tf_mem_magic.sources._cgroup import Group, GroupUse, pressing_use, tightest_group

ROOT = Path("/")
"""Where the system's own figures lie; a test lays out a tree of its own."""

_LIMITS_EVERY = 2.0
_MOST = 0.5
"""Share of what is in use that this process must hold: else ending its cell would not be the help."""

_LOOK_EVERY = 0.1
_LOOK_SOONEST = 0.01
"""Seconds between two looks: the second where memory fills so fast that the first could come too late."""

_GROWN = 0.01
"""Share of the limit by which this process must have grown since the cell began: else it is not the cell's doing."""


class HostStop:
    """Watches how full the memory is that this process may use, and interrupts one thread when it is nearly full.

    Parameters
    ----------
    percent : int
        Share of the limit, in percent, at which to interrupt.
    thread : int
        The thread that runs the cell.

    Attributes
    ----------
    full : HostFull or None
        What was seen when the cell was interrupted; None where it was not.
    """

    def __init__(self, percent: int, thread: int) -> None:
        self._percent, self._thread = percent, thread
        source = host_source.open(ROOT)
        self._source = None if isinstance(source, Unavailable) else source
        self._before = self._resident()
        self._group: Group | None = None
        self._next_limits = 0.0
        self._last: tuple[float, int] | None = None
        self.full: HostFull | None = None

    def poll(self) -> float:
        """Look how full the memory is, and interrupt the cell, once, where it is about to run out; never raises.

        Returns
        -------
        float
            Seconds after which to look again: half of the time in which memory would reach the limit at the pace
            since the last look, within ten to a hundred milliseconds.
        """
        if self.full is not None or self._source is None:
            return _LOOK_EVERY
        now = time.monotonic()
        if now >= self._next_limits:
            self._group = tightest_group(ROOT)
            self._next_limits = now + _LIMITS_EVERY
        use = self._use()
        if use is None:
            return _LOOK_EVERY
        if 100 * use.used < self._percent * use.limit:
            return self._look_again_in(now, use)
        resident = self._resident()
        if resident >= _MOST * use.used and resident - self._before >= _GROWN * use.limit:
            self.full = HostFull(resident, use.used, use.limit, self._percent)
            interrupt(self._thread)
        return _LOOK_EVERY

    def _look_again_in(self, now: float, use: GroupUse) -> float:
        """Give the seconds to the next look by how fast the memory has filled since the last one."""
        last, self._last = self._last, (now, use.used)
        if last is None or use.used <= last[1]:
            return _LOOK_EVERY
        pace = (use.used - last[1]) / max(now - last[0], 1e-3)
        left = use.limit * self._percent / 100 - use.used
        return min(max(left / pace / 2, _LOOK_SOONEST), _LOOK_EVERY)

    def close(self) -> None:
        """Let go of open files."""
        if self._source is not None:
            self._source.close()

    def _resident(self) -> int:
        return next(iter(self._source.read().values()), 0) if self._source is not None else 0

    def _use(self) -> GroupUse | None:
        """Give the use that is nearer to its limit: the control group's, or the machine's."""
        group = pressing_use(self._group) if self._group is not None else None
        found = [use for use in (group, host_source.used_by_machine(ROOT)) if use is not None]
        return max(found, key=lambda use: use.used / use.limit, default=None)


def interrupt(thread: int) -> None:
    """Raise a ``KeyboardInterrupt`` in a thread: in the main one as Ctrl-C would, waking it where it waits."""
    if thread != threading.main_thread().ident:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
    elif not callable(signal.getsignal(signal.SIGINT)):
        return
    elif hasattr(signal, "pthread_kill") and os.name == "posix":
        signal.pthread_kill(thread, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()
