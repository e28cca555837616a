"""An allocator's pool, piece by piece: what TensorFlow's BFC allocator would do with requests in their order.

The rules are those of bfc_allocator.cc: the smallest free chunk that is large enough is taken, and split only where it
is twice as large as the request or much would remain; a pool that grows takes regions from the device, each twice the
one before, which are never joined.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

GRANULE = 256
"""Bytes to which a request is rounded (``kMinAllocationSize``)."""

FIRST_REGION = 2 << 20
"""Bytes of the first region of a pool that grows."""

MOST_INSIDE = 128 << 20
"""Bytes that may at most remain in a chunk beyond the request where it is not split."""


@dataclass(slots=True)
class _Chunk:
    """A part of a region; ``before`` and ``after`` are its neighbours in it."""

    size: int
    free: bool = True
    before: int = -1
    after: int = -1


class Pool:
    """A pool of an allocator, from which requests are met as TensorFlow's allocator meets them.

    Parameters
    ----------
    limit : int
        Bytes that it may take from the device.
    regions : sequence of int
        Bytes of the regions that it has already taken, all of them free.
    growing : bool
        It takes more as it needs more; else it took ``limit`` bytes at once.
    """

    def __init__(self, limit: int, regions: Sequence[int] = (), growing: bool = True) -> None:
        self.limit = limit
        self.growing = growing
        self.bytes = 0
        self.in_use = 0
        self.peak = 0
        self._next_region = FIRST_REGION
        self._chunks: list[_Chunk] = []
        self._free: list[tuple[int, int]] = []
        for size in regions if growing else (limit,):
            self._add_region(size)
        while self.bytes and growing and self._next_region <= max(regions, default=0):
            self._next_region *= 2

    def allocate(self, size: int) -> int | None:
        """Meet a request of ``size`` bytes; gives the chunk, None where there is no room for it."""
        wanted = max(-(-size // GRANULE), 1) * GRANULE
        at = self._find(wanted)
        if at is None and self._extend(wanted):
            at = self._find(wanted)
        if at is None:
            return None
        chunk = self._chunks[at]
        chunk.free = False
        if chunk.size >= 2 * wanted or chunk.size - wanted >= MOST_INSIDE:
            self._split(at, wanted)
        self.in_use += chunk.size
        self.peak = max(self.peak, self.in_use)
        return at

    def release(self, at: int) -> None:
        """Take back a chunk, and join it with what is free beside it."""
        chunk = self._chunks[at]
        self.in_use -= chunk.size
        chunk.free = True
        if chunk.after >= 0 and self._chunks[chunk.after].free:
            self._join(at, chunk.after)
        if chunk.before >= 0 and self._chunks[chunk.before].free:
            before = chunk.before
            self._join(before, at, listed=False)
            at = before
        insort(self._free, (self._chunks[at].size, at))

    @property
    def largest(self) -> int:
        """Bytes of the largest request that could be met now."""
        free = self._free[-1][0] if self._free else 0
        untaken = (self.limit - self.bytes) // GRANULE * GRANULE if self.growing else 0
        return max(free, untaken)

    def _find(self, wanted: int) -> int | None:
        where = bisect_left(self._free, (wanted, -1))
        return self._free.pop(where)[1] if where < len(self._free) else None

    def _extend(self, wanted: int) -> bool:
        available = (self.limit - self.bytes) // GRANULE * GRANULE
        if not self.growing or wanted > available:
            return False
        grew = False
        while wanted > self._next_region:
            self._next_region *= 2
            grew = True
        self._add_region(min(self._next_region, available))
        if not grew:
            self._next_region *= 2
        return True

    def _add_region(self, size: int) -> None:
        self._chunks.append(_Chunk(size))
        insort(self._free, (size, len(self._chunks) - 1))
        self.bytes += size

    def _split(self, at: int, wanted: int) -> None:
        chunk = self._chunks[at]
        rest = _Chunk(chunk.size - wanted, True, at, chunk.after)
        new = len(self._chunks)
        self._chunks.append(rest)
        if chunk.after >= 0:
            self._chunks[chunk.after].before = new
        chunk.size, chunk.after = wanted, new
        insort(self._free, (rest.size, new))

    def _join(self, first: int, second: int, listed: bool = True) -> None:
        """Make one chunk of two neighbours; ``listed``: it is the second that stands among the free ones."""
        one, two = self._chunks[first], self._chunks[second]
        gone = (two.size, second) if listed else (one.size, first)
        self._free.pop(bisect_left(self._free, gone))
        one.size += two.size
        one.after = two.after
        if two.after >= 0:
            self._chunks[two.after].before = first
