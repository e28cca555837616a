"""The same step at another batch size, and in 16 bits."""

from dataclasses import replace

import pytest

from tests.memory.steps import Maker, dense_stack
from tf_mem_magic.memory.sizes import at_batch, in_half, validating

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


def test_in_16_bits_activations_halve_and_each_weight_has_a_copy_that_the_backward_pass_reads_too():
    step = in_half(dense_stack(3), "float16")
    half = {node.name: node for node in step.nodes}
    assert half["m_1/dense_1_1/Relu"].outputs[0].bytes == 8 * 256 * 2
    forward, backward = (half[f"{scope}m_1/dense_1_1/MatMul"].inputs[1][0] for scope in ("", "gradient_tape/"))
    copy = step.nodes[forward]
    assert (copy.kind, copy.outputs[0].bytes, forward == backward) == ("Cast", WEIGHT // 2, True)


def test_in_16_bits_a_gradient_is_cast_before_the_optimizer_reads_it():
    step = in_half(dense_stack(3), "float16")
    half = {node.name: node for node in step.nodes}
    assert half["gradient_tape/m_1/dense_1_1/MatMul_1"].outputs[0].bytes == WEIGHT // 2
    read = step.nodes[half["sgd/Mul_1"].inputs[0][0]]
    assert (read.kind, read.outputs[0].bytes) == ("Cast", WEIGHT)


@pytest.mark.parametrize("layers", [(), ("dense_0", "dense_1", "dense_2")])
def test_in_16_bits_the_layer_that_gives_the_outputs_goes_on_in_32(layers):
    made = dense_stack(3)
    loss = next(i for i, node in enumerate(made.nodes) if node.name == "gradient_tape/m_1/Mul")
    nodes = list(made.nodes)
    nodes[loss] = replace(nodes[loss], name="gradient_tape/compile_loss/mse/Mul")
    half = {node.name: node for node in in_half(replace(made, nodes=tuple(nodes)), "bfloat16", layers).nodes}
    dtypes = [half[f"m_1/dense_{i}_1/Relu"].outputs[0].dtype for i in range(3)]
    assert dtypes == ["bfloat16", "bfloat16", "float32" if layers else "bfloat16"]
    assert half["gradient_tape/m_1/dense_2_1/ReluGrad"].outputs[0].dtype == dtypes[-1]


def test_in_16_bits_what_a_normalization_layer_reads_and_gives_is_copied():
    made = Maker()
    x = made.op("Relu", "m_1/dense_1/Relu", shape=(8, 64))
    mean = made.op("Mean", "m_1/layer_normalization_1/moments/mean", x, shape=(8, 1))
    out = made.op("Mul", "m_1/layer_normalization_1/batchnorm/mul", x, mean, shape=(8, 64))
    after = made.op("Relu", "m_1/dense_1_2/Relu", out, shape=(8, 64))
    half = in_half(made.step(after), "float16")
    assert [(n.kind, n.outputs[0].dtype) for n in half.nodes] == [
        ("Relu", "float16"),
        ("Cast", "float32"),
        ("Mean", "float32"),
        ("Mul", "float32"),
        ("Cast", "float16"),
        ("Relu", "float16"),
    ]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model_1/dense_1/MatMul", "float16"),
        ("model_1/layer_normalization_1/moments/mean", "float32"),
        ("gradient_tape/model_1/batch_normalization_2_1/batchnorm/mul", "float32"),
        ("compile_loss/mse/SquaredDifference", "float32"),
        ("model_1/global_average_pooling2d_1/truediv", "float32"),
        ("model_1/normalized_1/MatMul", "float16"),
    ],
)
def test_what_keras_computes_in_32_bits_whatever_the_policy_stays_so(name, dtype):
    made = Maker()
    made.op("Relu", name, shape=(8, 4))
    assert [one.dtype for node in in_half(made.step((0, 0)), "float16").nodes for one in node.outputs] == [dtype]


def test_a_validation_computes_no_gradients_no_updates_no_random_numbers_and_no_moments():
    made = Maker()
    x = made.op("IteratorGetNext", "IteratorGetNext", shape=(8, 64))
    drawn = made.op("StatelessRandomUniformV2", "m_1/dropout_1/uniform", shape=(8, 64))
    mask = made.op("GreaterEqual", "m_1/dropout_1/GreaterEqual", drawn, shape=(8, 64), dtype="bool")
    kept = made.op("SelectV2", "m_1/dropout_1/SelectV2", mask, x, shape=(8, 64))
    mean = made.op("Mean", "m_1/batch_normalization_1/moments/mean", kept, shape=(64,))
    out = made.op("Mul", "m_1/batch_normalization_1/batchnorm/mul", kept, mean, shape=(8, 64))
    loss = made.op("Sum", "compile_loss/mse/Sum", out, shape=())
    gradient = made.op("Mul", "gradient_tape/compile_loss/mse/Mul", loss, out, shape=(8, 64))
    made.op("AssignSubVariableOp", "sgd/AssignSub", x, gradient, outputs=())
    own = validating(made.step(loss, gradient))
    assert [node.name.rpartition("/")[2] for node in own.nodes] == ["IteratorGetNext", "SelectV2", "mul", "Sum"]
    assert own.results[0] == (3, 0)


def test_in_a_validation_a_result_shares_the_buffer_that_it_shares_in_the_training():
    made = Maker()
    x = made.op("IteratorGetNext", "IteratorGetNext", shape=(8, 64))
    drawn = made.op("StatelessRandomUniformV2", "m_1/noise_1/uniform", shape=(8, 64))
    other = made.op("Relu", "m_1/a_1/Relu", x, shape=(8, 64))
    made.op("Merge", "m_1/noise_1/merge", drawn, x, other, shape=(8, 64))
    loss = made.op("Sum", "compile_loss/mse/Sum", other, shape=())
    step = made.step(loss)
    for shared, then in ((0, -1), (1, 0), (2, 1), (-1, -1)):
        nodes = tuple(replace(n, shares=(shared,)) if n.kind == "Merge" else n for n in step.nodes)
        own = validating(replace(step, nodes=nodes))
        assert [n.shares for n in own.nodes if n.kind == "Merge"] == [(then,)]


def test_of_a_loop_that_is_given_random_numbers_no_validation_is_told():
    made = Maker()
    x = made.op("IteratorGetNext", "IteratorGetNext", shape=(8, 64))
    drawn = made.op("StatelessRandomUniformV2", "m_1/lstm_1/uniform", shape=(8, 64))
    out = made.op("While", "m_1/lstm_1/while", drawn, x, shape=(8, 64))
    loss = made.op("Sum", "compile_loss/mse/Sum", out, shape=())
    step = made.step(loss)
    loop = tuple(replace(n, body=0) if n.kind == "While" else n for n in step.nodes)
    assert validating(step) is not None
    assert validating(replace(step, nodes=loop, bodies=(dense_stack(1),))) is None


def test_without_a_loss_what_a_validation_computes_is_not_known():
    assert validating(dense_stack(2)) is None


@pytest.mark.parametrize("product", ["Einsum", "BatchMatMulV2"])
def test_in_16_bits_attention_between_einsums_has_its_scores_in_32(product):
    """Keras's ``MultiHeadAttention`` does so in both 16-bit policies; its ``Attention`` does not."""
    made = Maker()
    x = made.op("Relu", "m_1/a_1/key/Relu", shape=(8, 64))
    scores = made.op(product, "m_1/a_1/einsum/Product", x, x, shape=(8, 8))
    scaled = made.op("Mul", "m_1/a_1/Mul", scores, scores, shape=(8, 8))
    soft = made.op("Softmax", "m_1/a_1/Softmax", scaled, shape=(8, 8))
    out = made.op(product, "m_1/a_1/einsum_1/Product", soft, x, shape=(8, 64))
    back = made.op(product, "gradient_tape/m_1/a_1/einsum_1/Product", out, x, shape=(8, 8))
    made.op("Mul", "gradient_tape/m_1/a_1/mul", back, soft, shape=(8, 8))
    half = {n.name: n.outputs[0].dtype for n in in_half(made.step((6, 0)), "bfloat16").nodes if n.kind != "Cast"}
    in_32 = [name for name, dtype in half.items() if dtype == "float32"]
    own = ["m_1/a_1/Mul", "m_1/a_1/Softmax", "gradient_tape/m_1/a_1/mul"]
    assert in_32 == (own if product == "Einsum" else [])


def test_zeros_for_each_sample_grow_with_the_batch():
    made = Maker()
    made.op("Fill", "gradient_tape/zeros", shape=(16, 64))
    made.op("Fill", "gradient_tape/of_a_weight", shape=(24, 64))
    resized = at_batch((made.step((0, 0), (1, 0)),), 16, None, 8)
    assert [node.outputs[0].shape for node in resized.nodes] == [(8, 64), (24, 64)]


def test_in_16_bits_a_mean_is_computed_in_32():
    made = Maker()
    x = made.op("Relu", "m_1/pool_1/Relu", shape=(8, 64))
    step = in_half(made.step(made.op("Mean", "m_1/pool_1/Mean", x, shape=(8,))), "float16")
    assert [(node.kind, node.outputs[0].dtype) for node in step.nodes] == [
        ("Relu", "float16"),
        ("Cast", "float32"),
        ("Mean", "float32"),
    ]
