"""Derivatives of derivatives, and models in 64 bits: 16 bits keep too few digits of them."""

from __future__ import annotations

import pytest

from tests.remedies.mixed_precision.test_remedy import OLD, ask
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Declined, Proposal

LOOP = "for step in range(9):\n    with tf.GradientTape() as tape:\n        loss = residual(model, t)\n    {}\n"
TAKEN = LOOP.format("opt.apply_gradients(zip(tape.gradient(loss, model.weights), model.weights))")
TWO_TAPES = """def residual(net, t):
    with tf.GradientTape() as outer:
        outer.watch(t)
        with tf.GradientTape() as inner:
            inner.watch(t)
            y = net(t)
        dy = inner.gradient(y, t)
    return tf.reduce_mean((outer.gradient(dy, t) + y) ** 2)
"""
STATIC = """def residual(net, t):
    y = net(t)
    slope = tf.gradients(y, t)[0]
    bend = tf.gradients(slope, t)[0]
    return tf.reduce_mean(tf.square(bend - y))
"""
NESTED = "def residual(net, t):\n    return tf.reduce_mean(tf.gradients(tf.gradients(net(t), t)[0], t)[0])\n"
ONCE = """def residual(net, t):
    with tf.GradientTape() as inner:
        inner.watch(t)
        y = net(t)
    slopes = inner.gradient(y, t)
    return tf.reduce_mean((tf.norm(slopes) - 1) ** 2)
"""
SOLVER = "class Solver:\n" + "".join(
    f"    {line}\n" for line in TWO_TAPES.replace("(net, t)", "(self, net, t)").splitlines()
)
CARD = {"compute_capability": (8, 0)}


@pytest.mark.parametrize("function", [TWO_TAPES, STATIC, NESTED])
def test_a_loss_of_second_derivatives_is_not_computed_in_16_bits(function):
    for source, earlier in ((TAKEN, (function,)), (function + TAKEN, ())):
        found = ask(source, OLD, line=source.count("\n") - 1, earlier=earlier, **CARD)
        assert isinstance(found, Declined), found.diff
        assert "differentiates a derivative" in found.reason


def test_it_is_found_in_the_class_of_an_object_too():
    source = TAKEN.replace("residual(", "solver.residual(")
    found = ask(source, OLD, line=3, earlier=(SOLVER, "solver = Solver()"), **CARD)
    assert "differentiates a derivative" in found.reason


def test_a_penalty_on_first_derivatives_and_gradients_of_weights_do_not_stop_it():
    for text in (ONCE, "def residual(net, t):\n    return tf.reduce_mean(net(t) ** 2)\n"):
        found = ask(TAKEN, OLD, line=3, earlier=(text, TWO_TAPES.replace("residual", "other")), **CARD)
        assert isinstance(found, Proposal), found.reason


def test_a_model_in_64_bits_keeps_them():
    in_64 = ModelFacts("model", ("Dense",), weight_bytes=4096, steps_before=3, dtype_policy="float64", halving=0)
    found = ask("model.fit(x, y)", in_64, line=1, policy="float64", **CARD)
    assert found.reason == "`model` computes in float64, more digits than the usual, and 16 bits keep two or three"
    other = ask("model.fit(x, y)", OLD, line=1, policy="float64", **CARD)
    assert isinstance(other, Proposal), other.reason
