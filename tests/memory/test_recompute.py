"""A step in which groups of layers compute what they hold again."""

import pytest

from tests.memory.steps import Maker, dense_stack
from tf_mem_magic.memory.forecast import peak_of
from tf_mem_magic.memory.recompute import AGAIN, recomputed

BATCH, WIDTH = 2048, 256
ACTIVATION = BATCH * WIDTH * 4
LAYERS = tuple(f"dense_{i}" for i in range(8))


def pairs(count):
    return tuple(LAYERS[i : i + 2] for i in range(0, 2 * count, 2))


def peak(groups):
    return peak_of(recomputed(dense_stack(8, batch=BATCH, width=WIDTH), groups, LAYERS)).low


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_pair_of_layers_keeps_one_activation_less(count):
    assert peak(()) - peak(pairs(count)) == count * ACTIVATION


def test_while_the_last_pair_runs_again_it_holds_what_it_held():
    assert peak(pairs(4)) == pytest.approx(peak(pairs(3)), abs=ACTIVATION)


def test_what_the_next_layer_reads_is_kept_so_single_layers_save_nothing():
    assert peak(tuple((layer,) for layer in LAYERS[:4])) == peak(())


def test_the_second_run_waits_for_the_gradient_and_reads_what_goes_in_from_a_copy():
    step = recomputed(dense_stack(4), pairs(1), LAYERS)
    places = {node.name: at for at, node in enumerate(step.nodes)}
    again = [node for node in step.nodes if node.name.endswith(AGAIN)]
    gradient = places["gradient_tape/m_1/dense_2_1/MatMul"]
    assert again
    assert all(gradient in node.after for node in again)
    assert "x" not in [step.nodes[at].name for node in again for at, _ in node.inputs if node.kind != "AddV2"]


def test_each_operation_stands_behind_what_it_needs():
    step = recomputed(dense_stack(8), pairs(4), LAYERS)
    for at, node in enumerate(step.nodes):
        assert all(source < at for source, _ in node.inputs)
        assert all(one < at for one in node.after)


def test_a_step_without_a_backward_pass_stays_as_it_is():
    made = Maker()
    out = made.op("MatMul", "m_1/dense_0_1/MatMul", made.argument("x", 4), kib=4)
    step = made.step(out)
    assert recomputed(step, (("dense_0",),)) is step


def test_gradients_that_are_added_up_inside_a_group_are_not_waited_for():
    """A residual block: the gradient of what goes in has two parts, added outside any layer's scope."""
    made = Maker()
    x = made.argument("x", kib=4)
    a = made.op("Tanh", "m_1/block_1/Tanh", x, kib=4)
    b = made.op("Tanh", "m_1/block_1/Tanh_1", a, kib=4)
    out = made.op("Mul", "m_1/block_1/Mul", a, b, kib=4)
    above = made.op("Mul", "gradient_tape/m_1/loss/Mul", out, out, kib=4)
    of_b = made.op("TanhGrad", "gradient_tape/m_1/block_1/TanhGrad", above, b, kib=4)
    both = made.op("AddN", "AddN", above, of_b, kib=4)
    of_x = made.op("TanhGrad", "gradient_tape/m_1/block_1/TanhGrad_1", both, a, kib=4)
    step = recomputed(made.step(of_x), (("block",),))
    names = [node.name for node in step.nodes]
    assert names.index("m_1/block_1/Tanh" + AGAIN) < names.index("gradient_tape/m_1/block_1/TanhGrad")
    assert len(step.nodes) == len(made.nodes) + 3
