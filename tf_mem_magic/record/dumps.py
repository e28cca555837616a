"""The allocator's memory dumps: the first sign that it is waiting for memory, and what filled the device."""

from __future__ import annotations

import importlib
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.recording import Dump
from tf_mem_magic.diagnose.dump import (
    complete,
    count_chunks,
    device_of,
    find_regions,
    fragmentation,
    group_chunks,
    parse_dumps,
)

VARIABLE = "TF_BFC_MEMORY_DUMP"
WAIT = 12.0
"""Seconds after which a wait is over: the allocator gives up after 10 (kMaxMillisToWait, bfc_allocator.cc)."""

_FOLDER = "tfmem-dumps-"
_GIVES_UP = 8.0
_BURST = 2.5
_TRIFLE = 0.02
_KEPT = 4
_PROTOS = ("tensorflow.core.protobuf", "tensorflow.tsl.protobuf", "tsl.protobuf", "xla.tsl.protobuf")

_own_prefixes: list[str] = []


def make_folder(wanted: Path | None, prefix: str) -> Path:
    """Make the folder ``wanted``, for this user alone; where that cannot be, one of another name that begins so.

    Raises
    ------
    OSError
        If the temp folder cannot be written to either.
    """
    if wanted is not None:
        try:
            wanted.mkdir(mode=0o700)
            return wanted
        except OSError:
            pass
    return Path(tempfile.mkdtemp(prefix=prefix))


class DumpWatch:
    """Lets TensorFlow write its memory dumps into a private folder while a cell runs, and reads them.

    Where the user has set ``TF_BFC_MEMORY_DUMP`` already, theirs is used and their files are left alone.

    Parameters
    ----------
    folder : Path, optional
        A folder to make for the dumps, removed at the end. Default: a new one in the temp folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._wanted = folder
        self._folder: Path | None = None
        self._prefix: str | None = None
        self._previous: str | None = None
        self._foreign: frozenset[str] = frozenset()
        self._known: set[str] = set()
        self._burst: list[tuple[float, str]] = []
        self._gave_up: list[str] = []
        self._stamp = -1
        self._is_own = False
        self._since = -math.inf
        self._pid = os.getpid()
        self._least: int | None = None
        self.waiting: str | None = None
        """The device whose allocator is waiting for memory to be freed; None: none is."""

    def start(self) -> None:
        """Set the variable; never raises. Without a folder to write to there are no structured dumps."""
        self._previous = os.environ.get(VARIABLE)
        if self._previous and not _is_ours(self._previous):
            self._prefix = self._previous
            self._folder = Path(self._prefix).parent
            self._foreign = frozenset(self._files())
            self._known = set(self._foreign)
            return
        try:
            self._folder = make_folder(self._wanted, _FOLDER)
        except OSError:
            return
        self._is_own = True
        self._prefix = str(self._folder / "dump")
        _own_prefixes.append(self._prefix)
        os.environ[VARIABLE] = self._prefix

    def stop(self) -> None:
        """Give the variable back what it was and remove the folder. Idempotent; nothing happens in a forked child."""
        prefix, self._prefix = self._prefix, None
        if prefix is None or not self._is_own or os.getpid() != self._pid:
            return
        _own_prefixes.remove(prefix)
        if os.environ.get(VARIABLE) == prefix:
            if self._previous is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = self._previous
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def poll(self, in_use: Mapping[str, int]) -> str | None:
        """Look for new dumps and give the device that is waiting; cheap, for every tenth of a second or so.

        ``in_use`` holds the newest bytes by series name: the wait is over once they rise, for then the request was met,
        or after 12 seconds. They may fall while it waits: other operations finish and give theirs back.
        """
        now = time.monotonic()
        waited = now - self._since
        if self.waiting is not None and (self._has_risen(in_use) or waited > WAIT):
            self.waiting = None
            if waited < _GIVES_UP:
                self._since = -math.inf
        new = self._new_files()
        names = [_allocator_of(path, self._prefix or "") for path in new]
        if new and _GIVES_UP <= waited <= WAIT:
            # The allocator writes two more when it gives up.
            ends = [name for name in names if self.waiting is not None and device_of(name) == self.waiting]
            self._gave_up += ends[:1] if len(ends) > 1 else []
            self.waiting = None
        elif new and self.waiting is None:
            self._see(now, names, in_use)
        return self.waiting

    def gave_up(self) -> tuple[str, ...]:
        """Name the allocator of each request that surely got no memory; looks for new dumps first.

        It writes two dumps or more as it begins to wait, and two more some ten seconds later, as it gives up. Where
        more came into use meanwhile, the request may have been met, and it is not counted.
        """
        self.poll({})
        return tuple(self._gave_up)

    def _has_risen(self, in_use: Mapping[str, int]) -> bool:
        """Tell whether the device that waits has more in use than it had least since then, trifles aside."""
        held = in_use.get(f"allocator:{self.waiting}")
        if held is None or self._least is None:
            self._least = held
            return False
        self._least = min(self._least, held)
        return held > (1 + _TRIFLE) * self._least

    def _see(self, now: float, allocators: list[str], in_use: Mapping[str, int]) -> None:
        """Note new dumps: a request that is tried again writes two at once; one that may fail writes one."""
        self._burst = [(at, name) for at, name in self._burst if now - at < _BURST]
        self._burst += [(now, name) for name in allocators]
        if [name for _, name in self._burst].count(allocators[-1]) > 1:
            self.waiting = device_of(allocators[-1])
            self._since = now
            self._least = in_use.get(f"allocator:{self.waiting}")
            self._burst.clear()

    def read(self, text: str = "") -> tuple[Dump, ...]:
        """Read the newest dump of each allocator; ``text`` is what was on stderr, for what the files do not say.

        Structured files are read only where the user's code has imported TensorFlow.
        """
        written = parse_dumps(text)
        newest: dict[str, Dump] = {dump.allocator: dump for dump in written}
        structured: set[str] = set()
        for path in sorted(self._files(), key=_stamp_of, reverse=True):
            allocator = _allocator_of(path, self._prefix or "")
            if path in self._foreign or allocator in structured:
                continue
            dump = read_dump(Path(path))
            if dump is not None:
                structured.add(allocator)
                newest[dump.allocator] = complete(dump, written)
        return tuple(newest.values())

    def _files(self) -> list[str]:
        prefix, folder = self._prefix, self._folder
        if prefix is None or folder is None:
            return []
        start = os.path.basename(prefix) + "_"
        try:
            return [str(folder / name) for name in os.listdir(folder) if name.startswith(start)]
        except OSError:
            return []

    def _new_files(self) -> list[str]:
        if self._folder is None:
            return []
        try:
            stamp = os.stat(self._folder).st_mtime_ns
        except OSError:
            return []
        if stamp == self._stamp:
            return []
        self._stamp = stamp
        files = sorted(self._files(), key=_stamp_of)
        new = [path for path in files if path not in self._known]
        self._known.update(new)
        if self._is_own:
            for path in files[:-_KEPT]:
                Path(path).unlink(missing_ok=True)
        return new


def _is_ours(prefix: str) -> bool:
    """Tell whether a value of the variable comes from a watch: this process's, or that of the one that started it."""
    folder = Path(prefix).parent
    return prefix in _own_prefixes or folder.name.startswith(_FOLDER) or folder.suffix == ".dumps"


def read_dump(path: Path) -> Dump | None:
    """Read one structured dump; None where TensorFlow is not imported, or the file is not whole."""
    kind = _memory_dump()
    if kind is None:
        return None
    message = kind()
    try:
        message.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError has moved between versions
        troubles.note("one of the allocator's dumps could not be read", error)
        return None
    if not message.allocator_name or not message.chunk:
        return None
    used = [(c.op_name, c.size, c.requested_size) for c in message.chunk if c.in_use]
    free = [c.size for c in message.chunk if not c.in_use]
    return Dump(
        allocator=message.allocator_name,
        basis="structured",
        in_use=message.stats.bytes_in_use,
        peak=message.stats.peak_bytes_in_use,
        pool=sum(c.size for c in message.chunk),
        largest_free=max(free, default=0),
        fragmentation=fragmentation(sum(free), max(free, default=0)),
        groups=group_chunks(used),
        chunks=count_chunks((requested, size) for _, size, requested in used),
        regions=find_regions((c.address, c.size) for c in message.chunk),
    )


def _memory_dump() -> Any:
    if "tensorflow" not in sys.modules:
        return None
    for package in _PROTOS:
        try:
            return importlib.import_module(f"{package}.bfc_memory_map_pb2").MemoryDump
        except (ImportError, AttributeError):
            continue
    return None


def _allocator_of(path: str, prefix: str) -> str:
    return os.path.basename(path)[len(os.path.basename(prefix)) + 1 :].rpartition(".")[0]


def _stamp_of(path: str) -> int:
    digits = path.rpartition(".")[2]
    return int(digits) if digits.isdigit() else 0
