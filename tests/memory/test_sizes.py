"""The same step at another batch size, and in 16 bits."""

import pytest

from tests.memory.steps import Maker, dense_stack
from tf_mem_magic.memory.sizes import at_batch, in_half

WEIGHT = 256 * 256 * 4


@pytest.mark.parametrize("wanted", [1, 4, 12, 32, 64])
def test_between_two_traces_every_size_lies_on_the_line(wanted):
    steps = (dense_stack(3, batch=16), dense_stack(3, batch=8))
    assert at_batch(steps, 16, 8, wanted).nodes[1:] == dense_stack(3, batch=wanted).nodes[1:]


@pytest.mark.parametrize("wanted", [1, 8, 48])
@pytest.mark.parametrize("batch", [16, 64, 256])
def test_from_one_trace_what_comes_from_the_data_grows_and_gradients_of_weights_stay(batch, wanted):
    (one,) = (dense_stack(3, batch=batch),)
    resized = at_batch((one,), batch, None, wanted, {WEIGHT})
    found = {node.name: [t.shape for t in node.outputs] for node in resized.nodes}
    assert found["m_1/dense_1_1/Relu"] == [(wanted, 256)]
    if batch != 256:  # then an activation has as many bytes as a weight, and which it is cannot be told
        assert found["gradient_tape/m_1/dense_1_1/MatMul_1"] == [(256, 256)]
        assert found["gradient_tape/m_1/dense_1_1/MatMul"] == [(wanted, 256)]


def test_at_its_own_batch_a_step_is_itself():
    step = dense_stack(2)
    assert at_batch((step,), 8, None, 8) is step


def test_in_16_bits_activations_halve_and_gradients_of_variables_stay():
    half = {node.name: node.outputs for node in in_half(dense_stack(3), "float16", {WEIGHT}).nodes}
    assert half["m_1/dense_1_1/Relu"][0].bytes == 8 * 256 * 2
    assert half["gradient_tape/m_1/dense_1_1/MatMul_1"][0].bytes == WEIGHT


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model_1/dense_1/MatMul", "float16"),
        ("model_1/layer_normalization_1/moments/mean", "float32"),
        ("gradient_tape/model_1/batch_normalization_2_1/batchnorm/mul", "float32"),
        ("compile_loss/mse/SquaredDifference", "float32"),
        ("model_1/normalized_1/MatMul", "float16"),
    ],
)
def test_what_keras_computes_in_32_bits_whatever_the_policy_stays_so(name, dtype):
    made = Maker()
    made.op("Relu", name, shape=(8, 4))
    assert [one.dtype for node in in_half(made.step((0, 0)), "float16").nodes for one in node.outputs] == [dtype]
