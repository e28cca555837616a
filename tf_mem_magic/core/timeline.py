"""Timeline: one measured quantity over any length of time in constant memory, its extremes kept exactly."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite

BUCKETS = 2048
"""Buckets of a recorded timeline: at most 4097 points."""

LIVE_BUCKETS = 128
"""Buckets of a timeline that feeds the live chart: at most 257 points."""

_CELL = 8
_HEAD = 8
_BUCKET = 4

# Cells of the head, and the cells of each bucket.
_USED, _WIDTH, _FIRST, _LAST_TIME, _LAST_VALUE, _SAMPLES = range(6)
_T_MIN, _V_MIN, _T_MAX, _V_MAX = range(4)

Points = tuple[tuple[float, ...], tuple[int, ...]]


def bytes_needed(buckets: int = BUCKETS) -> int:
    """Give the size in bytes of the buffer that a timeline of ``buckets`` lives in."""
    return _CELL * (_HEAD + _BUCKET * buckets)


class Timeline:
    """Samples ``(time, value)`` in a fixed number of buckets, each holding its smallest and its largest sample.

    A full timeline merges its buckets pairwise, so that each covers twice the time; the smallest and the largest
    sample of all always survive exactly. Everything lives in ``buffer``, zeros to begin with (8-byte cells: times are
    float64, bytes int64), so that a buffer mapped from a file can be read after the process has died.

    Parameters
    ----------
    buffer : memoryview, optional
        :func:`bytes_needed` bytes that the timeline writes to, or reads what an earlier one has written.
    buckets : int
        Their number, even.
    """

    def __init__(self, buffer: memoryview | None = None, buckets: int = BUCKETS) -> None:
        view = memoryview(bytearray(bytes_needed(buckets))) if buffer is None else buffer[: bytes_needed(buckets)]
        if buckets % 2 or view.nbytes != bytes_needed(buckets):
            raise ValueError(f"a timeline of {buckets} buckets needs {bytes_needed(buckets)} bytes and an even number")
        self._buckets = buckets
        self._times = view.cast("d")
        self._values = view.cast("q")
        self._used = self._values[_USED]
        if not 0 <= self._used <= buckets:
            raise ValueError("the timeline is damaged")
        self._width = self._times[_WIDTH]
        self._last = self._times[_LAST_TIME]
        self._open = self._last
        self._low = self._high = self._values[_LAST_VALUE]

    def __len__(self) -> int:
        """Count the samples that were added."""
        return self._values[_SAMPLES]

    def add(self, time: float, value: int) -> None:
        """Add a sample: ``time`` in seconds, not before the last one's; ``value`` in bytes."""
        times, values = self._times, self._values
        if time < self._last:
            time = self._last
        self._last = time
        if self._used and time - self._open < self._width:
            if value < self._low:
                at = _HEAD + _BUCKET * (self._used - 1)
                self._low = values[at + _V_MIN] = value
                times[at + _T_MIN] = time
            elif value > self._high:
                at = _HEAD + _BUCKET * (self._used - 1)
                self._high = values[at + _V_MAX] = value
                times[at + _T_MAX] = time
        else:
            self._begin_bucket(time, value)
        times[_LAST_TIME] = time
        values[_LAST_VALUE] = value
        values[_SAMPLES] += 1

    def _begin_bucket(self, time: float, value: int) -> None:
        times, values = self._times, self._values
        if self._used == self._buckets:
            self._merge()
        if not self._used:
            times[_FIRST] = time
        at = _HEAD + _BUCKET * self._used
        values[at + _V_MIN] = values[at + _V_MAX] = value
        times[at + _T_MIN] = times[at + _T_MAX] = time
        self._low = self._high = value
        self._open = time
        # Counted last: a process killed in between leaves only whole buckets.
        self._used += 1
        values[_USED] = self._used

    def _merge(self) -> None:
        times, values = self._times, self._values
        for new in range(self._buckets // 2):
            at, left = _HEAD + _BUCKET * new, _HEAD + _BUCKET * 2 * new
            right = left + _BUCKET
            low = right if values[right + _V_MIN] < values[left + _V_MIN] else left
            high = right if values[right + _V_MAX] > values[left + _V_MAX] else left
            low_time, low_value = times[low + _T_MIN], values[low + _V_MIN]
            high_time, high_value = times[high + _T_MAX], values[high + _V_MAX]
            times[at + _T_MIN], values[at + _V_MIN] = low_time, low_value
            times[at + _T_MAX], values[at + _V_MAX] = high_time, high_value
        self._used = values[_USED] = self._buckets // 2
        self._width = times[_WIDTH] = 2 * (self._last - times[_FIRST]) / self._buckets

    def points(self) -> Points:
        """Give ``(times, values)``, ascending in time: the two extremes of each bucket, then the newest sample.

        Raises
        ------
        ValueError
            If the buffer holds times that no clock gives.
        """
        end = _HEAD + _BUCKET * self._used
        times, values = self._times[_HEAD:end].tolist(), self._values[_HEAD:end].tolist()
        points: list[tuple[float, int]] = []
        for at in range(0, len(times), _BUCKET):
            low = (times[at + _T_MIN], values[at + _V_MIN])
            high = (times[at + _T_MAX], values[at + _V_MAX])
            if low == high:
                points.append(low)
            else:
                points += (low, high) if low[0] <= high[0] else (high, low)
        if self._used:
            newest = (self._times[_LAST_TIME], self._values[_LAST_VALUE])
            if newest != points[-1]:
                points.append(newest)
        if not all(isfinite(time) for time, _ in points):
            raise ValueError("the timeline is damaged")
        if any(a[0] > b[0] for a, b in pairwise(points)):
            # Killed while merging: every point is real, some are there twice.
            points = sorted(set(points))
        return tuple(t for t, _ in points), tuple(v for _, v in points)

    def release(self) -> None:
        """Let go of the buffer, so that its file can be closed; the timeline is of no further use."""
        self._times.release()
        self._values.release()
