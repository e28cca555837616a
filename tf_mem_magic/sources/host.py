"""Host memory of this process: ``host:rss``, the kernel's own peak, and the limit that really applies."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.core.recording import LimitBasis, PeakBasis
from tf_mem_magic.sources import Unavailable
from tf_mem_magic.sources._cgroup import GroupUse, group_use, tightest_group
from tf_mem_magic.sources._windows import Windows

NAME = "host"
_SERIES = "host:rss"


def open(root: Path = Path("/")) -> HostSource | Unavailable:
    """Open the figures of this process; ``root`` stands for ``/``, so that tests can lay out a tree of their own."""
    source = HostSource(root)
    source.read()
    return source if source.trouble is None else Unavailable(NAME, source.trouble)


def used_by_group(root: Path = Path("/")) -> GroupUse | None:
    """Tell how full the control group is whose limit is met first; None where none limits this process."""
    group = tightest_group(root)
    return None if group is None else group_use(group)


def used_by_machine(root: Path = Path("/")) -> GroupUse | None:
    """Tell how full the whole machine is, swap space counted as room; None where Linux's own figures are missing."""
    sizes = _kilobytes(root / "proc/meminfo")
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if not total or available is None:
        return None
    return GroupUse(max(0, total - available - sizes.get("SwapFree", 0)), total)


class HostSource:
    """The open figures: Linux's own files, elsewhere psutil.

    The exact peak is Linux's ``VmHWM``, which is reset by writing to ``/proc/self/clear_refs``. That also resets what
    ``resource.getrusage`` calls ``ru_maxrss``. Where it is not permitted, and on other systems, the peak is sampled.
    """

    name = NAME

    def __init__(self, root: Path) -> None:
        self.trouble: str | None = None
        self._root = root
        self._process = root / "proc/self"
        self._statm = str(self._process / "statm") if (self._process / "statm").exists() else None
        self._file: int | None = None
        self._file_is: tuple[int, int] | None = None
        self._counted = self._statm is not None
        self._windows = Windows()
        self._lock = threading.Lock()

    def read(self) -> Mapping[str, int]:
        """Read the resident bytes now."""
        try:
            value = _rss_by_psutil() if self._statm is None else self._rss(self._statm)
        except Exception as error:
            self.trouble = f"The memory of this process cannot be read ({type(error).__name__}: {error})."
            return {}
        self.trouble = None
        return {_SERIES: value}

    def begin_window(self) -> None:
        """Begin a window: remember the kernel's peak until now, and let it begin anew."""
        with self._lock:
            before = self._high_water()
            self._windows = self._windows.begin(before)
            self._counted = bool(before) and self._reset(before[_SERIES])

    def end_window(self) -> Mapping[str, tuple[int, PeakBasis]]:
        """End the innermost window and give the kernel's peak, where it has one that can be reset."""
        with self._lock:
            self._windows, found = self._windows.end(self._high_water())
            return found if self._counted else {}

    def limits(self) -> Mapping[str, tuple[int, LimitBasis]]:
        """Give the limit that is met first: a control group's, or the machine's memory."""
        group = tightest_group(self._root)
        total = _machine_total(self._root)
        if group is not None and (total is None or group.limit < total):
            return {_SERIES: (group.limit, "configured")}
        return {} if total is None else {_SERIES: (total, "device-total")}

    def devices(self) -> tuple[DeviceFacts, ...]:
        """Describe nothing: the host is no device of TensorFlow's."""
        return ()

    def close(self) -> None:
        """Close the kernel's file."""
        if self._file is not None and _identity(self._file) == self._file_is:
            os.close(self._file)
        self._file = None

    def _rss(self, statm: str) -> int:
        """Read the kernel's file, kept open: opening it costs four times as much, a hundred times a second."""
        if self._file is None or _identity(self._file) != self._file_is:
            # Also where the user's code has closed every descriptor: the number may be another file's by now.
            self._file = os.open(statm, os.O_RDONLY | os.O_CLOEXEC)
            self._file_is = _identity(self._file)
        return int(os.pread(self._file, 256, 0).split()[1]) * mmap.PAGESIZE

    def _high_water(self) -> dict[str, int]:
        peak = _status(self._process).get("VmHWM")
        return {} if peak is None else {_SERIES: peak}

    def _reset(self, before: int) -> bool:
        try:
            (self._process / "clear_refs").write_text("5")
        except OSError:
            return False
        now = _status(self._process)
        # Some sandboxes accept the write and do nothing: then the old peak still stands above what is resident.
        return now.get("VmHWM", before) != before or now.get("VmRSS", 0) >= before


def _identity(file: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(file)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _rss_by_psutil() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _status(process: Path) -> dict[str, int]:
    """Read the sizes in ``/proc/self/status`` in bytes, by name."""
    return _kilobytes(process / "status")


def _machine_total(root: Path) -> int | None:
    total = _kilobytes(root / "proc/meminfo").get("MemTotal")
    if total is not None:
        return total
    try:
        import psutil

        return int(psutil.virtual_memory().total)
    except Exception:
        return None


def _kilobytes(path: Path) -> dict[str, int]:
    """Read lines such as ``VmHWM:   2028 kB`` as bytes by name."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    rows = [line.split() for line in lines if line.endswith(" kB")]
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[1].isdecimal()}
