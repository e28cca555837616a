"""The recording file: constant size, written while the cell runs, readable after the process was killed."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.jsonio import UnreadableFileError, decode, encode, open_plain
from tf_mem_magic.core.recording import (
    DIED,
    Cell,
    Dump,
    ErrorText,
    Frame,
    LimitBasis,
    PeakBasis,
    Recording,
    Series,
    Status,
)
from tf_mem_magic.core.timeline import Timeline
from tf_mem_magic.diagnose.dump import parse_dumps
from tf_mem_magic.record.store import folder as store_folder
from tf_mem_magic.record.store.layout import FILE_SIZE, MAGIC, MISSING, SERIES, TEXTS, VERSION, Page, read_page
from tf_mem_magic.record.store.runs import notebook, prune

T = TypeVar("T")

_STATUSES: tuple[Status | None, ...] = (None, *get_args(Status))
_LIMITS: tuple[LimitBasis | None, ...] = (None, *get_args(LimitBasis))
_PEAKS: tuple[PeakBasis | None, ...] = (None, *get_args(PeakBasis))
_STDERR_KEPT = 256 << 10
_FEWER_VALUES = 50


class Store:
    """Keeps one run's timelines and last words where they survive the process.

    ``path`` is the file, None where there is only memory; ``notice`` a sentence for the user where the file could
    not be had or the series do not fit. No method raises for want of a disk. After :meth:`finish`, and in a forked
    child, nothing is written any more.
    """

    def __init__(self, page: memoryview, path: Path | None, fd: int | None, notice: str | None) -> None:
        self.path = path
        self.notice = notice
        self._page = Page(page)
        self._fd = fd
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._slots: dict[str, int] = {}
        self._timelines: dict[str, Timeline] = {}
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether it still takes anything in."""
        return not self._closed and os.getpid() == self._pid

    def timeline(self, name: str) -> Timeline:
        """Give the timeline of the series ``name``, made at the first call."""
        with self._lock:
            if name not in self._timelines:
                self._timelines[name] = self._add_series(name)
            return self._timelines[name]

    def _add_series(self, name: str) -> Timeline:
        slot = len(self._slots)
        encoded = name.encode()
        if not self.is_open or slot >= SERIES or len(encoded) > 128:
            self.notice = self.notice or f"There are more than {SERIES} series; the last ones are not in the file."
            return Timeline()
        self._slots[name] = slot
        self._page.put_of(slot, "name", encoded)
        for field in ("peak", "limit", "before", "after"):
            self._page.put_of(slot, field, MISSING)
        self._page.put("series", slot + 1)
        return self._page.timeline(slot)

    def set_limit(self, name: str, limit: int, basis: LimitBasis) -> None:
        """Keep a series' limit in bytes and how it is known."""
        self._set(name, limit=limit, limit_basis=_LIMITS.index(basis))

    def set_peak(self, name: str, peak: int, basis: PeakBasis) -> None:
        """Keep a series' peak in bytes and how it was found."""
        self._set(name, peak=peak, peak_basis=_PEAKS.index(basis))

    def set_before(self, name: str, value: int) -> None:
        """Keep the bytes in use when the cell began."""
        self._set(name, before=value)

    def set_after(self, name: str, value: int) -> None:
        """Keep the bytes in use when the cell had ended."""
        self._set(name, after=value)

    def _set(self, name: str, **values: int) -> None:
        with self._lock:
            if self.is_open and name in self._slots:
                for field, value in values.items():
                    self._page.put_of(self._slots[name], field, value)

    def set_seconds(self, seconds: float) -> None:
        """Keep how long the cell has been running."""
        if self.is_open:
            self._page.put("seconds", seconds)

    def note(self, text: str) -> None:
        """Add a line of last words; the oldest go where there is no more room."""
        with self._lock:
            if not self.is_open:
                return
            notes = (self._page.text("notes") + text.replace("\n", " ") + "\n").encode()
            room = TEXTS["notes"][1] - 8
            if len(notes) > room:
                notes = notes[-room // 2 :].partition(b"\n")[2]
            self._page.put_text("notes", notes)

    def set_earlier(self, sources: Sequence[str]) -> None:
        """Keep the sources of the cells that ran before, the newest where not all fit."""
        room, kept = TEXTS["earlier"][1] - 8, list(sources)
        while len(data := encode(tuple(kept), indent=None)) > room:
            kept = kept[len(kept) // 2 + 1 :]
        if len(kept) < len(sources):
            self.note("The cells before it are longer than the file has room for; the first ones are missing.")
        with self._lock:
            if self.is_open:
                self._page.put_text("earlier", data)

    def set_facts(self, facts: Facts) -> None:
        """Keep the facts, so that a dead kernel leaves them; the cells before it are kept once, elsewhere.

        Where they do not fit, the smaller named values go; what does not fit then is left out with a note.
        """
        facts = replace(facts, earlier_cells=())
        for fewer in (facts, replace(facts, values=facts.values[:_FEWER_VALUES], modules=())):
            data = encode(fewer, indent=None)
            with self._lock:
                if not self.is_open or self._page.put_newest("facts", data):
                    return
        self.note("The facts are too long for the recording file and were left out.")

    def set_calls(self, frames: tuple[Frame, ...]) -> None:
        """Keep where the user's code is running, outermost first."""
        data = encode(frames, indent=None)
        with self._lock:
            if self.is_open:
                self._page.put_newest("calls", data)

    def set_dumps(self, dumps: tuple[Dump, ...]) -> None:
        """Keep the allocator's dumps; dumps that do not fit are left out with a note."""
        data = encode(dumps, indent=None)
        with self._lock:
            fits = not self.is_open or self._page.put_text("dumps", data)
        if not fits:
            self.note("The dumps are too long for the recording file and were left out.")

    def beside(self, suffix: str) -> Path | None:
        """Give a path beside the file for what belongs to it and is pruned with it; None without a file."""
        return None if self.path is None else store_folder.companion(self.path, suffix)

    def finish(self, status: Status, seconds: float | None = None) -> None:
        """Mark the run as finished and let go of the file. Idempotent."""
        with self._lock:
            if not self.is_open:
                return
            if seconds is not None:
                self._page.put("seconds", seconds)
            self._page.put("status", _STATUSES.index(status))
            self._closed = True
            for timeline in self._timelines.values():
                timeline.release()
            mapped = self._page.view.obj
            try:
                self._page.view.release()
                if isinstance(mapped, mmap.mmap):
                    mapped.close()
            except BufferError:
                pass  # A thread that hangs in a driver still holds a piece: the map goes when it lets go.
            if self._fd is not None:
                os.close(self._fd)


def open_store(cell: Cell, started: float | None = None) -> Store:
    """Open a recording file for a run of ``cell`` that began at ``started`` (Unix time; now); never raises.

    Without a writable cache folder or space the file lies in the temp folder, else there is only memory;
    ``notice`` says so.
    """
    view, path, fd, notice = _find_room()
    store = Store(view, path, fd, notice)
    page = store._page
    page.put("version", VERSION)
    page.put("pid", os.getpid())
    page.put("started", time.time() if started is None else started)
    page.put("locked", int(fd is not None and store_folder.lock(fd)))
    page.put("tagged", int(cell.tagged))
    page.put("execution_count", MISSING if cell.execution_count is None else cell.execution_count)
    page.put("cell_id", (cell.cell_id or "").encode()[:64])
    page.put("notebook", notebook().encode())
    source = cell.source.encode("utf-8", "replace")
    room = TEXTS["source"][1] - 8
    page.put("truncated", int(len(source) > room))
    page.put_text("source", source[:room].decode("utf-8", "ignore").encode())
    page.put("magic", MAGIC)
    if path is not None:
        prune(path.parent)
    return store


def _find_room() -> tuple[memoryview, Path | None, int | None, str | None]:
    first_error: OSError | None = None
    for folder in store_folder.candidate_folders():
        try:
            store_folder.make_private(folder)
            path, fd = store_folder.create_file(folder, FILE_SIZE)
        except OSError as error:
            first_error = first_error or error
            continue
        reason = f"{first_error.strerror}: {first_error.filename or folder}" if first_error else ""
        notice = f"The recording is kept in {folder} ({reason})." if reason else None
        return memoryview(mmap.mmap(fd, FILE_SIZE)), path, fd, notice
    why = first_error.strerror if first_error else "no folder to write to"
    notice = f"The recording is kept in memory only ({why}): nothing is left of it if the kernel dies."
    return memoryview(bytearray(FILE_SIZE)), None, None, notice


def is_store(path: Path | str) -> bool:
    """Whether the file calls itself a recording file.

    Raises
    ------
    OSError
        If it cannot be read.
    UnreadableFileError
        If it is no plain file.
    """
    with open_plain(Path(path)) as file:
        return file.read(len(MAGIC)) == MAGIC


def read_store(path: Path | str) -> Recording:
    """Read a recording file; one that was never finished has the status ``killed``.

    Raises
    ------
    UnreadableFileError
        If the file cannot be read, is truncated or damaged, is no recording, or comes from a newer version.
    """
    path = Path(path)
    page = read_page(path)
    try:
        recording = _recording(page, path)
    except UnreadableFileError:
        raise
    except (ValueError, IndexError, struct.error) as error:
        raise UnreadableFileError(f"the recording is damaged ({error})") from error
    if recording.contradiction:
        raise UnreadableFileError(f"the recording is damaged ({recording.contradiction})")
    return recording


def read_notes(path: Path | str) -> tuple[str, ...]:
    """Read the last words in a recording file, the oldest first.

    Raises
    ------
    UnreadableFileError
        As :func:`read_store`.
    """
    page = read_page(Path(path))
    notes = tuple(page.text("notes").splitlines())
    if page.get("truncated"):
        notes = ("The cell's source is longer than the file has room for; its end is missing.", *notes)
    return notes


def _recording(page: Page, path: Path) -> Recording:
    cell_id = _name(page.get("cell_id"))
    count = page.get("execution_count")
    slots = range(min(page.get("series"), SERIES))
    facts, dumps, stderr = page.newest("facts"), page.text("dumps"), _stderr_beside(path)
    earlier, calls = page.text("earlier"), page.newest("calls")
    known = decode(facts.encode(), Facts) if facts else Facts(partial=True)
    status = _choose(_STATUSES, page.get("status")) or "killed"
    running = decode(calls.encode(), tuple[Frame, ...]) if calls and status == "killed" else ()
    return Recording(
        cell=Cell(page.text("source"), cell_id or None, None if count == MISSING else count, bool(page.get("tagged"))),
        seconds=page.get("seconds"),
        series=tuple(_series(page, slot) for slot in slots),
        status=status,
        # Where it was when last seen takes the place of an error's traceback.
        errors=(ErrorText(DIED, "", running),) if running else (),
        dumps=decode(dumps.encode(), tuple[Dump, ...]) if dumps else parse_dumps(stderr),
        stderr=stderr,
        facts=replace(known, earlier_cells=decode(earlier.encode(), tuple[str, ...]) if earlier else ()),
        before=_readings(page, slots, "before"),
        after=_readings(page, slots, "after"),
        started=page.get("started"),
    )


def _choose(names: Sequence[T], number: int) -> T:
    """Give a name by its number; a negative one would count from the end."""
    if number < 0:
        raise IndexError("a number that means nothing")
    return names[number]


def _series(page: Page, slot: int) -> Series:
    times, values = page.timeline(slot).points()
    peak, limit = page.get_of(slot, "peak"), page.get_of(slot, "limit")
    basis: PeakBasis | None = "sampled"
    if peak != MISSING:
        basis = _choose(_PEAKS, page.get_of(slot, "peak_basis"))
    return Series(
        name=_name(page.get_of(slot, "name")),
        times=times,
        values=values,
        peak=peak if peak != MISSING else max(values, default=None),
        peak_basis=basis or "sampled",
        limit=None if limit == MISSING else limit,
        limit_basis=None if limit == MISSING else _choose(_LIMITS, page.get_of(slot, "limit_basis")),
    )


def _readings(page: Page, slots: range, field: str) -> tuple[tuple[str, int], ...]:
    found = ((_name(page.get_of(slot, "name")), page.get_of(slot, field)) for slot in slots)
    return tuple((name, value) for name, value in found if value != MISSING)


def _name(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _stderr_beside(path: Path) -> str:
    try:
        with open(store_folder.companion(path, ".stderr"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _STDERR_KEPT))
            return file.read(_STDERR_KEPT).decode("utf-8", "replace")
    except OSError:
        return ""
