"""Which buffers are alive when: reference counts, buffers that are shared, kernels that write in place."""

import pytest

from tests.memory.steps import KIB, Maker, dense_stack
from tf_mem_magic.core.step import Tensor
from tf_mem_magic.memory.walk import ORDERS, Walk


def alive_before(step, name, order="first"):
    walk = Walk(step, order)
    assert walk.before(next(i for i, node in enumerate(step.nodes) if node.name == name))
    return sorted(buffer.size // KIB for buffer in walk.alive.values())


def test_a_tensor_lives_until_its_last_reader_has_run():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    b = made.op("MatMul", "b", a, kib=8)
    c = made.op("MatMul", "c", b, kib=16)
    d = made.op("MatMul", "d", c, a, kib=32)
    step = made.step(d)
    assert (alive_before(step, "c"), alive_before(step, "d")) == ([4, 8], [4, 16])


def test_a_reshape_is_its_inputs_buffer():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    b = made.op("Reshape", "b", a, kib=4)
    step = made.step(made.op("MatMul", "c", b, kib=8))
    assert alive_before(step, "c") == [4]


def test_an_activation_writes_over_an_input_that_nobody_else_needs():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    b = made.op("Relu", "b", a, kib=4)
    step = made.step(made.op("MatMul", "c", b, kib=8))
    assert alive_before(step, "c") == [4]


def test_an_activation_leaves_alone_what_another_still_reads():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    b = made.op("Relu", "b", a, kib=4)
    step = made.step(made.op("MatMul", "c", b, a, kib=8))
    assert alive_before(step, "c") == [4, 4]


def test_a_tensor_of_another_type_is_not_written_over():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    b = made.op("Neg", "b", a, shape=(KIB,), dtype="int32")
    step = made.step(made.op("MatMul", "c", b, kib=8))
    walk = Walk(step)
    assert [len(walk.alive) for at in walk.run() if step.nodes[at].name == "b"] == [2]


def test_what_nobody_needs_does_not_run():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    made.op("MatMul", "dead", a, kib=64)
    step = made.step(made.op("MatMul", "c", a, kib=8))
    assert [step.nodes[at].name for at in Walk(step).run()] == ["a", "c"]


def test_an_update_runs_though_nobody_reads_it():
    step = dense_stack(1)
    assert "sgd/AssignSub_0" in [step.nodes[at].name for at in Walk(step).run()]


def test_variables_and_arguments_have_no_buffer_of_the_step():
    step = dense_stack(1)
    assert alive_before(step, "m_1/dense_0_1/MatMul") == []


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layers", [1, 3, 6])
def test_a_dense_stack_holds_one_activation_a_layer_when_its_backward_pass_begins(layers, order):
    step = dense_stack(layers, batch=8, width=256)
    assert alive_before(step, "gradient_tape/m_1/Mul", order) == [8] * layers


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_runs_each_operation_after_what_it_needs(order):
    step = dense_stack(4)
    seen = set()
    for at in Walk(step, order).run():
        assert {source for source, _ in step.nodes[at].inputs} <= seen
        seen.add(at)
    # All but the gradient of the first layer's input, which nobody asks for.
    assert len(seen) == len(step.nodes) - 1


def test_a_step_that_has_ended_holds_its_results_only():
    made = Maker()
    a = made.op("MatMul", "a", kib=4)
    b = made.op("MatMul", "b", a, kib=8)
    step = made.step(b)
    walk = Walk(step)
    for _ in walk.run():
        pass
    assert ([b.size // KIB for b in walk.alive.values()], walk.bytes) == ([8], 8 * KIB)


def loop_step(trips=5):
    """A loop that adds one tensor of 4 KiB a round to a list, and one whose state is 2 KiB."""
    inner = Maker()
    count = inner.argument("count", 0)
    held = inner.op("Placeholder", "list", outputs=(Tensor((KIB,), "float32", trips),))
    inner.given.append(held[0])
    state = inner.argument("state", 2)
    new = inner.op("MatMul", "cell/MatMul", state, kib=4)
    pushed = inner.op("TensorListPushBack", "push", held, new, outputs=(Tensor((KIB,), "float32", trips),))
    after = inner.op("MatMul", "cell/MatMul_1", new, kib=2)
    body = inner.step(count, pushed, after)
    made = Maker()
    zero = made.op("Const", "zero", shape=(), dtype="int32")
    empty = made.op("EmptyTensorList", "empty", outputs=(Tensor((KIB,), "float32", trips),))
    begin = made.op("MatMul", "begin", kib=2)
    made.op(
        "While",
        "m_1/lstm_1/while",
        zero,
        empty,
        begin,
        outputs=(Tensor((), "int32"), Tensor((KIB,), "float32", trips), Tensor((KIB // 2,), "float32")),
        shares=(-1, -1, -1),
        body=0,
        trips=trips,
    )
    stacked = made.op("TensorListStack", "stack", (3, 1), kib=4 * trips)
    return made.step(stacked, (3, 2), bodies=(body,))


def test_a_loop_leaves_a_list_with_one_element_a_round():
    walk = Walk(loop_step(5))
    held = {}
    for at in walk.run():
        held[walk.step.nodes[at].name] = sorted((b.size // KIB, b.count) for b in walk.alive.values() if b.size >= KIB)
    assert (2, 1) in held["m_1/lstm_1/while"]
    assert (4, 5) in held["m_1/lstm_1/while"]


def test_what_an_operation_would_take_and_give_back_is_what_running_it_changes():
    step = dense_stack(3)
    walk = Walk(step)
    while walk.ready:
        at = min(walk.ready)
        before = walk.bytes
        taken, freed = walk.would(at)
        walk.execute(at)
        dead = [o for o in range(len(step.nodes[at].outputs)) if not walk.readers[at][o]]
        assert dead or walk.bytes - before == sum(taken) - sum(freed), step.nodes[at].name


def updated(kind):
    """A weight that the forward pass reads, updated before or after what reads it in the backward pass has run."""
    made = Maker()
    kernel = made.op("Placeholder", "k", dtype="resource", shape=())
    read = made.op("ReadVariableOp", "Read", kernel, kib=64)
    x = made.op("MatMul", "x", read, kib=8)
    gradient = made.op("MatMul", "gradient", x, kib=64)
    made.op(kind, "update", kernel, gradient, outputs=())
    return made.step(made.op("MatMul", "backward", x, read, kib=8))


@pytest.mark.parametrize("kind", ["AssignSubVariableOp", "AssignAddVariableOp", "ResourceApplyAdam"])
def test_a_weight_that_is_changed_while_something_reads_it_is_copied_until_that_has_run(kind):
    walk = Walk(updated(kind))
    during = {walk.step.nodes[at].name: sorted(b.size // KIB for b in walk.alive.values()) for at in walk.run()}
    assert during["gradient"] == [8, 64]
    assert during["update"] == [8, 64, 64]
    assert during["backward"] == [8, 8, 64]
    assert [b.size // KIB for b in walk.alive.values()] == [8]
    assert walk.bytes == 8 * KIB


def test_a_weight_that_is_set_anew_needs_no_copy_of_what_it_was():
    walk = Walk(updated("AssignVariableOp"))
    during = {walk.step.nodes[at].name: walk.bytes // KIB for at in walk.run()}
    assert during["update"] == 8 + 64


def test_a_weight_that_nothing_reads_any_more_is_changed_in_place():
    walk = Walk(updated("AssignSubVariableOp"), "last")
    during = {walk.step.nodes[at].name: walk.bytes // KIB for at in walk.run()}
    assert list(during).index("backward") < list(during).index("update")
    assert during["update"] == 8 + 64


def test_what_passes_a_weight_on_is_still_a_reader_of_it():
    made = Maker()
    kernel = made.op("Placeholder", "k", dtype="resource", shape=())
    same = made.op("Identity", "same", made.op("ReadVariableOp", "Read", kernel, kib=64), kib=64)
    gradient = made.op("MatMul", "gradient", same, kib=64)
    made.op("AssignSubVariableOp", "update", made.op("Identity", "handle", kernel, shape=()), gradient, outputs=())
    walk = Walk(made.step(made.op("MatMul", "backward", same, kib=8)))
    during = {walk.step.nodes[at].name: walk.bytes // KIB for at in walk.run()}
    assert (during["update"], during["backward"]) == (128, 72)
