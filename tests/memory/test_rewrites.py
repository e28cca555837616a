"""What the graph optimizer moves in memory."""

import pytest

from tests.memory.steps import KIB, Maker, dense_stack
from tests.memory.test_walk import alive_before
from tf_mem_magic.memory.forecast import peak_of
from tf_mem_magic.memory.rewrites import as_run


def attention():
    """Softmax of scaled scores and its gradient: ``(sub * softmax) * scale``."""
    made = Maker()
    scale = made.op("Const", "scale", shape=())
    softmax = made.op("Softmax", "softmax", kib=4)
    out = made.op("MatMul", "out", softmax, kib=1)
    sub = made.op("Sub", "gradient_tape/sub", made.op("MatMul", "gradient_tape/MatMul", out, kib=4), kib=4)
    product = made.op("Mul", "gradient_tape/mul_1", sub, softmax, kib=4)
    scaled = made.op("Mul", "gradient_tape/Mul_2", product, scale, kib=4)
    return made.step(made.op("MatMul", "end", scaled, kib=1))


def test_a_scaled_product_of_a_gradient_and_an_activation_is_made_in_the_forward_pass():
    traced = attention()
    before = alive_before(traced, "gradient_tape/MatMul", "ready")
    after = alive_before(as_run(traced), "gradient_tape/MatMul", "ready")
    assert (sorted(before), sorted(after)) == ([0, 1, 4], [0, 1, 4]) or after.count(4) == before.count(4)
    names = {node.name: node for node in as_run(traced).nodes}
    product = names["gradient_tape/mul_1"]
    assert [as_run(traced).nodes[at].name for at, _ in product.inputs] == ["scale", "softmax"]


def test_a_product_that_something_else_reads_stays_as_it_is():
    made = Maker()
    scale = made.op("Const", "scale", shape=())
    x, y = made.op("MatMul", "x", kib=4), made.op("MatMul", "y", kib=4)
    product = made.op("Mul", "product", x, y, kib=4)
    scaled = made.op("Mul", "scaled", product, scale, kib=4)
    step = made.step(scaled, product)
    assert as_run(step) == step


def test_a_factor_of_another_size_stays_where_it_is():
    made = Maker()
    scale = made.op("Const", "scale", shape=())
    x, row = made.op("MatMul", "x", shape=(4, KIB)), made.op("MatMul", "row", shape=(KIB,))
    product = made.op("Mul", "product", x, row, shape=(4, KIB))
    step = made.step(made.op("Mul", "scaled", product, scale, shape=(4, KIB)))
    assert as_run(step) == step


def test_an_update_waits_for_its_own_gradient_only():
    made = Maker()
    one, two = (made.op("MatMul", f"gradient_tape/{name}", kib=4) for name in "ab")
    bundle = made.op("IdentityN", "adam/IdentityN", one, two, outputs=(made.nodes[0].outputs[0],) * 2)
    first = made.op("Square", "adam/Square", (bundle[0], 0), kib=4)
    second = made.op("Square", "adam/Square_1", (bundle[0], 1), kib=4)
    step = as_run(made.step(first, second))
    inputs = {node.name: node.inputs for node in step.nodes}
    assert (inputs["adam/Square"], inputs["adam/Square_1"]) == ((one,), (two,))


def test_what_never_runs_is_left_out_and_small_constants_that_are_alike_are_one():
    made = Maker()
    one, two = (made.op("Const", name, shape=(2,)) for name in "ab")
    x = made.argument("x", 4)
    first = made.op("Mul", "first", x, one, kib=4)
    made.op("MatMul", "dead", first, kib=64)
    step = as_run(made.step(made.op("Mul", "second", first, two, kib=4)))
    assert [node.name for node in step.nodes] == ["a", "x", "first", "second"]
    assert step.nodes[-1].inputs == ((2, 0), (0, 0))
    assert [step.nodes[at].name for at in step.given] == ["x"]


@pytest.mark.parametrize("layers", [2, 6])
def test_the_peak_of_a_step_is_that_of_its_short_form(layers):
    step = dense_stack(layers, batch=512)
    assert peak_of(as_run(step)) == peak_of(step)
