"""Losses of a loop that are made of means in fixed shares, and those of which that is not certain."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import ask
from tests.remedies.smaller_batch.test_remedy import ask as ask_smaller
from tf_mem_magic.core.facts import Facts, ScalarFact
from tf_mem_magic.core.proposals import Declined, Proposal

EARLIER = "import keras\nimport numpy as np\nimport tensorflow as tf\nWEIGHT = 0.3\nSHARE = 1 / 64\nFEW = 64\n"
LOOP = """optimizer = keras.optimizers.Adam()
beta = 4.0
def apart(a, b):
    return -tf.reduce_mean(tf.math.log(a)), 0.1 * tf.reduce_mean(b)
def distance(a, b):
    first = tf.reduce_mean((a - b) ** 2)
    return first + 0.5 * tf.reduce_mean(tf.abs(a - b))
def bent(a, b):
    return tf.sqrt(tf.reduce_mean((a - b) ** 2))
def train(data, weight=0.5, scale=64.0):
    for a, b in data:
        with tf.GradientTape() as tape:
            out = model(a)
            first = tf.reduce_mean((out - b) ** 2)
            second = tf.reduce_mean(tf.abs(out - b))
            loss = {}
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
train(tf.data.Dataset.from_tensor_slices((x, y)).batch(64))
"""
FIXED = [
    "first + second",
    "first - 0.1 * second",
    "-first + 2 * second",
    "weight * first + (1 - weight) * second",
    "(first + beta * second) / 2",
    "first * WEIGHT + second",
    "first + 1e-3 * sum(model.losses)",
    "first + sum(model.losses) * 0.01",
    "tf.add(first, second)",
    "tf.add_n([first, 0.1 * second])",
    "sum((first, second))",
    "0.5 * (first + second) - 3",
    "distance(out, b)",
    "2 * distance(out, b) + keras.losses.MeanSquaredError()(b, out)",
]
UNSURE = [
    "first * second",
    "first / second",
    "first * SHARE",
    "first * FEW / 2",
    "first * scale",
    "first * 64",
    "first / batch_size",
    "first * len(a)",
    "first * float(a.shape[0])",
    "first + tf.reduce_sum(tf.abs(out - b))",
    "first ** 2",
    "tf.sqrt(first)",
    "bent(out, b)",
    "tf.maximum(first, second)",
    "first if flag else tf.reduce_sum(out)",
    "apart(a, b)",
    "3",
    "unknown(out, b)",
]


@pytest.mark.parametrize("loss", FIXED)
def test_means_in_fixed_shares_are_of_parts_what_they_are_of_the_whole(loss):
    answer = ask(LOOP.format(loss), line=16, earlier=(EARLIER,))
    assert isinstance(answer, Proposal), answer.reason
    assert "Adam(gradient_accumulation_steps=2)" in answer.source
    assert ".batch(32)" in answer.source


@pytest.mark.parametrize("loss", UNSURE)
def test_what_may_count_the_samples_or_bend_a_mean_is_declined(loss):
    answer = ask(LOOP.format(loss), line=16, earlier=(EARLIER,))
    assert isinstance(answer, Declined)


def test_a_loss_that_a_condition_changes_is_declined():
    source = LOOP.format("first\n            if flag:\n                loss = tf.reduce_sum(out)")
    assert isinstance(ask(source, line=16, earlier=(EARLIER,)), Declined)


def test_a_term_that_is_added_later_counts():
    for term, offered in (("0.1 * second", True), ("tf.reduce_sum(out)", False), ("sum(model.losses)", True)):
        answer = ask(LOOP.format(f"first\n            loss += {term}"), line=16, earlier=(EARLIER,))
        assert isinstance(answer, Proposal) == offered, term


def test_a_number_that_a_function_is_given_is_no_sample():
    source = LOOP.format("weight * first + (1 - weight) * tf.reduce_mean(huber(b, out, scale))")
    huber = "def huber(a, b, delta):\n    return tf.where(tf.abs(a - b) < delta, (a - b) ** 2, tf.abs(a - b))\n"
    assert isinstance(ask(huber + source, line=18, earlier=(EARLIER,)), Proposal)


SUM = "tf.reduce_sum((out - b) ** 2)"


@pytest.mark.parametrize("by", ["10", "SIDE", "(SIDE * SIDE)", "sigma", "(2.0 * sigma)", "100.0"])
def test_a_sum_over_samples_that_a_number_divides_stays_a_sum(by):
    earlier = EARLIER + "SIDE = 28\nsigma = 0.1\n"
    for loss in (f"{SUM} / {by}", f"tf.reduce_mean({SUM} / {by})", f"first + tf.reduce_mean({SUM} * (1.0 / {by}))"):
        assert isinstance(ask(LOOP.format(loss), line=16, earlier=(earlier,)), Declined), loss


@pytest.mark.parametrize("name", ["FEW", "N", "many", "held"])
def test_a_sum_that_a_name_divides_which_holds_the_batch_size_stops_smaller_batches(name):
    earlier, known = EARLIER + f"{name} = 64\n", (ScalarFact(name, 64),)
    facts = Facts("2.21.0", "3.15.1", True, earlier_cells=(earlier,), scalars=known)
    for loss in (f"{SUM} / {name}", f"{SUM} * (1.0 / {name})"):
        source = LOOP.format(f"tf.reduce_mean({loss})")
        for answer in (ask(source, line=16, earlier=(earlier,), scalars=known), ask_smaller(source, facts, line=16)):
            assert isinstance(answer, Declined)
            assert answer.reason == "line 16 divides by 64 too, which may be the batch size, and would stay"


@pytest.mark.parametrize("by", ["float(a.shape[0])", "tf.cast(tf.shape(a)[0], tf.float32)", "len(a)"])
def test_a_sum_that_is_divided_by_the_samples_is_a_mean(by):
    answer = ask(LOOP.format(f"tf.reduce_mean({SUM} / {by})"), line=16, earlier=(EARLIER,))
    assert isinstance(answer, Proposal), answer.reason
