"""The peak of a step from its operations."""

import pytest

from tests.memory.steps import KIB, Maker, dense_stack
from tests.memory.test_walk import loop_step
from tf_mem_magic.core.step import Tensor
from tf_mem_magic.memory.forecast import ABOVE, held_at_peak, peak_of
from tf_mem_magic.memory.temporaries import temporary_bytes


@pytest.mark.parametrize("layers", [2, 4, 8])
def test_the_peak_of_a_dense_stack_follows_from_its_form(layers):
    """In the backward pass: the layers' activations, a gradient, and the weight's gradient with its update."""
    activation, weight = 64 * 256 * 4, 256 * 256 * 4
    low = peak_of(dense_stack(layers, batch=64)).low
    assert layers * activation + weight <= low <= (layers + 2) * activation + 2 * weight


def test_the_upper_end_leaves_room_for_what_was_measured_beyond_the_tensors():
    peak = peak_of(dense_stack(4, batch=64))
    assert peak.high >= int(peak.low * ABOVE) - 1


def test_what_is_alive_at_the_peak_is_told_by_operation():
    step = dense_stack(4, batch=2048)
    held = held_at_peak(step)
    assert "m_1/dense_0_1/MatMul" in held  # into which the activation writes
    assert sum(held.values()) >= peak_of(step).low


def test_a_loop_takes_its_list_and_one_round_of_its_body():
    peak = peak_of(loop_step(5))
    assert peak.low >= (5 * 4 + 2) * KIB


@pytest.mark.parametrize(
    ("kind", "kernel", "image", "samples", "pixels", "taps"),
    [
        # As asked for by TensorFlow 2.21 in two failures on a processor whose Eigen reports 30 MiB of cache.
        ("Conv2DBackpropInput", (2, 2, 32, 64), (64, 8, 8, 64), 384, 64, 128),
        ("Conv2DBackpropFilter", (3, 3, 48, 16), (64, 32, 32, 16), 17, 1024, 432),
    ],
)
def test_the_patches_of_a_convolutions_gradient_are_those_that_were_asked_for(
    kind, kernel, image, samples, pixels, taps
):
    made = Maker()
    gradient = made.op("Relu", "gradient", shape=image)
    if kind == "Conv2DBackpropFilter":
        inputs = (made.op("Relu", "x", shape=(64, 32, 32, 48)), made.op("Const", "s", shape=(4,), dtype="int32"))
        outputs = (Tensor(kernel, "float32"),)
    else:
        inputs = (made.op("Const", "s", shape=(4,), dtype="int32"), made.op("Relu", "w", shape=kernel))
        outputs = (Tensor((64, 16, 16, 32), "float32"),)
    at, _ = made.op(kind, "conv", *inputs, gradient, outputs=outputs)
    assert temporary_bytes(made.step((at, 0)), at, 30 << 20) == samples * pixels * taps * 4


def test_other_operations_have_no_temporaries_that_are_known():
    step = dense_stack(2)
    assert {temporary_bytes(step, at, 30 << 20) for at in range(len(step.nodes))} == {0}
