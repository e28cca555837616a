"""What a step asks an allocator for and gives back."""

from collections import Counter

import pytest

from tests.memory.pools.test_pooled import MIB, PATCHES, PROCESSOR, adding_up, beside_a_long_one, convolution
from tests.memory.steps import dense_stack
from tests.memory.test_loops import looped
from tf_mem_magic.core.step import Processor
from tf_mem_magic.memory.executor import WAYS
from tf_mem_magic.memory.forecast import peak_of
from tf_mem_magic.memory.pools.pooled import trained_in_pool
from tf_mem_magic.memory.pools.requests import BEGIN, COPY, END, GIVE, LOOK, TAKE, executed, in_order, own_pieces

STEPS = {
    "dense": dense_stack(4, batch=64),
    "convolution": convolution(16),
    "a long one": beside_a_long_one(),
    "slots": adding_up(2),
    "a loop": looped(convolution(16)),
}


def requests_of(step, way=WAYS[0], threads=2):
    processor = Processor(threads=threads)
    return executed(step, processor, way, own_pieces(step, processor))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STEPS)
def test_what_is_given_back_was_taken_and_operations_give_back_what_they_take(name, way):
    held, done = set(), Counter()
    for what, one, _ in requests_of(STEPS[name], way).of:
        if what in (TAKE, COPY):
            assert one not in held
            held.add(one)
        elif what == GIVE:
            held.remove(one)
        elif what in (BEGIN, END):
            done[one] += 1 if what == BEGIN else -1
            assert done[one] in (0, 1)
    assert not any(done.values())


@pytest.mark.parametrize("name", STEPS)
def test_the_most_that_is_asked_for_at_one_time_is_the_peak(name):
    step = STEPS[name]
    asked = sorted(requests_of(step, way).asked for way in WAYS)
    assert asked[1] == peak_of(step, PROCESSOR).high


def test_one_thread_looks_at_no_kernel_beside_another():
    step = beside_a_long_one()
    one, two = (
        {size for what, _, size in requests_of(step, WAYS[0], threads).of if what == LOOK} for threads in (1, 2)
    )
    assert one == {0}
    assert two == {0, 2 * PATCHES}


@pytest.mark.parametrize("order", ["first", "ready", "last"])
def test_of_operations_one_by_one_each_has_its_own_temporaries_and_the_largest_beside(order):
    found = in_order(convolution(16), order, PROCESSOR)
    assert sorted(found.own.values()) == [[PATCHES, 0], [PATCHES, PATCHES]]


def test_the_same_step_is_walked_through_once():
    step = dense_stack(2, batch=8)
    assert in_order(step, "first") is in_order(step, "first")
    assert in_order(step, "first") is not in_order(step, "last")


@pytest.mark.parametrize("name", STEPS)
def test_several_pools_tell_what_each_tells_alone(name):
    pools, weights = [(), (64 * MIB,), (2 * MIB, 20 * MIB, 4 * MIB)], [MIB, 512, MIB]
    together = trained_in_pool(STEPS[name], PROCESSOR, weights, [MIB, MIB], pools)
    alone = [trained_in_pool(STEPS[name], PROCESSOR, weights, [MIB, MIB], [pool]) for pool in pools]
    assert together == tuple(one for ran in alone for one in ran)
    assert len({one.peak for one in together}) > 1
