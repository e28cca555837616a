"""An allocator's pool, piece by piece: what TensorFlow's BFC allocator would do with requests in their order.

The rules are those of bfc_allocator.cc: the smallest free chunk that is large enough is taken, and split only where it
is twice as large as the request or much would remain; a pool that grows takes regions from the device, each twice the
one before, which are never joined.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

GRANULE = 256
"""Bytes to which a request is rounded (``kMinAllocationSize``)."""

FIRST_REGION = 2 << 20
"""Bytes of the first region of a pool that grows."""

MOST_INSIDE = 128 << 20
"""Bytes that may at most remain in a chunk beyond the request where it is not split."""

_PLACE = 32
"""Bits of a chunk's place: free chunks are kept as one number each, the size before the place, which sorts fast."""

_PLACES = (1 << _PLACE) - 1


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
        # Of each chunk its bytes, whether it is free, and its neighbours in its region (-1: none).
        self._sizes: list[int] = []
        self._is_free: list[bool] = []
        self._before: list[int] = []
        self._after: list[int] = []
        self._free: list[int] = []
        for size in regions if growing else (limit,):
            self._add_region(size)
        while self.bytes and growing and self._next_region <= max(regions, default=0):
            self._next_region *= 2

    def allocate(self, size: int) -> int | None:
        """Meet a request of ``size`` bytes; gives the chunk, None where there is no room for it."""
        wanted = (size + GRANULE - 1) // GRANULE * GRANULE or GRANULE
        free = self._free
        where = bisect_left(free, wanted << _PLACE)
        if where == len(free):
            if not self._extend(wanted):
                return None
            where = bisect_left(free, wanted << _PLACE)
        at = free.pop(where) & _PLACES
        self._is_free[at] = False
        has = self._sizes[at]
        if has >= 2 * wanted or has - wanted >= MOST_INSIDE:
            self._split(at, wanted)
            has = wanted
        self.in_use += has
        if self.in_use > self.peak:
            self.peak = self.in_use
        return at

    def release(self, at: int) -> None:
        """Take back a chunk, and join it with what is free beside it."""
        sizes, is_free, free = self._sizes, self._is_free, self._free
        size = sizes[at]
        self.in_use -= size
        after, before = self._after[at], self._before[at]
        if after >= 0 and is_free[after]:
            free.pop(bisect_left(free, sizes[after] << _PLACE | after))
            size += sizes[after]
            self._lead(at, self._after[after])
        if before >= 0 and is_free[before]:
            free.pop(bisect_left(free, sizes[before] << _PLACE | before))
            size += sizes[before]
            self._lead(before, self._after[at])
            at = before
        sizes[at] = size
        is_free[at] = True
        insort(free, size << _PLACE | at)

    @property
    def largest(self) -> int:
        """Bytes of the largest request that could be met now."""
        free = self._free[-1] >> _PLACE if self._free else 0
        untaken = (self.limit - self.bytes) // GRANULE * GRANULE if self.growing else 0
        return max(free, untaken)

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
        self._add(size, -1, -1)
        self.bytes += size

    def _add(self, size: int, before: int, after: int) -> int:
        """Add a free chunk."""
        new = len(self._sizes)
        self._sizes.append(size)
        self._is_free.append(True)
        self._before.append(before)
        self._after.append(after)
        insort(self._free, size << _PLACE | new)
        return new

    def _split(self, at: int, wanted: int) -> None:
        after = self._after[at]
        new = self._add(self._sizes[at] - wanted, at, after)
        if after >= 0:
            self._before[after] = new
        self._sizes[at], self._after[at] = wanted, new

    def _lead(self, at: int, after: int) -> None:
        """Let a chunk be followed by another one, the one between having been joined to it."""
        self._after[at] = after
        if after >= 0:
            self._before[after] = at
