"""A step run through a pool."""

import pytest

from tests.memory.steps import KIB, Maker, dense_stack
from tf_mem_magic.core.step import Processor
from tf_mem_magic.memory.executor import WAYS
from tf_mem_magic.memory.forecast import peak_of
from tf_mem_magic.memory.pool import Pool
from tf_mem_magic.memory.pooled import executed_in_pool, through_pool, ways

MIB = 1 << 20
PROCESSOR = Processor(threads=2)
PATCHES = 129 * 121 * 288 * 4
"""Bytes of the buffer that each gradient of :func:`convolution` needs at any batch size: 17.1 MiB."""


def convolution(batch):
    """The end of a small network's backward pass: both gradients of one convolution."""
    made = Maker()
    image, kernel = made.argument("x", shape=(batch, 13, 13, 32)), made.argument("w", shape=(3, 3, 32, 64))
    sizes = made.op("Const", "sizes", shape=(4,), dtype="int32")
    x = made.op("Tanh", "m_1/tanh_1/Tanh", image, shape=(batch, 13, 13, 32))
    y = made.op("Conv2D", "m_1/conv_1/convolution", x, kernel, shape=(batch, 11, 11, 64))
    up = made.op("ReluGrad", "gradient_tape/m_1/conv_1/ReluGrad", y, y, shape=(batch, 11, 11, 64))
    of_kernel = made.op("Conv2DBackpropFilter", "gradient_tape/m_1/conv_1/Filter", x, sizes, up, shape=(3, 3, 32, 64))
    of_image = made.op(
        "Conv2DBackpropInput", "gradient_tape/m_1/conv_1/Input", sizes, kernel, up, shape=(batch, 13, 13, 32)
    )
    return made.step(of_kernel, of_image)


@pytest.mark.parametrize("order", ["first", "ready", "last"])
def test_in_one_large_piece_a_step_takes_what_its_tensors_take(order):
    step = dense_stack(4, batch=64)
    pool = Pool(1 << 30, growing=False)
    done = through_pool(step, order, pool)
    assert not done.failed
    assert done.peak == pytest.approx(peak_of(step).low, rel=0.25)
    assert pool.in_use == 0


def test_what_lies_in_the_pool_already_stays_there():
    pool = Pool(1 << 30, growing=False)
    through_pool(dense_stack(2, batch=8), "first", pool, held=[256 * KIB, 256 * KIB])
    assert pool.in_use == 512 * KIB


def test_a_pool_that_is_too_small_tells_the_request_and_who_made_it():
    step = dense_stack(4, batch=2048)
    done = through_pool(step, "first", Pool(5 * MIB))
    assert done.failed == 2048 * 256 * 4
    assert done.at == "m_1/dense_2_1/MatMul"


def test_a_buffer_takes_its_whole_region_and_a_second_one_beside_it_another():
    """As measured of two convolutions: 39 MiB where one runs at a time, 68 where both do, and the tensors are small."""
    alone, both = (
        through_pool(convolution(16), "first", Pool(1 << 30), processor=PROCESSOR, at_once=at_once)
        for at_once in (1, 2)
    )
    assert PATCHES < 32 * MIB < alone.peak < 34 * MIB
    assert 64 * MIB < both.peak < 67 * MIB


def test_what_the_executor_runs_at_once_lies_in_regions_of_their_own_beside_what_is_held():
    """As measured: 68 MiB, a fit of one thread 39."""
    held = [MIB, 2 * MIB]
    one, two = (executed_in_pool(convolution(16), Processor(threads=threads), held) for threads in (1, 2))
    assert len(one) == len(WAYS)
    assert {peak // MIB for peak in one} <= {35, 36, 37, 38}
    assert {peak // MIB for peak in two} <= {67, 68, 69, 70}


def test_each_way_in_which_a_step_may_run_is_tried_in_a_pool_of_its_own():
    found = ways(convolution(16), 49 * MIB, (), processor=PROCESSOR)
    assert [(way.at_once, way.failed) for way in found] == [(1, 0), (2, PATCHES), (1, 0), (2, PATCHES)]


def test_in_the_regions_that_there_are_a_buffer_larger_than_each_finds_no_room():
    taken = (2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB)
    assert all(way.failed == PATCHES for way in ways(convolution(16), 41 * MIB, taken, processor=PROCESSOR))
