"""What an operation is for, by its name and by what it reads."""

import pytest

from tests.memory.steps import Maker, dense_stack
from tf_mem_magic.memory.roles import layer_of, roles, scopes_of
from tf_mem_magic.memory.sizes import in_half

LAYERS = {"conv2d_4", "dense", "multi_head_attention_1", "query"}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("functional_1/conv2d_4_1/convolution", "conv2d_4"),
        ("StatefulPartitionedCall/functional_1/conv2d_4_2/convolution", "conv2d_4"),
        ("StatefulPartitionedCall/gradient_tape/functional_1/conv2d_4_1/convolution/Conv2DBackpropFilter", "conv2d_4"),
        ("functional_1/multi_head_attention_1_1/query_1/einsum/Einsum", "multi_head_attention_1"),
        ("functional_1/dense_1/Gelu/mul", "dense"),
        ("my_scope/inner/MatMul", "inner"),
        ("Adam/mul_3", "Adam"),
        ("AddN_2", ""),
    ],
)
def test_the_layer_is_in_the_scopes_of_the_name(name, layer):
    assert layer_of(name, scopes_of([name], LAYERS)) == layer


PATHS = [
    "functional_1/dense_1/MatMul",
    "functional_1/dense_1_2/MatMul",
    "functional_1/dense_2_1/MatMul",
    "gradient_tape/functional_1/dense_1/MatMul/MatMul",
]


def test_a_scope_that_is_the_name_of_a_layer_may_be_the_second_one_of_another():
    """Keras opens each scope twice: those of ``dense`` are ``dense`` and ``dense_1``, which another layer is called."""
    scopes = scopes_of(PATHS, {"dense", "dense_1", "dense_2"})
    assert [layer_of(name, scopes) for name in PATHS] == ["dense", "dense_1", "dense_2", "dense"]


def test_a_scope_that_was_opened_once_is_that_of_the_layer_with_its_name():
    paths = ["model/dense/MatMul", "model/dense_1/MatMul"]
    scopes = scopes_of(paths, {"dense", "dense_1"})
    assert [layer_of(name, scopes) for name in paths] == ["dense", "dense_1"]


def test_activations_gradients_and_updates_are_told_apart():
    step = dense_stack(2)
    found = {node.name: role for node, role in zip(step.nodes, roles(step))}
    assert (
        found["x"],
        found["m_1/dense_1_1/Relu"],
        found["gradient_tape/m_1/dense_1_1/MatMul_1"],
        found["sgd/Mul_1"],
    ) == ("inputs", "activations", "gradients", "updates")


def test_a_forward_pass_after_an_update_is_no_update():
    """A GAN's second network runs after the first one's weights have changed, which it waits for but does not read."""
    from tests.memory.steps import Maker

    made = Maker()
    x = made.argument("x", 4)
    grad = made.op("MatMul", "gradient_tape/MatMul", x, kib=4)
    update = made.op("AssignSubVariableOp", "sgd/Assign", x, grad, outputs=())
    second = made.op("MatMul", "second_1/MatMul", x, kib=4, after=(update[0],))
    step = made.step(second)
    assert roles(step)[second[0]] == "activations"


def summed(kind, name):
    """Two gradients of an activation, an operation that reads both, and an optimizer's that reads that."""
    made = Maker()
    x = made.argument("x", 8)
    parts = [made.op("Mul", f"call/gradient_tape/m_1/dense_{i}_1/Mul", x, x, kib=8) for i in range(2)]
    both = made.op(kind, name, *parts, kib=8)
    made.op("Mul", "call/adam/Mul", both, both, kib=8)
    return made.step(both)


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("AddN", "AddN", "gradients"),
        ("AddN", "StatefulPartitionedCall/AddN_7", "gradients"),
        ("Mul", "PartitionedCall/StatefulPartitionedCall_1/mul_3", "gradients"),
        ("Sub", "sub_2", "gradients"),
        ("Mul", "StatefulPartitionedCall/adam/Mul_2", "updates"),
        ("Mul", "clip_by_norm/mul", "updates"),
    ],
)
def test_what_the_tape_computes_of_gradients_outside_all_scopes_is_a_gradient(kind, name, role):
    step = summed(kind, name)
    assert roles(step)[3:] == (role, "updates")


def test_sums_of_gradients_are_in_16_bits_as_the_gradients_are():
    half = in_half(summed("AddN", "StatefulPartitionedCall/AddN"), "bfloat16")
    total = next(node for node in half.nodes if node.kind == "AddN")
    assert total.outputs[0].dtype == "bfloat16"
    assert all(half.nodes[source].kind != "Cast" for source, _ in total.inputs)
