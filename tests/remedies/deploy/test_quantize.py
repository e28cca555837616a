"""The remedy ``quantize``: what it says of a training, and of an inference whose model is not followed."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.remedies.deploy.quantize import propose

MODEL = ModelFacts("model", ("Dense",), weight_bytes=1 << 24, quantizable=1 << 24, copyable=True)


def reason(source, line, *frames):
    cell = Cell(source)
    facts = Facts("2.21.0", "3.15.1", True, models=(MODEL,), earlier_cells=("import keras\nimport tensorflow as tf",))
    error = ErrorText("ResourceExhaustedError", "", frames=tuple(Frame("a.py", 1, name) for name in frames))
    recording = Recording(cell, status="oom", facts=facts, errors=(error,))
    return propose(Context(cell, recording, Diagnosis("GPU:0", line=line)))[0].reason


@pytest.mark.parametrize(
    ("source", "line", "named"),
    [
        ("def run(net):\n    net.fit(x, y)\nrun(model)", 2, "fit"),
        ("def run(net):\n    for b in data:\n        net.train_on_batch(*b)\nrun(model)", 3, "train_on_batch"),
        ("with tf.GradientTape() as tape:\n    loss = f(net(x))", 2, "GradientTape"),
        ("with a, tf.GradientTape() as t:\n    z = w * x", 2, "GradientTape"),
        ("with tf.GradientTape() as tape:\n    z = f(w)\ngrads = tape.gradient(z, w)", 3, "GradientTape"),
    ],
)
def test_a_training_is_said_to_be_one_wherever_it_stands(source, line, named):
    assert reason(source, line) == f"it makes a trained model smaller for inference, and `{named}` is what ran out"


def test_a_training_in_an_earlier_function_is_told_by_the_frames():
    assert "`fit` is what ran out" in reason("run(x)", 1, "run", "fit", "evaluate")


@pytest.mark.parametrize(
    ("source", "line", "named"),
    [
        ("def show(net):\n    return net.predict(x)\nshow(model)", 2, "predict"),
        ("def score(m, d):\n    a = m.evaluate(d)\n    return a\nscore(model, d)", 2, "evaluate"),
        ("outs = [m.predict_on_batch(x) for m in (model, other)]", 1, "predict_on_batch"),
    ],
)
def test_an_inference_is_named_where_its_model_is_not_followed(source, line, named):
    assert reason(source, line) == f"`{named}` ran out of memory, and of which model it was called is not followed"


def test_what_is_neither_is_not_known():
    assert "here that is not known" in reason("z = run(x)", 1)
