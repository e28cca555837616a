"""Loops that compute their gradients of all samples at once: in parts, or declined with the reason."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.accumulate_gradients.remedy import propose

EARLIER = """import keras
import tensorflow as tf
sgd = keras.optimizers.SGD(0.01)
bce = keras.losses.BinaryCrossentropy()
"""
LOOP = """for turn in range(100):
    with tf.GradientTape() as tape:
        out = model(x)
        loss = bce(y, out)
    grads = tape.gradient(loss, model.trainable_variables)
    sgd.apply_gradients(zip(grads, model.trainable_variables))
"""


def ask(source, layers=("Dense",), shape=(5000, 64), keras="3.15.1"):
    values = tuple(NamedValue(name, 100, "numpy.ndarray", shape=(5000, width)) for name, width in (("x", 8), ("y", 1)))
    values += (NamedValue("few", 100, "numpy.ndarray", shape=(10, 8)),)
    models = (ModelFacts("model", layers, weight_bytes=400),)
    facts = Facts("2.21.0", keras, True, models=models, values=values, earlier_cells=(EARLIER,))
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "model(" in text)
    cell = Cell(source)
    (only,) = propose(
        Context(cell, Recording(cell, status="oom", facts=facts), Diagnosis("GPU:0", line=line, shape=shape))
    )
    return only


def test_the_tape_becomes_a_function_of_a_part():
    answer = ask(LOOP)
    assert isinstance(answer, Proposal), answer.reason
    assert (
        answer.source
        == """for turn in range(100):
    from tf_mem_magic import apply
    def loss_of_part(x, y):
        out = model(x)
        loss = bce(y, out)
        return loss
    loss, grads = apply.gradients_in_parts(loss_of_part, (x, y), model.trainable_variables, 512)
    sgd.apply_gradients(zip(grads, model.trainable_variables))
"""
    )
    assert (answer.title, answer.preserves) == (
        "All 5000 samples, in 10 parts",
        "same effective batch",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("loss = bce(y, out)", "loss = tf.reduce_mean((y - out) ** 2)"),
        ("loss = bce(y, out)", "error = y - out\n        loss = tf.reduce_mean(tf.square(error))"),
        ("out = model(x)", "out = model(x, training=True)"),
        ("out = model(x)", "out = model(x[:, :4])"),
        ("out = model(x)", "out = model(tf.concat([x[:, 0:1], x[:, 2:3]], 1))"),
        ("sgd.apply", "print(turn, float(loss))\n    sgd.apply"),
        ("model.trainable_variables)\n    sgd", "model.weights)\n    sgd"),
    ],
)
def test_other_spellings_of_the_same(old, new):
    source = LOOP.replace(old, new, 1)
    answer = ask(source)
    assert isinstance(answer, Proposal), answer.reason
    assert "(loss_of_part, (x, y), model." in answer.source
    assert new.splitlines()[0].rstrip(")") in answer.source


def test_what_is_shown_under_the_tape_is_of_each_part():
    answer = ask(LOOP.replace("    grads", "        print(float(loss))\n    grads"))
    assert "What line 5 shows is that of each part." in answer.caveats


def test_a_function_that_is_handed_model_and_data_is_followed():
    inside = (
        LOOP.replace("\n", "\n    ").rstrip(" ").replace("model", "net").replace("(x)", "(a)").replace("bce(y", "bce(b")
    )
    answer = ask(f"def train(net, a, b):\n    {inside}train(model, x, y)\n".replace("net(a)", "net(a)  # model("))
    assert isinstance(answer, Proposal), answer.reason
    assert "def loss_of_part(a, b):" in answer.source


def test_batch_normalization_and_dropout_are_told():
    normal = ask(LOOP, ("Dense", "BatchNormalization"))
    assert normal.preserves == "same model, other gradients"
    assert any("sees the parts one by one" in caveat for caveat in normal.caveats)
    assert any("Dropout draws its masks" in caveat for caveat in ask(LOOP, ("Dense", "Dropout")).caveats)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("loss = bce(y, out)", "loss = tf.reduce_sum((y - out) ** 2)", "is a mean over the samples"),
        ("loss = bce(y, out)", "loss = tf.sqrt(tf.reduce_mean((y - out) ** 2))", "mean over the samples"),
        ("loss = bce(y, out)", "loss = bce(y, out - tf.reduce_mean(out))", "the mean of parts is not the whole"),
        ("sgd.apply", "print(out[:3])\n    sgd.apply", "`out` is read in line 6 too"),
        ("    grads =", "    print(loss)\n    grads =", "does not take its gradients"),
        ("tape.gradient(loss", "tape.gradient(bce(y, out)", "has no plain name"),
        ("GradientTape() as tape", "GradientTape() as tape, scope", "no batch size was found"),
        ("GradientTape()", "GradientTape(persistent=True)", "no batch size was found"),
        ("out = model(x)", "out = model(x[:100])", "in another way than sample by sample"),
        ("loss = bce(y, out)", "loss = bce(y[::-1], out)", "in another way than sample by sample"),
        ("loss = bce(y, out)", "loss = bce(y, out) / len(x)", "in another way than sample by sample"),
        ("        loss = bce", "        for _ in range(3): out = out + 1\n        loss = bce", "no plain list"),
        ("loss = bce(y, out)", "best = loss\n        loss = bce(y, out)", "goes on from turn to turn"),
        ("sgd.apply", "tape.reset()\n    sgd.apply", "`tape` is used in line 6 too"),
    ],
)
def test_where_parts_might_not_be_the_whole_it_is_declined(old, new, reason):
    answer = ask(LOOP.replace(old, new, 1))
    assert isinstance(answer, Declined), answer.source
    assert reason in answer.reason


def test_a_step_that_may_be_a_graph_is_declined():
    inside = LOOP.replace("\n", "\n    ").rstrip(" ")
    assert "is decorated" in ask(f"@tf.function\ndef train():\n    {inside}train()\n").reason


def test_another_tensor_than_that_of_all_samples_is_not_taken_for_them():
    assert "no batch size was found" in ask(LOOP, shape=(64, 64)).reason
