"""Whose optimizer a loop trains with: handed through functions, and used by other loops of the cell."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import IMPORTS, ask
from tf_mem_magic.core.proposals import Declined, Proposal

INSIDE = """with tf.GradientTape() as tape:
    loss = tf.reduce_mean((model(a) - b) ** 2)
{grads} = tape.gradient(loss, model.trainable_variables)
{opt}.apply_gradients(zip({grads}, model.trainable_variables))
"""
DATA = "tf.data.Dataset.from_tensor_slices(({x}, y)).batch({size})"


def loop(opt="adam", x="x", size=64, grads="grads", over=""):
    over = over or DATA.format(x=x, size=size)
    inside = INSIDE.format(opt=opt, grads=grads).replace("\n", "\n    ").rstrip(" ")
    return f"for a, b in {over}:\n    {inside}"


def function(name="train", opt="opt", grads="grads", takes="data, opt"):
    return f"def {name}({takes}):\n    " + loop(opt, grads=grads, over="data").replace("\n", "\n    ").rstrip(" ")


def first_step(source):
    return next(n for n, line in enumerate(source.splitlines(), 1) if "model(a)" in line)


def answer(source, **known):
    return ask(source, line=first_step(source), **known)


MADE = "adam = keras.optimizers.Adam()\n"
ACCUMULATES = "keras.optimizers.Adam(gradient_accumulation_steps=2)"
BIG = f"data = {DATA.format(x='x', size=64)}\n"


@pytest.mark.parametrize(
    "after",
    [
        loop(x="z", size=48),
        loop(x="z", size=48, grads="others"),
        loop(x="z", size=48, grads="others").replace("64", "48"),
        f"def tune(rows):\n    {loop(over='rows', grads='g').replace(chr(10), chr(10) + '    ').rstrip(' ')}tune(other)\n",
        "def tune(rows, by):\n    "
        + loop("by", over="rows", grads="g").replace("\n", "\n    ").rstrip(" ")
        + "tune(other, adam)\n",
        "adam.minimize(whole_loss, model.trainable_variables)\n",
    ],
)
def test_another_loop_with_the_same_optimizer_would_accumulate_batches_that_stay(after):
    for source in (MADE + loop() + after, MADE + BIG + loop(over="data") + after):
        found = answer(source)
        assert isinstance(found, Declined), found.source


def test_the_reason_names_the_optimizer_and_the_place():
    found = answer(MADE + loop() + loop(x="z", size=48, grads="others"))
    assert found.reason == (
        "`adam` trains in line 11 too, with batches that would stay as they are: accumulated, they would make larger ones"
    )


def test_another_loop_over_what_becomes_smaller_accumulates_with_it():
    found = answer(MADE + BIG + loop(over="data") + loop(over="data", grads="others"))
    assert isinstance(found, Proposal), found.reason
    assert ACCUMULATES in found.source


def test_another_loop_with_another_optimizer_and_other_data_stays_as_it_is():
    found = answer(MADE + loop() + "sgd = keras.optimizers.SGD()\n" + loop("sgd", x="z", size=48, grads="others"))
    assert isinstance(found, Proposal), found.reason
    assert "keras.optimizers.SGD()\n" in found.source


@pytest.mark.parametrize(
    ("end", "edited"),
    [
        (MADE + "train(data, adam)\n", f"adam = {ACCUMULATES}\ntrain(data, adam)\n"),
        (MADE + "train(data=data, opt=adam)\n", f"adam = {ACCUMULATES}\ntrain(data=data, opt=adam)\n"),
        ("train(data, keras.optimizers.Adam())\n", f"train(data, {ACCUMULATES})\n"),
        (
            "def run(data, by):\n    train(data, by)\n" + MADE + "run(data, adam)\n",
            f"def run(data, by):\n    train(data, by)\nadam = {ACCUMULATES}\nrun(data, adam)\n",
        ),
    ],
)
def test_an_optimizer_that_a_function_is_handed_is_followed(end, edited):
    found = answer(function() + BIG + end)
    assert isinstance(found, Proposal), found.reason
    assert found.source == function() + BIG.replace("64", "32") + edited


def test_an_optimizer_of_an_earlier_cell_that_is_handed_over_is_told_and_set_back():
    found = answer(function() + BIG + "train(data, adam)\n", earlier=(IMPORTS, MADE))
    assert "apply.accumulate_gradients(adam, 2)\ntrain(data, adam)\n" in found.source
    assert "apply.accumulate_gradients(adam, 1)" in found.undo


@pytest.mark.parametrize(
    "end",
    [
        "train(data, adam if quick else sgd)\n",
        "train(data, pick())\n",
        "for rate in (0.1, 0.01):\n    train(data, keras.optimizers.Adam(rate))\n",
        MADE + "train(data, adam)\ntrain(other, adam)\n",
        MADE + "train(data, adam)\ntune(other, adam)\n",
    ],
)
def test_where_it_is_not_one_optimizer_for_these_batches_it_is_declined(end):
    tune = "def tune(data, opt):\n    opt.minimize(lambda: loss_of(data), model.trainable_variables)\n"
    found = answer(function() + BIG + end, earlier=(IMPORTS, tune))
    assert isinstance(found, Declined), found.source


def test_two_runs_of_one_step_are_told_as_such():
    step = "def step(a, b):\n    " + INSIDE.format(opt="adam", grads="g").replace("\n", "\n    ").rstrip(" ")
    source = (
        MADE
        + step
        + BIG
        + "for a, b in data:\n    step(a, b)\n"
        + f"for a, b in {DATA.format(x='z', size=48)}:\n    step(a, b)\n"
    )
    found = answer(source)
    assert isinstance(found, Declined)
