"""The device that this process trains on, from what the sources tell."""

from types import SimpleNamespace

import pytest

from tf_mem_magic.diagnose.planning.values import Place
from tf_mem_magic.record.places import place_here
from tf_mem_magic.record.pool import SourcePool
from tf_mem_magic.sources import host

GIB = 1 << 30


class Pool:
    def __init__(self, values, limits):
        told = {name: (limit, "configured") for name, limit in limits.items()}
        self.sources = [SimpleNamespace(read=lambda: values, limits=lambda: told)]

    def refresh(self, at_once=False):
        pass


@pytest.mark.parametrize(
    ("values", "limits", "place"),
    [
        ({"allocator:GPU:0": 3 * GIB}, {"allocator:GPU:0": 8 * GIB}, Place("GPU:0", 8 * GIB, 2 * GIB, False, True)),
        (
            {"allocator:GPU:0": 0, "device:GPU:0": 14 * GIB},
            {"device:GPU:0": 16 * GIB, "host:rss": 64 * GIB},
            Place("GPU:0", 16 * GIB - (1800 << 20), 0, False, True),
        ),
        (
            {"allocator:GPU:0": 2 * GIB, "device:GPU:0": 14 * GIB, "process:GPU:0": 9 * GIB},
            {"device:GPU:0": 16 * GIB},
            Place("GPU:0", 16 * GIB - (1800 << 20), 6 * GIB, False, True),
        ),
        ({}, {"device:GPU:0": 16 * GIB, "host:rss": 64 * GIB}, Place("GPU:0", 16 * GIB - (1800 << 20), 0, False, True)),
        ({"allocator:CPU:0": 5 * GIB}, {"allocator:CPU:0": 6 * GIB}, Place("CPU:0", 6 * GIB, 4 * GIB, True, True)),
        ({"host:rss": 2 * GIB}, {"host:rss": 16 * GIB}, Place("this computer's memory", 16 * GIB, GIB, True, True)),
        ({"allocator:GPU:0": 0}, {"host:rss": 16 * GIB}, None),
    ],
)
def test_it_is_the_gpu_where_there_is_one_with_what_other_things_hold(values, limits, place, tmp_path):
    assert place_here(Pool(values, limits), made=GIB, root=tmp_path) == place


def test_what_other_programs_hold_of_the_computers_memory_is_not_there_to_be_used(tmp_path):
    (tmp_path / "proc").mkdir()
    rows = {"MemTotal": 16, "MemAvailable": 4, "SwapFree": 0}
    (tmp_path / "proc/meminfo").write_text("".join(f"{name}: {n << 20} kB\n" for name, n in rows.items()))
    pool = Pool({"host:rss": 3 * GIB}, {"host:rss": 16 * GIB})
    assert place_here(pool, made=GIB, root=tmp_path).taken == 11 * GIB


def test_the_hosts_own_source_tells_of_the_computers_memory():
    """Without a GPU and a limit of TensorFlow's: what most computers have."""
    pool = SourcePool([host])
    try:
        place = place_here(pool, made=0)
    finally:
        pool.close()
    assert (place.name, place.cpu, place.here) == ("this computer's memory", True, True)
    assert 0 < place.taken < place.limit
