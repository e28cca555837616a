"""What a step holds when one of its operations fails."""

from collections import Counter

import pytest

from tests.memory.steps import KIB, Maker, dense_stack
from tests.memory.test_walk import loop_step
from tf_mem_magic.memory.live import best_live, find_stop, live_at
from tf_mem_magic.memory.roles import scopes_in


@pytest.mark.parametrize(
    "told",
    [
        "m_1/dense_1_1/MatMul",
        "StatefulPartitionedCall/m_1/dense_1_1/MatMul",
        "StatefulPartitionedCall/PartitionedCall_2/m_1/dense_1_1/MatMul",
    ],
)
def test_the_operation_is_found_whatever_the_calls_around_it_are_named(told):
    step = dense_stack(3)
    (at,) = find_stop(step, told)
    assert step.nodes[at].name == "m_1/dense_1_1/MatMul"


def test_a_name_that_is_not_in_the_step_is_not_found():
    assert find_stop(dense_stack(2), "m_1/other/MatMul") is None


@pytest.mark.parametrize("told", ["cell/MatMul", "m_1/lstm_1/while/body/_12/cell/MatMul"])
def test_an_operation_inside_a_loop_is_found_with_the_way_to_it(told):
    step = loop_step()
    at, inner = find_stop(step, told)
    assert (step.nodes[at].kind, step.bodies[0].nodes[inner].name) == ("While", "cell/MatMul")


def test_a_running_loop_may_have_filled_any_part_of_its_list():
    step = loop_step(5)
    live = live_at(step, find_stop(step, "cell/MatMul_1"), "first", {})
    growing = [one for one in live.held if one.count == 5]
    assert [(one.bytes // KIB, one.least) for one in growing] == [(4, 0)]
    assert ("cell/MatMul", 4 * KIB) in {(one.op, one.bytes) for one in live.held}


def test_each_tensor_has_its_layer_and_its_role():
    step = dense_stack(3)
    name = "gradient_tape/m_1/dense_1_1/MatMul"
    live = live_at(step, find_stop(step, name), "first", scopes_in(step, {"dense_0", "dense_1", "dense_2"}))
    roles = {(one.layer, one.role) for one in live.held}
    assert {("dense_0", "activations"), ("dense_1", "gradients")} <= roles


def test_operations_that_ran_ahead_are_told_by_the_chunks():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    b = made.op("MatMul", "b", a, kib=8)
    c = made.op("MatMul", "c", a, kib=16)
    c2 = made.op("MatMul", "c2", c, kib=32)
    step = made.step(made.op("MatMul", "d", b, c2, kib=1))
    live = best_live(step, "b", Counter({4 * KIB: 1, 32 * KIB: 1}), requested=8 * KIB)
    assert sorted(one.bytes // KIB for one in live.held) in ([4, 32], [4, 16])


def test_the_input_of_an_operation_that_is_fused_with_it_is_not_there_yet():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    conv = made.op("Conv2D", "conv", a, kib=8)
    bias = made.op("BiasAdd", "bias", conv, kib=8)
    step = made.step(made.op("MatMul", "d", bias, a, kib=1))
    live = live_at(step, find_stop(step, "bias"), "first", {}, requested=8 * KIB)
    assert [one.op for one in live.held] == ["a"]


def test_an_operation_that_failed_for_a_temporary_has_made_its_output():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    step = made.step(made.op("Conv2DBackpropInput", "conv", a, kib=8))
    live = live_at(step, find_stop(step, "conv"), "first", {}, requested=100 * KIB)
    assert sorted(one.op for one in live.held) == ["a", "conv"]
