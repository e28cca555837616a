"""The device that this process trains on, from what the sources tell."""

from types import SimpleNamespace

import pytest

from tf_mem_magic.diagnose.planning.values import Place
from tf_mem_magic.record.places import place_here

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
            {"device:GPU:0": 16 * GIB, "host": 64 * GIB},
            Place("GPU:0", 16 * GIB - (1800 << 20), 0, False, True),
        ),
        ({"allocator:CPU:0": 5 * GIB}, {"allocator:CPU:0": 6 * GIB}, Place("CPU:0", 6 * GIB, 4 * GIB, True, True)),
        ({"host": 2 * GIB}, {"host": 16 * GIB}, Place("this computer's memory", 16 * GIB, GIB, True, True)),
        ({"allocator:GPU:0": 0}, {"host": 16 * GIB}, None),
    ],
)
def test_it_is_the_gpu_where_there_is_one_with_what_other_things_hold(values, limits, place):
    assert place_here(Pool(values, limits), made=GIB) == place
