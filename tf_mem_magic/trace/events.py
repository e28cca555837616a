"""What TensorFlow's profiler wrote about its allocators, read into columns of numbers within bounds."""

from __future__ import annotations

import time
from array import array
from operator import itemgetter
from typing import Any

from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.dump import device_of
from tf_mem_magic.memory.events import Events

SECONDS = 5.0
"""Processor seconds that reading may take; of a longer trace only the beginning is read."""

MOST_EVENTS = 1_000_000
MOST_BYTES = 512 << 20

_PLANE = "/host:CPU"
_SIGNS = {"MemoryAllocation": 1, "MemoryDeallocation": -1}
_TRIAL = 5_000
"""Events after which the pace of reading is known."""

_UNSIGNED = (1 << 64) - 1
_NUMBERS = ("allocation_bytes", "requested_bytes", "addr", "bytes_allocated", "bytes_available", "id")
_WORDS = ("tf_op", "region_type", "allocator_name")
_Names = dict[tuple[str, str, bool], int]
_Row = tuple[int, int, int, int, int, int, int, int, str]
"""Picoseconds, bytes of the chunk (negative: freed), requested, address, in use, limit, run, operation, allocator."""


class NoAllocationError(ValueError):
    """A trace in which no allocator gave or took anything."""


def read_events(data: bytes, device: str = "", seconds: float = SECONDS) -> Events:
    """Read the allocation events of one device from a serialized ``XSpace``.

    Parameters
    ----------
    data : bytes
        What the profiler wrote (``*.xplane.pb``).
    device : str
        TensorFlow's short name; empty: the device whose allocator handed out most.
    seconds : float
        Processor time after which no more is read.

    Raises
    ------
    NoAllocationError
        If an allocator told of nothing while it was traced.
    ValueError
        If it cannot be read; the text says why.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"the trace has {size(len(data))}, more than is read")
    plane = _plane_of(data)
    if plane is None:
        raise ValueError("the profiler wrote nothing about the host")
    names: _Names = {}
    rows, cut = _rows(plane, names, time.thread_time() + seconds)
    allocators: dict[str, int] = {}
    for row in rows:
        allocators[row[8]] = max(allocators.get(row[8], 0), row[4])
    of_device = {name: most for name, most in allocators.items() if not device or device_of(name) == device}
    if not of_device:
        raise NoAllocationError("TensorFlow's allocator told of no allocation" + (f" on {device}" if device else ""))
    chosen = max(of_device, key=of_device.__getitem__)
    return _columns([row for row in rows if row[8] == chosen], device_of(chosen) or chosen, plane, names, cut)


def _plane_of(data: bytes) -> Any:
    try:
        from tensorflow.tsl.profiler.protobuf import xplane_pb2
    except ImportError:
        raise ValueError("this TensorFlow does not hold the profiler's format") from None
    space = xplane_pb2.XSpace()
    try:
        space.ParseFromString(data)
    except Exception as error:
        raise ValueError(f"what the profiler wrote is damaged ({type(error).__name__})") from None
    return next((plane for plane in space.planes if plane.name == _PLANE), None)


def _rows(plane: Any, names: _Names, deadline: float) -> tuple[list[_Row], float | None]:
    """Give the events as rows in order of time, and after how many seconds they were cut off (None: they were not).

    The pace of the first thousands tells how much can be read in time; every thread's events are cut off at the same
    moment, for a part of the threads would be wrong.
    """
    signs = {i: _SIGNS[m.name] for i, m in plane.event_metadata.items() if m.name in _SIGNS}
    texts = {i: m.name for i, m in plane.stat_metadata.items()}
    places = {name: i for i, name in enumerate(_NUMBERS)} | {name: i - len(_WORDS) for i, name in enumerate(_WORDS)}
    slots = {i: places[name] for i, name in texts.items() if name in places}
    told = [(line, [event for event in line.events if event.metadata_id in signs]) for line in plane.lines]
    total = sum(len(events) for _, events in told)
    first, last = _span(plane)
    rows: list[_Row] = []
    cut, began = None, time.thread_time()
    for line, events in told:
        is_data, zero = line.name.startswith("tf_data"), line.timestamp_ns * 1000
        for event in events:
            moment = zero + event.offset_ps
            if cut is not None and moment > cut:
                break
            rows.append(_row(moment, signs[event.metadata_id], event, slots, texts, is_data, names))
            if len(rows) == _TRIAL:
                pace = (time.thread_time() - began) / _TRIAL
                most = min((deadline - time.thread_time()) / max(pace, 1e-9), MOST_EVENTS)
                if most < total:
                    cut = first + int((last - first) * max(most, _TRIAL) / total)
    if cut is not None:
        rows = [row for row in rows if row[0] <= cut]
    rows.sort(key=itemgetter(0))
    return rows, None if cut is None else (cut - first) / 1e12


def _span(plane: Any) -> tuple[int, int]:
    """Give when the first and the last event of any thread began, in picoseconds."""
    edges = [(line.timestamp_ns * 1000, line.events) for line in plane.lines if len(line.events)]
    starts = [zero + events[0].offset_ps for zero, events in edges]
    return min(starts, default=0), max((zero + events[-1].offset_ps for zero, events in edges), default=0)


def _row(
    moment: int, sign: int, event: Any, slots: dict[int, int], texts: dict[int, str], is_data: bool, names: _Names
) -> _Row:
    """Read one event; ``slots`` tells where each of its values goes, ``texts`` are those that are kept once."""
    numbers, words = [0] * len(_NUMBERS), [""] * len(_WORDS)
    for stat in event.stats:
        slot = slots.get(stat.metadata_id)
        if slot is None:
            continue
        if slot >= 0:
            numbers[slot] = stat.int64_value or stat.uint64_value
        else:
            words[slot] = texts.get(stat.ref_value, "") if stat.ref_value else stat.str_value
    size, requested, address, in_use, free, run = numbers
    op, region, allocator = words
    name = (op, region, is_data) if sign > 0 else ("", "", False)
    index = names.setdefault(name, len(names))
    return (moment, sign * size, requested, address & _UNSIGNED, in_use, in_use + free, run, index, allocator)


def _columns(rows: list[_Row], device: str, plane: Any, names: _Names, cut: float | None) -> Events:
    first, _ = _span(plane)
    times = array("d", ((row[0] - first) / 1e12 for row in rows))
    limit = max((row[5] for row in rows), default=0)
    return Events(
        device,
        limit or None,
        times,
        array("q", (row[1] for row in rows)),
        array("q", (row[2] for row in rows)),
        array("Q", (row[3] for row in rows)),
        array("q", (row[4] for row in rows)),
        array("q", (row[6] for row in rows)),
        array("l", (row[7] for row in rows)),
        tuple(names),
        cut,
    )
