"""Recording: the immutable result of running one cell. Numbers and text, never tensors, frames or exceptions."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import isfinite
from operator import gt
from pathlib import Path
from typing import Any, Literal

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.step import TracedSteps

Status = Literal["ok", "oom", "error", "interrupted", "killed"]
PeakBasis = Literal["counter", "sampled"]
LimitBasis = Literal["configured", "dump", "device-total", "trace"]

SCHEMA = 1
"""Version of the saved form; raised when a field changes its meaning."""


DIED = "KernelDied"
"""The type of the :class:`ErrorText` whose frames say where a kernel was when it was last seen; it has no message."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The cell as the person wrote it, the ``%%tfmem`` line (line 1) included where there is one.

    ``script``: it is no cell but the whole text of a script with that file name.
    """

    source: str
    cell_id: str | None = None
    execution_count: int | None = None
    tagged: bool = True
    script: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One measured quantity over time.

    Attributes
    ----------
    name : str
        ``allocator:GPU:0``, ``device:GPU:0``, ``process:GPU:0``, ``host:rss``, ``pool:GPU:0``.
    times : tuple of float
        Seconds since the cell's start, monotonic clock, ascending.
    values : tuple of int
        Bytes, one for each time. Decimation keeps minima and maxima.
    peak : int or None
        Bytes; of a counter where the source has one, else the largest sample.
    peak_basis : {"counter", "sampled"}
        How ``peak`` was found: a sampled one is a lower bound.
    limit : int or None
        Bytes; None where nobody tells.
    """

    name: str
    times: tuple[float, ...] = ()
    values: tuple[int, ...] = ()
    peak: int | None = None
    peak_basis: PeakBasis = "sampled"
    limit: int | None = None
    limit_basis: LimitBasis | None = None

    @property
    def kind(self) -> str:
        """What is measured: ``allocator``, ``device``, ``process``, ``pool`` or ``host``."""
        return self.name.split(":", 1)[0]

    @property
    def device(self) -> str | None:
        """TensorFlow's short name of the device (``GPU:0``); None for host memory."""
        kind, _, rest = self.name.partition(":")
        return None if kind == "host" else rest

    @property
    def peak_time(self) -> float | None:
        """Seconds at which the largest sample was taken; None without samples."""
        if not self.values:
            return None
        return self.times[max(range(len(self.values)), key=self.values.__getitem__)]


@dataclass(frozen=True, slots=True)
class Frame:
    """One entry of a traceback; ``line`` counts from 1. ``in_cell``: code of this very cell."""

    file: str
    line: int
    function: str
    in_cell: bool = False
    is_user: bool = False


@dataclass(frozen=True, slots=True)
class ErrorText:
    """One exception as text: class name, message, and its frames, outermost first."""

    type: str
    message: str
    frames: tuple[Frame, ...] = ()
    bases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkGroup:
    """Chunks of an allocator's dump added up: what ``op`` holds, in bytes; ``requested`` before rounding, if known."""

    op: str
    bytes: int
    requested: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Dump:
    """What the allocator wrote when it failed (structured file, or the text on stderr).

    ``limit``, ``in_use``, ``peak``, ``pool`` and ``largest_free`` are bytes or None; ``fragmentation`` 0–1 is
    (free in pool − largest free chunk) / free in pool. ``groups``: chunks in use by operation, largest first (a
    chunk without an operation's name is grouped by its size). ``requested`` (bytes, rounded to chunks) is what the
    operation ``op`` asked for in vain; only the text tells. ``chunks``: those in use as ``(requested, size, count)``,
    the bytes that were asked for and those that the chunk has, most bytes first; empty where only the text tells.
    ``regions``: bytes of what was taken from the device at once, in which every chunk lies; empty: unknown.
    """

    allocator: str
    basis: Literal["structured", "text"]
    limit: int | None = None
    in_use: int | None = None
    peak: int | None = None
    pool: int | None = None
    largest_free: int | None = None
    fragmentation: float | None = None
    groups: tuple[ChunkGroup, ...] = ()
    requested: int | None = None
    op: str | None = None
    chunks: tuple[tuple[int, int, int], ...] = ()
    regions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request for memory that ``allocator`` could not meet: ``bytes`` (rounded to chunks), for the operation ``op``.

    ``op`` is None where the allocator was not told; ``bytes`` are 0 where only its dumps tell that it gave up.
    """

    allocator: str
    bytes: int
    op: str | None = None


@dataclass(frozen=True, slots=True)
class HostFull:
    """Why a cell was interrupted before host memory ran out; sizes in bytes.

    This process held ``resident``; what the system would judge by was ``used`` of ``limit``, at least ``percent``.
    """

    resident: int
    used: int
    limit: int
    percent: int


@dataclass(frozen=True, slots=True)
class MissingSource:
    """A source of numbers that is not there, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recording:
    """What was seen while one cell ran.

    ``started`` is Unix time; ``before`` the bytes in use when the cell began and ``after`` when it had ended, by
    series name. ``errors`` is the exception's chain, the raised one first. ``stderr`` holds what was folded away.
    ``host_full``: we interrupted the cell because host memory was about to run out. ``garbage``: of what was in use
    when the cell began, the bytes that Python's collector gave back after it, by series name; a rerun starts without.
    ``discarded``: the same of what the cell itself had made and nothing held any more when it failed.
    ``failed_requests``: what the allocator said on stderr about requests that got no memory, oldest first.
    ``failed_before``: runs that had run out of memory in this kernel before. ``traced``: the steps that ``--trace``
    watched.
    """

    cell: Cell
    seconds: float = 0.0
    series: tuple[Series, ...] = ()
    status: Status = "ok"
    errors: tuple[ErrorText, ...] = ()
    dumps: tuple[Dump, ...] = ()
    stderr: str = ""
    facts: Facts = field(default_factory=Facts)
    missing: tuple[MissingSource, ...] = ()
    before: tuple[tuple[str, int], ...] = ()
    after: tuple[tuple[str, int], ...] = ()
    started: float = 0.0
    schema: int = SCHEMA
    host_full: HostFull | None = None
    garbage: tuple[tuple[str, int], ...] = ()
    discarded: tuple[tuple[str, int], ...] = ()
    failed_requests: tuple[FailedRequest, ...] = ()
    failed_before: int = 0
    traced: TracedSteps | None = None

    @property
    def caught(self) -> tuple[FailedRequest, ...]:
        """Requests that got no memory though the cell ended well: its code, a library or a thread kept the error."""
        return self.failed_requests if self.status == "ok" else ()

    @property
    def in_a_thread(self) -> bool:
        """Whether the error comes out of a thread that the cell began: a pool's future raised it in the cell."""
        files = [frame.file.replace("\\", "/") for error in self.errors for frame in error.frames]
        by_keras = any("/data_adapters/" in file for file in files)  # which draws batches in threads of its own
        pools = ("concurrent/futures/thread.py", "multiprocessing/pool.py")
        return not by_keras and any(file.endswith(pools) for file in files)

    def to_dataframe(self) -> Any:
        """Give the samples as a pandas ``DataFrame``: :func:`tf_mem_magic.core.exports.to_dataframe`."""
        from tf_mem_magic.core import exports

        return exports.to_dataframe(self)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the samples as CSV: :func:`tf_mem_magic.core.exports.to_csv`."""
        from tf_mem_magic.core import exports

        return exports.to_csv(self, path)

    def to_perfetto(self, path: str | os.PathLike[str]) -> Path:
        """Write the curves for Perfetto or Chrome: :func:`tf_mem_magic.core.exports.to_perfetto`."""
        from tf_mem_magic.core import exports

        return exports.to_perfetto(self, path)

    def get(self, name: str) -> Series | None:
        """Find the series called ``name``."""
        return next((s for s in self.series if s.name == name), None)

    @property
    def main(self) -> Series | None:
        """The series that a person means by "memory": the fullest GPU's allocator, else the CPU's, else the host's."""
        ranked = sorted(self.series, key=_rank)
        return ranked[0] if ranked else None

    @property
    def contradiction(self) -> str:
        """What in it cannot be, whoever wrote it, for a file that was read; empty: nothing is seen."""
        if not isfinite(self.seconds) or self.seconds < 0 or not isfinite(self.started):
            return "its times are none"
        for series in self.series:
            if len(series.times) != len(series.values):
                return f"{series.name} has {len(series.times)} times and {len(series.values)} values"
            if any(map(gt, series.times, series.times[1:])) or not all(map(isfinite, series.times)):
                return f"the times of {series.name} do not ascend"
            if min(*series.values, series.peak or 0, series.limit or 0, 0) < 0:
                return f"{series.name} has fewer than 0 bytes"
        return ""


def _rank(series: Series) -> tuple[int, float, int]:
    device = series.device or ""
    order = {"allocator": 0, "process": 2, "device": 3, "host": 4}.get(series.kind, 5)
    if series.kind == "allocator" and device.startswith("CPU"):
        order = 1
    fullness = (series.peak or 0) / series.limit if series.limit else 0.0
    return (order, -fullness, -(series.peak or 0))
