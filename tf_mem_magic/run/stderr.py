"""Capture of file descriptor 2: the allocator's dump is folded away, every other byte reaches the user."""

from __future__ import annotations

import io
import os
import select
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from tf_mem_magic.core.dump import DumpSeparator

_PIECE = 4096
"""Bytes written at once: what a pipe that is ready to be written takes without blocking."""

_READ = 1 << 20
_PARTIAL_AFTER = 0.1
"""Seconds after which an unfinished line is forwarded: a progress bar has no end of line."""


class StderrCapture:
    """Keeps file descriptor 2 in a file while a cell runs; :meth:`poll` forwards what is not a dump.

    A file and never a pipe: a full pipe would stop the code that writes while it holds Python's lock. Captures nest.
    Where descriptor 2 is closed, or no file can be had, nothing is captured and nothing changes.

    Parameters
    ----------
    path : Path, optional
        Where the file lies, so that a killed process leaves it behind; removed at the end. Default: a nameless one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._separator = DumpSeparator()
        self._lock = threading.Lock()
        self._saved: int | None = None
        self._file: int | None = None
        self._pid = os.getpid()
        self._read_to = 0
        self._outgoing = b""
        self._last_bytes = 0.0
        self._swapped: TextIO | None = None
        self._direct: TextIO | None = None

    @property
    def is_active(self) -> bool:
        """Whether descriptor 2 is being captured."""
        return self._saved is not None

    @property
    def dump_text(self) -> str:
        """The allocator's dumps that were folded away, bounded; empty: there were none."""
        return self._separator.dump_text

    def start(self) -> None:
        """Begin the capture; never raises."""
        try:
            saved = os.dup(2)
        except OSError:
            return
        try:
            self._file = self._open_file()
        except OSError:
            os.close(saved)
            return
        self._saved = saved
        _flush(sys.stderr)
        self._swap_python_stderr(saved)
        os.dup2(self._file, 2)

    def stop(self) -> None:
        """Give descriptor 2 back and forward the rest. Idempotent; does nothing in a forked child."""
        with self._lock:
            saved, file = self._saved, self._file
            if saved is None or file is None or os.getpid() != self._pid:
                return
            if self._swapped is not None:
                _flush(self._swapped)
                _flush(self._direct)
                if sys.stderr is self._direct:
                    sys.stderr = self._swapped
                self._swapped = self._direct = None
            os.dup2(saved, 2)
            self._saved = self._file = None
            try:
                while self._take_in(file):
                    self._write_all(saved)
                self._outgoing += self._separator.finish()
                self._write_all(saved)
            finally:
                os.close(saved)
                os.close(file)
                if self._path is not None:
                    self._path.unlink(missing_ok=True)

    def poll(self) -> None:
        """Forward new complete lines that are no dump, and an unfinished line that has waited; never blocks."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._saved is None or self._file is None or os.getpid() != self._pid:
                return
            while self._take_in(self._file):
                if not self._write_ready(self._saved):
                    return
            if self._separator.pending and time.monotonic() - self._last_bytes >= _PARTIAL_AFTER:
                self._outgoing += self._separator.release()
            self._write_ready(self._saved)
        finally:
            self._lock.release()

    def __enter__(self) -> StderrCapture:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _open_file(self) -> int:
        flags = os.O_RDWR | os.O_APPEND
        if self._path is not None:
            try:
                return _above_standard(os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o600))
            except OSError:
                self._path = None
        fd, name = tempfile.mkstemp(prefix="tfmem-")
        os.close(fd)
        try:
            return _above_standard(os.open(name, flags))
        finally:
            os.unlink(name)

    def _swap_python_stderr(self, saved: int) -> None:
        """Where ``sys.stderr`` is descriptor 2 itself, let Python's own lines go straight to the terminal."""
        try:
            if sys.stderr is None or sys.stderr.fileno() != 2:
                return
        except (OSError, ValueError, AttributeError):
            return
        self._swapped = sys.stderr
        self._direct = sys.stderr = _direct_stderr(saved, self._swapped)

    def _take_in(self, file: int) -> bool:
        data = os.pread(file, _READ, self._read_to)
        if data:
            self._read_to += len(data)
            self._last_bytes = time.monotonic()
            self._outgoing += self._separator.feed(data)
        return bool(data)

    def _write_ready(self, fd: int) -> bool:
        """Write as much as ``fd`` takes without blocking; whether all of it is out."""
        while self._outgoing:
            if not select.select([], [fd], [], 0)[1]:
                return False
            self._write_piece(fd)
        return True

    def _write_all(self, fd: int) -> None:
        while self._outgoing:
            self._write_piece(fd)

    def _write_piece(self, fd: int) -> None:
        try:
            written = os.write(fd, self._outgoing[:_PIECE])
        except BlockingIOError:
            select.select([], [fd], [], 0.1)
            return
        except OSError:
            self._outgoing = b""  # Nobody reads there any more; a plain cell's lines would be lost as well.
            return
        self._outgoing = self._outgoing[written:]


_shared_direct: TextIO | None = None


def _direct_stderr(saved: int, like: TextIO) -> TextIO:
    """Give the one stream that leads past every capture; it stays open, because handlers made in a cell keep it."""
    global _shared_direct
    if _shared_direct is None or _shared_direct.closed:
        raw = io.FileIO(_above_standard(os.dup(saved)), "w")
        _shared_direct = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=like.encoding, errors=like.errors, line_buffering=True, write_through=True
        )
    else:
        _flush(_shared_direct)
        os.dup2(saved, _shared_direct.fileno(), inheritable=False)
    return _shared_direct


def _above_standard(fd: int) -> int:
    """Move ``fd`` away from 0, 1 and 2, which it takes where the process began with one of them closed."""
    if fd > 2:
        return fd
    import fcntl

    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _flush(stream: TextIO | None) -> None:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        pass
