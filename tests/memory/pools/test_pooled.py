"""A step run through a pool."""

import pytest

from tests.memory.steps import KIB, Maker, dense_stack
from tf_mem_magic.core.step import Processor
from tf_mem_magic.memory.executor import WAYS
from tf_mem_magic.memory.forecast import peak_of
from tf_mem_magic.memory.pools.pool import Pool
from tf_mem_magic.memory.pools.pooled import executed_in_pool, through_pool, trained_in_pool, ways

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


def beside_a_long_one():
    """Two gradients of filters that wait for each other's thread, as another thread has a long product to compute."""
    made = Maker()
    given = [made.argument(name, shape=(4096, 4096)) for name in ("a", "b")]
    image = made.argument("x", shape=(16, 13, 13, 32))
    sizes = made.op("Const", "sizes", shape=(4,), dtype="int32")
    long = made.op("MatMul", "long", *given, shape=(4096, 4096))
    first = made.op("Tanh", "first", image, shape=(16, 13, 13, 32))
    grads = []
    for i in range(2):
        up = made.op("Tanh", f"up_{i}", first, shape=(16, 11, 11, 64))
        grads.append(
            made.op("Conv2DBackpropFilter", f"gradient_tape/conv_{i}/Filter", first, sizes, up, shape=(3, 3, 32, 64))
        )
    return made.step(long, *grads)


def test_the_most_counts_a_kernel_that_could_have_run_beside_those_that_ran():
    """Kernels that wait for a thread in one run have it in another, of the thousands that a training makes."""
    ran = trained_in_pool(beside_a_long_one(), PROCESSOR, [MIB])
    assert all(one.most - one.peak > 0.9 * PATCHES for one in ran)


def test_with_one_thread_no_kernel_runs_beside_another():
    ran = trained_in_pool(convolution(16), Processor(threads=1), [MIB])
    assert all(one.most == one.peak for one in ran)


def adding_up(slots, width=512):
    """A backward pass of a stack whose optimizer adds to ``slots`` variables for each of four weights."""
    made = Maker()
    x = made.argument("x", shape=(256, width))
    held = [made.op("Placeholder", f"s{i}", dtype="resource", shape=()) for i in range(4 * slots)]
    acts = [x]
    for i in range(4):
        acts.append(made.op("Tanh", f"m_1/tanh_{i}_1/Tanh", acts[-1], shape=(256, width)))
    grad = acts[-1]
    for i in reversed(range(4)):
        of_weight = made.op("MatMul", f"gradient_tape/m_1/{i}/MatMul", acts[i], grad, shape=(width, width))
        grad = made.op("Mul", f"gradient_tape/m_1/{i}/Mul", acts[i], grad, shape=(256, width))
        for k in range(slots):
            update = made.op("Mul", f"adam/Mul_{i}_{k}", of_weight, of_weight, shape=(width, width))
            made.op("AssignAddVariableOp", f"adam/Add_{i}_{k}", held[slots * i + k], update, outputs=())
    return made.step()


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("width", [256, 512, 1024])
def test_slots_that_the_first_step_makes_are_there_in_those_after_it_once_each(slots, width):
    step, weight = adding_up(slots, width), width * width * 4
    ran = trained_in_pool(step, PROCESSOR, [weight] * 4, [weight] * 4 * slots)
    variables = 4 * weight * (1 + slots)
    assert len(ran) == len(WAYS)
    for one in ran:
        assert variables + one.asked <= one.peak <= one.most < 2 * (variables + one.asked)


def test_what_is_assigned_keeps_its_chunk_and_the_old_one_is_free():
    """Step after step the variable and its new value are there, and nothing else."""
    made = Maker()
    handle = made.op("Placeholder", "v", dtype="resource", shape=())
    x = made.argument("x", kib=512)
    new = made.op("Tanh", "new", x, kib=512)
    made.op("AssignVariableOp", "assign", handle, new, outputs=())
    ran = trained_in_pool(made.step(), PROCESSOR, [512 * KIB])
    assert {one.peak for one in ran} == {2 * 512 * KIB}


def test_in_large_regions_that_are_there_already_chunks_are_cut_to_what_is_asked_for():
    fresh, there = (trained_in_pool(convolution(16), PROCESSOR, [MIB], (), [regions]) for regions in ((), (128 * MIB,)))
    assert all(one.peak > 60 * MIB for one in fresh)
    assert all(one.peak < 45 * MIB for one in there)
