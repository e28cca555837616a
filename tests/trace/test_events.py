"""What the profiler wrote, read: in order of time over all threads, one allocator, within bounds of time and number."""

import pytest

from tests.script import found_by

pytestmark = pytest.mark.tf

SCRIPT = """
import json, sys, time
from tensorflow.tsl.profiler.protobuf import xplane_pb2
from tf_mem_magic.trace import events as reader

NAMES = ("allocation_bytes", "requested_bytes", "addr", "bytes_allocated", "bytes_available", "id",
         "tf_op", "region_type", "allocator_name", "a layer's path", "output", "GPU_0_bfc", "gpu_host_bfc")

def space(lines):
    '''Make a trace of ``(thread, [(picoseconds, sign, bytes, address, in use, allocator)])``.'''
    made = xplane_pb2.XSpace()
    plane = made.planes.add(name="/host:CPU")
    for i, name in enumerate(("MemoryAllocation", "MemoryDeallocation", "another event"), 1):
        plane.event_metadata[i].id, plane.event_metadata[i].name = i, name
    for i, name in enumerate(NAMES, 1):
        plane.stat_metadata[i].id, plane.stat_metadata[i].name = i, name
    places = {name: i for i, name in enumerate(NAMES, 1)}
    for thread, rows in lines:
        line = plane.lines.add(name=thread, timestamp_ns=7)
        for moment, sign, size, address, in_use, allocator in rows:
            event = line.events.add(metadata_id={1: 1, -1: 2, 0: 3}[sign], offset_ps=moment)
            if not sign:
                continue
            numbers = {"allocation_bytes": size, "requested_bytes": size - 1, "bytes_allocated": in_use,
                       "bytes_available": 1000 - in_use, "id": -5}
            for name, value in numbers.items():
                event.stats.add(metadata_id=places[name], int64_value=value)
            event.stats.add(metadata_id=places["addr"], uint64_value=address)
            event.stats.add(metadata_id=places["allocator_name"], ref_value=places[allocator])
            if sign > 0:
                event.stats.add(metadata_id=places["tf_op"], ref_value=places["a layer's path"])
                event.stats.add(metadata_id=places["region_type"], str_value="output")
    return made.SerializeToString()

def told(data, *more):
    try:
        found = reader.read_events(data, *more)
    except ValueError as error:
        return str(error)
    columns = (found.seconds, found.sizes, found.requested, found.addresses, found.in_use, found.runs, found.ops)
    return [found.device, found.limit, found.names, found.cut, *map(list, columns)]

found = {}
GPU, HOST, TOP = "GPU_0_bfc", "gpu_host_bfc", 2**64 - 8
two = [("main", [(10**12, 1, 60, 1, 60, GPU), (3 * 10**12, -1, 60, 1, 40, GPU), (4 * 10**12, 0, 0, 0, 0, "")]),
       ("tf_data_pool", [(2 * 10**12, 1, 40, TOP, 100, GPU), (2 * 10**12 + 1, 1, 10, 3, 10, HOST)])]
found["two threads"] = told(space(two))
found["by device"] = told(space(two), "CPU:0")
found["none of it"] = told(space(two), "GPU:3")
found["damaged"] = told(space(two)[:-3])
found["empty"] = told(b"")
many = [("main", [(i * 10**6, 1 if i % 2 == 0 else -1, 8, 1, 8 * (i % 2 == 0), GPU) for i in range(0, 200_000, 2)]),
        ("other", [(i * 10**6, 1 if i % 4 == 1 else -1, 8, 2, 8, GPU) for i in range(1, 200_000, 2)])]
data = space(many)
began = time.thread_time()
all_of_it = reader.read_events(data)
found["MB/s"] = len(data) / 1e6 / (time.thread_time() - began)
found["all"] = [len(all_of_it), all_of_it.cut]
reader.MOST_EVENTS = 50_000
part = reader.read_events(data)
found["part"] = [len(part), part.cut, max(part.seconds), len(set(part.addresses))]
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, {})


def test_events_of_all_threads_stand_in_order_of_time(found):
    device, limit, names, cut, seconds, sizes, requested, addresses, in_use, runs, ops = found["two threads"]
    assert (device, limit, cut) == ("GPU:0", 1000, None)
    assert (seconds, sizes, in_use) == ([0.0, 1.0, 2.0], [60, 40, -60], [60, 100, 40])
    assert (requested, addresses, runs) == ([59, 39, 59], [1, 2**64 - 8, 1], [-5, -5, -5])
    assert [names[i] for i in ops] == [
        ["a layer's path", "output", False],
        ["a layer's path", "output", True],
        ["", "", False],
    ]


def test_the_device_that_is_asked_for_is_read(found):
    assert found["by device"][0] == "CPU:0"
    assert found["none of it"] == "TensorFlow's allocator told of no allocation on GPU:3"


def test_what_cannot_be_read_is_said(found):
    assert found["damaged"].startswith("what the profiler wrote is damaged")
    assert found["empty"] == "the profiler wrote nothing about the host"


def test_of_more_events_than_are_read_the_beginning_of_all_threads_is(found):
    assert found["all"] == [200_000 // 2 + 100_000, None]
    count, cut, last, threads = found["part"]
    assert 45_000 <= count <= 55_000
    assert last <= cut < 0.06
    assert threads == 2


def test_reading_is_quick_enough_for_a_few_steps(found):
    assert found["MB/s"] >= 5
