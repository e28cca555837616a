"""Dump: what TensorFlow's BFC allocator writes on stderr when it is full, told apart from the rest and parsed."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.recording import ChunkGroup, Dump, FailedRequest, Recording

MOST_FAILURES = 1_000

KEEP = 4 << 20
"""Bytes of dump that are kept, the newest."""

_STATS = rb"Limit|InUse|MaxInUse|NumAllocs|MaxAllocSize|Reserved|PeakReserved|LargestFreeBlock"
_LOG_LINE = re.compile(rb"bfc_allocator\.cc:\d+\] ?(.*)", re.DOTALL)
_DUMP_MESSAGE = re.compile(
    rb"Allocator \(.*\) ran out of memory trying to allocate (?!.*not a failure)"
    rb"|BFCAllocator dump for |Bin \(\d+\):|Bin for .* was .*, Chunk State:|Next region of size |InUse at |Free +at "
    rb"|\s*Size: .* \| Requested Size: |\s*Summary of in-use Chunks by size:|\d+ Chunks of size \d+ totalling "
    rb"|Sum Total of in-use chunks|Total (?:bytes|size) in pool|Stats:|[*_x]+\s*$"
)
_PROFILER = re.compile(
    rb"^.*[ /](?:profiler_session|session_manager|save_profile|cupti\w*)\.cc:\d+\] .*\n", re.MULTILINE
)
_AFTER_HEADER = re.compile(rb"If the cause is memory fragmentation maybe|Current allocation summary follows\.")
_AFTER_STATS = re.compile(rb"(?:" + _STATS + rb"): +[\d.]+[A-Za-z]*\s*$")


class DumpSeparator:
    """Tells the lines of an allocator's dump from everything else on stderr, as the bytes arrive.

    Bytes that are not dump come out exactly as they went in and in order. An unfinished line is held back until
    :meth:`release` or its end, because it may become a line of a dump.

    Parameters
    ----------
    keep : int
        Bytes of dumps that are kept.
    profiles : bool
        Drop what TensorFlow's profiler says of its beginning and end: it is we who run it.
    """

    def __init__(self, keep: int = KEEP, profiles: bool = False) -> None:
        self._keep, self._profiles = keep, profiles
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._partial = b""
        self._midline = False
        self._continues: re.Pattern[bytes] | None = None
        self._after_stats = False
        self._failures: deque[FailedRequest] = deque(maxlen=MOST_FAILURES)

    @property
    def failures(self) -> tuple[FailedRequest, ...]:
        """The requests that got no memory, oldest first, the newest :data:`MOST_FAILURES`; what may fail is none."""
        return tuple(self._failures)

    @property
    def dump_text(self) -> str:
        """The dumps seen so far, the newest :data:`KEEP` bytes of them."""
        return b"".join(self._kept).decode("utf-8", "replace")

    @property
    def pending(self) -> bool:
        """Whether an unfinished line is being held back."""
        return bool(self._partial)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of stderr; give those to forward now."""
        if self._midline:
            head, newline, data = data.partition(b"\n")
            if not newline:
                return head
            self._midline = False
            return head + newline + self.feed(data)
        complete, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._partial += data
            return b""
        text, self._partial = self._partial + complete + newline, rest
        if self._profiles:
            text = _PROFILER.sub(b"", text)
        if self._continues is None and b"bfc_allocator.cc:" not in text:
            return text
        return b"".join(line for line in text.splitlines(keepends=True) if not self._folds(line))

    def release(self) -> bytes:
        """Give up the unfinished line, unless it already is one of a dump: its rest will be forwarded too."""
        if not self._partial or _is_dump(self._partial):
            return b""
        text, self._partial, self._midline = self._partial, b"", True
        return text

    def finish(self) -> bytes:
        """End the stream: give what is still to be forwarded."""
        text, self._partial = self._partial, b""
        return b"" if text and self._folds(text) else text

    def _folds(self, line: bytes) -> bool:
        message = _LOG_LINE.search(line)
        if message is not None and _DUMP_MESSAGE.match(message[1]):
            self._continues = _AFTER_HEADER if message[1].startswith(b"Allocator (") else None
            self._after_stats = False
            if message[1].startswith(b"Stats:"):
                self._continues = _AFTER_STATS
            elif message[1].startswith(b"Allocator ("):
                self._failures += read_failures(message[1].decode("utf-8", "replace"))
        elif self._continues is not None and self._continues.match(line):
            self._after_stats = self._continues is _AFTER_STATS
        elif self._after_stats and not line.strip():
            self._after_stats = False
        else:
            return False
        self._keep_line(line)
        return True

    def _keep_line(self, line: bytes) -> None:
        self._kept.append(line)
        self._kept_bytes += len(line)
        while self._kept_bytes > self._keep:
            self._kept_bytes -= len(self._kept.popleft())


def _is_dump(line: bytes) -> bool:
    message = _LOG_LINE.search(line)
    return message is not None and _DUMP_MESSAGE.match(message[1]) is not None


def read_failures(text: str) -> tuple[FailedRequest, ...]:
    """Read the requests that got no memory from what the allocator wrote about each."""
    found = _HEADER.finditer(text)
    return tuple(FailedRequest(m[1], int(m[2]), m[3] or None) for m in found if not _may_fail(text, m))


def _may_fail(text: str, header: re.Match[str]) -> bool:
    return "not a failure" in text[header.start() :].partition("\n")[0]


def device_of(allocator: str) -> str | None:
    """Give TensorFlow's short name of the device whose memory ``allocator`` hands out; None where it cannot be told.

    ``GPU_0_bfc`` and ``PluggableDevice_0_bfc`` are ``GPU:0``; ``cpu``, ``mklcpu``, ``bfc_cpu_allocator_for_gpu`` and
    the pinned host memory ``gpu_host_bfc`` are ``CPU:0``.
    """
    match = re.match(r"(?:GPU|PluggableDevice|XPU)_(\d+)_", allocator)
    if match:
        return f"GPU:{match[1]}"
    return "CPU:0" if re.search(r"cpu|host", allocator, re.IGNORECASE) else None


def fragmentation(free: int, largest_free: int) -> float | None:
    """Give the share of the free bytes in the pool that lies outside the largest free chunk; None: nothing is free."""
    return (free - largest_free) / free if free else None


def group_chunks(chunks: Iterable[tuple[str, int, int | None]]) -> tuple[ChunkGroup, ...]:
    """Add up chunks ``(op, bytes, requested)`` by operation, largest first; nameless ones by their size."""
    groups: dict[tuple[str, int], ChunkGroup] = {}
    for op, size, requested in chunks:
        key = (op, 0 if op else size)
        so_far = groups.get(key, ChunkGroup(op, 0, 0, 0))
        total = None if requested is None or so_far.requested is None else so_far.requested + requested
        groups[key] = ChunkGroup(op, so_far.bytes + size, total, so_far.count + 1)
    return tuple(sorted(groups.values(), key=lambda group: (-group.bytes, group.op)))


MOST_SIZES = 4096
"""Different sizes of chunks that are kept, those that take most."""


def count_chunks(chunks: Iterable[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Count chunks ``(requested, size)`` that are alike, most bytes first; no more than :data:`MOST_SIZES` kinds."""
    counted = Counter(chunks)
    ranked = sorted(counted.items(), key=lambda entry: (-entry[0][1] * entry[1], entry[0]))
    return tuple((requested, size, count) for (requested, size), count in ranked[:MOST_SIZES])


def find_regions(chunks: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Give the bytes of each run of chunks ``(address, bytes)`` that lie one after the other, in the order given.

    Chunks never reach beyond what was taken from the device at once; where two such regions happen to touch, they
    count as one.
    """
    regions: list[int] = []
    end: int | None = None
    for address, size in chunks:
        if address == end:
            regions[-1] += size
        else:
            regions.append(size)
        end = address + size
    return tuple(regions)


def parse_dumps(text: str) -> tuple[Dump, ...]:
    """Read the dumps in ``text``, oldest first; one whose beginning is cut off is left out.

    Sizes are exact where the dump is (chunks, regions, and before TensorFlow 2.17 everything); the limit and the
    peak of newer versions are rounded to two decimals of their unit, because that is how they are written.
    """
    starts = [m.start() for m in _BEGIN.finditer(text)]
    ends = [*starts[1:], len(text)]
    return tuple(dump for a, b in zip(starts, ends) if (dump := _parse_one(text[a:b])) is not None)


def complete(structured: Dump, text: Iterable[Dump]) -> Dump:
    """Fill what the structured dump does not say from the newest text dump of the same allocator."""
    same = [dump for dump in text if dump.allocator == structured.allocator]
    if not same:
        return structured
    last = same[-1]
    limit, regions = structured.limit or last.limit, last.regions or structured.regions
    return replace(structured, limit=limit, requested=last.requested, op=last.op, regions=regions)


_BEGIN = re.compile(r"^.*bfc_allocator\.cc:\d+\] Allocator \(.*\) ran out of memory trying to allocate ", re.MULTILINE)
_HEADER = re.compile(
    r"Allocator \((.*?)\) ran out of memory trying to allocate \S+ \(rounded to (\d+)\)\s*(?:requested by op (\S+))?"
)
_CHUNK = re.compile(r"\] (InUse|Free +)at \w+ of size (\d+)(?: by op (\S+))?")
_SUMMARY = re.compile(r"\] (\d+) Chunks of size (\d+) totalling ")
_REGION = re.compile(r"\] Next region of size (\d+)")
_POOL = re.compile(r"\] Total (?:bytes|size) in pool: (\S+) memory_limit_: (\S+)")
_STAT = re.compile(r"^(Limit|InUse|MaxInUse): +([\d.]+)([A-Za-z]*)\s*$", re.MULTILINE)
_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}


def _parse_one(text: str) -> Dump | None:
    header = _HEADER.search(text)
    if header is None:
        return None
    chunks = _CHUNK.findall(text)
    used = [(op, int(size), None) for kind, size, op in chunks if kind == "InUse"]
    free = [int(size) for kind, size, _ in chunks if kind != "InUse"]
    if not used:
        used = [("", int(size), None) for count, size in _SUMMARY.findall(text) for _ in range(int(count))]
    stats = {name: _bytes(number, unit) for name, number, unit in _STAT.findall(text)}
    regions = [int(size) for size in _REGION.findall(text)]
    pool = _POOL.search(text)
    largest = max(free, default=0) if chunks else None
    return Dump(
        allocator=header[1],
        basis="text",
        limit=stats.get("Limit") or (_size(pool[2]) if pool else None),
        in_use=sum(size for _, size, _ in used) if used else stats.get("InUse"),
        peak=stats.get("MaxInUse"),
        pool=sum(regions) if regions else (_size(pool[1]) if pool else None),
        largest_free=largest,
        fragmentation=fragmentation(sum(free), largest) if largest is not None else None,
        groups=group_chunks(used),
        requested=int(header[2]),
        op=header[3],
        regions=tuple(regions),
    )


def _size(text: str) -> int | None:
    match = re.match(r"([\d.]+)([A-Za-z]*)$", text)
    return _bytes(match[1], match[2]) if match else None


def _bytes(number: str, unit: str) -> int | None:
    if unit not in _UNITS:
        return None
    return int(number) if "." not in number and unit == "" else round(float(number) * _UNITS[unit])


def newest_dump(dumps: Sequence[Dump], device: str) -> Dump | None:
    """Choose the newest structured dump of the device, else its newest in text."""
    own = [dump for dump in dumps if device_of(dump.allocator) == device]
    structured = [dump for dump in own if dump.basis == "structured"]
    return next(iter([*reversed(structured), *reversed(own)]), None)


def grown_pool(recording: Recording, diagnosis: Diagnosis) -> Dump | None:
    """Give the dump of a pool that has grown region by region and gives none back; None: there is no such dump."""
    if not diagnosis.device.startswith("CPU"):
        return None  # a GPU's allocator gives regions back that are wholly free
    for dump in reversed(recording.dumps):
        if device_of(dump.allocator) == diagnosis.device:
            return dump if len(dump.regions) > 1 else None
    return None
