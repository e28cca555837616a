"""What still writes to a cell's captured stderr after the cell has ended: processes that it started and left."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from dataclasses import dataclass

_EVERY = 0.25
_READ = 1 << 16


@dataclass(slots=True)
class Straggler:
    """A captured file that somebody still writes to: ``source`` is read from ``position``, ``target`` written to."""

    source: int
    target: int
    position: int

    def forward(self) -> None:
        """Forward what is new, as it is."""
        while data := os.pread(self.source, _READ, self.position):
            self.position += len(data)
            while data:
                data = data[os.write(self.target, data) :]

    def close(self) -> None:
        """Let go of both descriptors."""
        os.close(self.source)
        os.close(self.target)


def is_written(source: int) -> bool:
    """Whether somebody still has the file open for writing.

    Whoever writes inherited the descriptor that :func:`mark_written` locked, and a lock lasts as long as the last
    copy of its descriptor. Where the file system has no locks, nobody can tell, and nobody is assumed.
    """
    try:
        fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.flock(source, fcntl.LOCK_UN)
    return False


def mark_written(descriptor: int) -> None:
    """Lock the file through the descriptor that writers will inherit."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass


_lock = threading.Lock()
_all: list[Straggler] = []
_pid = 0


def follow(straggler: Straggler) -> None:
    """Forward what still comes, in one thread for all, until nobody writes any more; it owns the descriptors."""
    global _pid
    with _lock:
        if _pid != os.getpid():
            _all.clear()
            _pid = os.getpid()
        _all.append(straggler)
        if len(_all) > 1:
            return
    try:
        threading.Thread(target=_follow_all, name="tfmem-stderr", daemon=True).start()
    except RuntimeError:
        with _lock:
            _all.remove(straggler)
        straggler.close()


def _follow_all() -> None:
    while True:
        with _lock:
            current = tuple(_all)
        for straggler in current:
            # Asked before the last reading, so that nothing is written in between.
            written = is_written(straggler.source)
            try:
                straggler.forward()
            except OSError:
                written = False
            if not written:
                with _lock:
                    _all.remove(straggler)
                straggler.close()
        with _lock:
            if not _all:
                return
        time.sleep(_EVERY)
