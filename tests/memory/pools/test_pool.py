"""An allocator's pool: what BFC's rules make of requests, and the same requests in TensorFlow's own allocator."""

import random

import pytest

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.memory.pools.pool import FIRST_REGION, Pool

MIB = 1 << 20


def test_a_pool_that_grows_takes_twice_as_much_each_time():
    pool = Pool(100 * MIB)
    taken = []
    for _ in range(4):
        before = pool.bytes
        while pool.bytes == before:
            pool.allocate(MIB)
        taken.append(pool.bytes - before)
    assert taken == [FIRST_REGION, 2 * FIRST_REGION, 4 * FIRST_REGION, 8 * FIRST_REGION]


def test_a_chunk_is_not_split_where_it_is_not_twice_as_large():
    """17 MiB in a region of 32: the whole region is in use, and a second such request needs another one."""
    pool = Pool(49 * MIB)
    assert pool.allocate(17 * MIB) is not None
    assert pool.in_use == 32 * MIB
    assert pool.allocate(17 * MIB) is not None
    assert pool.bytes == 49 * MIB
    assert pool.allocate(256) is None


def test_a_request_larger_than_every_region_and_than_what_is_left_is_not_met():
    pool = Pool(49 * MIB, regions=[2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB])
    assert pool.largest == 19 * MIB
    assert pool.allocate(20 * MIB) is None
    assert pool.allocate(19 * MIB) is not None
    assert pool.allocate(16 * MIB) is not None


def test_free_neighbours_are_one_piece_again_within_a_region_and_not_beyond():
    pool = Pool(8 * MIB, regions=[4 * MIB, 4 * MIB])
    held = [pool.allocate(MIB) for _ in range(8)]
    assert None not in held
    for at in (held[1], held[0], held[3], held[2], *held[4:]):
        pool.release(at)
    assert pool.in_use == 0
    assert pool.largest == 4 * MIB


def test_the_smallest_piece_that_is_large_enough_is_taken():
    pool = Pool(12 * MIB, regions=[8 * MIB, 4 * MIB])
    pool.allocate(3 * MIB)
    assert pool.largest == 8 * MIB


def test_a_pool_that_took_all_at_once_is_one_piece():
    pool = Pool(64 * MIB, growing=False)
    held = [pool.allocate(16 * MIB) for _ in range(4)]
    assert None not in held
    assert pool.allocate(MIB) is None


_ALLOCATE = """
import json, sys
import tensorflow as tf
value = tf.constant(1.0)
said = tf.config.experimental.get_memory_info
found = []
held = {}
for what, name, size in json.load(sys.stdin):
    if what == "take":
        try:
            held[name] = tf.fill([size // 4], value)
        except tf.errors.ResourceExhaustedError:
            found.append(-1)
            break
    else:
        del held[name]
    found.append(said("CPU:0")["current"])
print("FOUND" + json.dumps(found))
"""


def _requests(seed):
    """Requests of 0.3 to 40 MiB and their release, in an order by chance."""
    chance = random.Random(seed)
    held, name = [], 0
    for _ in range(160):
        if held and chance.random() < 0.47:
            yield "release", held.pop(chance.randrange(len(held))), 0
        else:
            held.append(name)
            yield "take", name, int(2 ** chance.uniform(18.3, 25.3)) // 1024 * 1024
            name += 1


@pytest.mark.tf
def test_requests_in_any_order_take_what_they_take_in_tensorflows_own_pool_until_the_first_that_fails():
    requests = list(_requests(2))
    told = found_by(_ALLOCATE, requests, bfc(280))
    pool, chunks, simulated = Pool(280 * MIB), {}, []
    pool.allocate(4)  # the number that they are filled with
    for what, name, size in requests[: len(told)]:
        if what == "take":
            at = pool.allocate(size)
            if at is None:
                simulated.append(-1)
                break
            chunks[name] = at
        else:
            pool.release(chunks.pop(name))
        simulated.append(pool.in_use)
    assert told[-1] == -1  # it fills up, so that pieces matter
    assert len(simulated) == len(told)
    assert simulated[:-1] == [pytest.approx(one, abs=64 << 10) for one in told[:-1]]
