"""Capture of file descriptor 2: the allocator's dump is folded away, every other byte reaches the user."""

from __future__ import annotations

import fcntl
import io
import os
import select
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import TextIO

from tf_mem_magic.core.recording import FailedRequest
from tf_mem_magic.diagnose.dump import DumpSeparator
from tf_mem_magic.record import late_stderr as stragglers

_PIECE = 4096
"""Bytes written at once: what a pipe that is ready to be written takes without blocking."""

_READ = 1 << 20
_READS_AT_ONCE = 4
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
    profiles : bool
        We run TensorFlow's profiler: what it says of that is dropped.
    """

    def __init__(self, path: Path | None = None, profiles: bool = False) -> None:
        self._path = path
        self._separator = DumpSeparator(profiles=profiles)
        self._lock = threading.Lock()
        self._saved: int | None = None
        self._file: int | None = None
        self._pid = os.getpid()
        self._read_to = 0
        self._outgoing: deque[bytes] = deque()
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

    @property
    def failures(self) -> tuple[FailedRequest, ...]:
        """The requests that got no memory, as the allocator's dumps tell of them, oldest first."""
        return self._separator.failures

    def start(self) -> None:
        """Begin the capture; never raises."""
        try:
            saved = _above_standard(os.dup(2))
        except OSError:
            return
        try:
            written, self._file = self._open_file()
        except OSError:
            os.close(saved)
            return
        stragglers.mark_written(written)
        self._saved = saved
        self._swap_python_stderr(saved)
        os.dup2(written, 2)
        os.close(written)

    def stop(self) -> None:
        """Give descriptor 2 back and forward the rest. Idempotent; does nothing in a forked child.

        Where the user's code has led descriptor 2 elsewhere for good, it stays there.
        """
        with self._lock:
            saved, file = self._saved, self._file
            if saved is None or file is None or os.getpid() != self._pid:
                return
            self._swap_back()
            if _is_same_file(2, file):
                os.dup2(saved, 2)
            self._saved = self._file = None
            while self._take_in(file):
                self._write_all(saved)
            self._send(self._separator.finish())
            self._write_all(saved)
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        rest = stragglers.Straggler(file, saved, self._read_to)
        if stragglers.is_written(file):
            stragglers.follow(rest)
        else:
            rest.close()

    def poll(self) -> None:
        """Forward new complete lines that are no dump, and an unfinished line that has waited; never blocks."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._saved is None or self._file is None or os.getpid() != self._pid:
                return
            for _ in range(_READS_AT_ONCE):
                if not (self._write_ready(self._saved) and self._take_in(self._file)):
                    break
            if self._separator.pending and time.monotonic() - self._last_bytes >= _PARTIAL_AFTER:
                self._send(self._separator.release())
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

    def _open_file(self) -> tuple[int, int]:
        """Open the file twice: to be written, and to be read."""
        if self._path is not None:
            try:
                return _open_twice(self._path, os.O_CREAT | os.O_EXCL)
            except OSError:
                self._path = None
        fd, name = tempfile.mkstemp(prefix="tfmem-")
        os.close(fd)
        try:
            return _open_twice(Path(name), 0)
        finally:
            os.unlink(name)

    def _swap_python_stderr(self, saved: int) -> None:
        """Where ``sys.stderr`` is descriptor 2 itself, let Python's own lines go straight to the terminal."""
        _flush(sys.stderr)
        try:
            if sys.stderr is not None and sys.stderr.fileno() == 2:
                self._direct = _direct_stderr(saved, sys.stderr)
                self._swapped, sys.stderr = sys.stderr, self._direct
        except (OSError, ValueError, AttributeError, LookupError):
            pass  # a stream of the user's own making: its lines go the way of all others

    def _swap_back(self) -> None:
        if self._swapped is not None:
            _flush(self._swapped)
            _flush(self._direct)
            if sys.stderr is self._direct:
                sys.stderr = self._swapped
            self._swapped = self._direct = None

    def _take_in(self, file: int) -> bool:
        data = os.pread(file, _READ, self._read_to)
        if data:
            self._read_to += len(data)
            self._last_bytes = time.monotonic()
            self._send(self._separator.feed(data))
        return bool(data)

    def _send(self, data: bytes) -> None:
        self._outgoing.extend(data[at : at + _PIECE] for at in range(0, len(data), _PIECE))

    def _write_ready(self, fd: int) -> bool:
        """Write as much as ``fd`` takes without blocking; whether all of it is out."""
        while self._outgoing:
            if not select.select([], [fd], [], 0)[1]:
                return False
            self._write_piece(fd)
        return True

    def _write_all(self, fd: int) -> None:
        while self._outgoing:
            select.select([], [fd], [])
            self._write_piece(fd)

    def _write_piece(self, fd: int) -> None:
        piece = self._outgoing.popleft()
        try:
            written = os.write(fd, piece)
        except BlockingIOError:
            written = 0
        except OSError:
            self._outgoing.clear()  # Nobody reads there any more; a plain cell's lines would be lost as well.
            return
        if written < len(piece):
            self._outgoing.appendleft(piece[written:])


def _open_twice(path: Path, create: int) -> tuple[int, int]:
    written = _above_standard(os.open(path, os.O_WRONLY | os.O_APPEND | create, 0o600))
    try:
        return written, _above_standard(os.open(path, os.O_RDONLY))
    except OSError:
        os.close(written)
        raise


def _is_same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


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
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _flush(stream: TextIO | None) -> None:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError, AttributeError):
        pass
