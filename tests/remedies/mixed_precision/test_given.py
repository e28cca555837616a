"""A model that the function which failed has as a parameter: what is known of it by its own name counts there too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.remedies.mixed_precision.test_remedy import ask
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, FunctionFacts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.core.step import PolicyTrial
from tf_mem_magic.remedies._engine.asking import Question
from tf_mem_magic.remedies._engine.asking import ask as ask_question
from tf_mem_magic.remedies.mixed_precision import remedy

ONE = ModelFacts("net", ("Dense",), weight_bytes=4096, halving=0)
"""A linear regression, say: its only layer with weights gives its output."""
BUILD = """def build(rate):
  model = keras.models.Sequential()
  model.add(keras.layers.Dense(1, input_shape=(1,)))
  model.compile(keras.optimizers.Adam(rate), "mse")
  return model
"""
FUNCTIONAL = """def build(inputs):
  dense = keras.layers.Dense(units=1, activation="sigmoid")
  model = keras.Model(inputs, dense(keras.layers.Concatenate()(list(inputs.values()))))
  model.compile("rmsprop", "binary_crossentropy")
  return model
"""
TRAIN = "def train(model, x, y, epochs=3):\n  history = model.fit(x, y, epochs=epochs)\n  return history.history\n"
DEEPER = "def train(x, y, model):\n  return run(model, x, y)\ndef run(model, x, y):\n  return model.fit(x, y)\n"
METHOD_LIKE = "def train(x, y, *, model=None):\n  for _ in range(3):\n    model.fit(x, y)\n"
SPELLINGS = (
    BUILD + TRAIN + "net = build(0.1)\nhistory = train(net, x, y)",
    BUILD + DEEPER + "net = build(0.1)\ntrain(x, y, net)",
    FUNCTIONAL + METHOD_LIKE + "net = build(inputs)\ntrain(x, y, model=net)",
    FUNCTIONAL + TRAIN + "net = build(inputs)\nmetrics = train(epochs=9, y=y, x=x, model=net)",
)


def line_of(source, words=".fit("):
    return next(n for n, line in enumerate(source.splitlines(), 1) if words in line)


def asked(source, model):
    return ask(source, model, line=line_of(source), earlier=("import keras",))


@pytest.mark.parametrize("source", SPELLINGS)
def test_a_model_of_one_layer_is_declined_where_a_function_trains_it(source):
    answer = asked(source, ONE)
    assert isinstance(answer, Declined), answer.source
    assert "only the layer that gives the output of `net` has weights" in answer.reason


@pytest.mark.parametrize("source", SPELLINGS)
def test_a_model_of_several_layers_is_still_offered_there(source):
    answer = asked(source, replace(ONE, halving=3))
    assert 'set_dtype_policy("mixed_float16")\nnet = build(' in answer.source


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"rounds_ids": True}, "`net` passes ids to an Embedding as float32"),
        ({"dtype_policy": "mixed_bfloat16"}, "`net` already computes in mixed_bfloat16"),
        ({"trial": PolicyTrial("mixed_float16", "failed", told="no 16-bit kernel")}, "`net` cannot compute in 16 bits"),
    ],
)
@pytest.mark.parametrize("source", SPELLINGS)
def test_what_would_be_declined_by_its_own_name_is_declined_there(source, what, reason):
    answer = asked(source, replace(ONE, halving=3, **what))
    assert isinstance(answer, Declined), answer.source
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def train(net):\n    net.fit(x, y)\ntrain(model)", "train(model)"),
        ("def show(x, net=None):\n    return net.predict(x)\np = show(x, net=model)", "p = show("),
        ("async def go(*, net):\n    net.evaluate(x)\nawait go(net=model)", "await go("),
        (
            "def outer(m):\n    for _ in range(3):\n        inner(x, m)\n"
            "def inner(x, m):\n    m.fit(x)\nif ready:\n    outer(model)",
            "    outer(model)",
        ),
    ],
)
def test_a_model_of_an_earlier_cell_is_changed_where_the_cell_gives_it(source, words):
    known = ModelFacts("model", ("Dense",), weight_bytes=4096, steps_before=3, halving=3)
    lines = ask(
        source, known, line=next(n for n, s in enumerate(source.splitlines(), 1) if "(x" in s and "." in s)
    ).source
    at = next(n for n, line in enumerate(lines.splitlines()) if line.startswith(words))
    assert lines.splitlines()[at - 1].strip() == 'apply.mixed_precision(model, "mixed_float16")'


def test_a_function_that_builds_by_the_same_name_is_not_what_a_parameter_holds():
    source = BUILD.replace("def build", "def model") + TRAIN + 'table["all"] = [train(m, one, y) for one in parts]'
    known = ModelFacts("m", ("Dense",), weight_bytes=4096, steps_before=3, halving=3)
    changed = ask(source, known, line=line_of(source), earlier=("import keras",)).source
    assert 'apply.mixed_precision(m, "mixed_float16")\ntable["all"] = [train(m' in changed
    assert "set_dtype_policy" not in changed


def test_a_model_around_the_one_that_the_cell_shows_is_not_taken_for_it():
    source = (
        TRAIN + "net = Residual(keras.Sequential([keras.layers.LSTM(32), keras.layers.Dense(4)]))\ntrain(net, x, y)"
    )
    earlier = "import keras\nclass Residual(keras.Model):\n  def call(self, x):\n    return x + self.inner(x)\n"
    known = replace(ONE, halving=3, form="subclassed", own_layers=("Residual",))
    answer = ask(source, known, line=line_of(source), earlier=(earlier,))
    assert isinstance(answer, Declined), answer.source


def test_its_layers_are_told_of_there():
    answer = asked(SPELLINGS[0], replace(ONE, halving=3, layers=("LSTM", "Dense")))
    assert any("an LSTM took" in caveat for caveat in answer.caveats)


def test_the_model_of_another_function_is_not_its_parameter():
    source = BUILD + TRAIN + "first = build(0.1)\ntrain(pick(), x, y)"
    answer = asked(source, ModelFacts("first", ("Dense",), weight_bytes=4096, halving=3))
    assert isinstance(answer, Declined)
    assert answer.reason == "`model` is a parameter of `train`, and which model it is given is not followed"


def test_two_models_that_may_be_meant_are_not_taken_for_one():
    source = (
        BUILD + TRAIN + "net = build(0.1)\nother = build(0.2)\nfor one in (1,): train(net, x, y), train(other, x, y)"
    )
    answer = ask(source, ONE, replace(ONE, name="other", halving=3), line=line_of(source), earlier=("import keras",))
    assert isinstance(answer, Declined)


def test_functions_of_earlier_cells_are_asked_with_what_is_known_of_the_model():
    cell = Cell("net = build(0.1)\nhistory = train(net, x, y)")
    functions = (FunctionFacts("build", BUILD, "b.py", 1), FunctionFacts("train", TRAIN, "t.py", 1))
    frames = (Frame("c.py", 2, "<module>", True, True), Frame("t.py", 2, "train", False, True))
    frames += (Frame("/site-packages/keras/src/trainer.py", 377, "fit"),)
    for halving, is_offered in ((0, False), (3, True)):
        facts = Facts(
            keras="3.15.1",
            models=(replace(ONE, halving=halving),),
            devices=(DeviceFacts("GPU:0", compute_capability=(7, 5)),),
            functions=functions,
            earlier_cells=("import keras", BUILD, TRAIN),
        )
        errors = (ErrorText("ResourceExhaustedError", "OOM when allocating", frames),)
        context = Context(cell, Recording(cell, status="oom", errors=errors, facts=facts), Diagnosis("GPU:0", line=2))
        (answer,) = ask_question(remedy, Question(context))
        assert isinstance(answer, Declined) is not is_offered, answer
