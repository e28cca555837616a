"""``xla``: where the setting is written, and that real Keras then compiles, or does not, with close results."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.xla import propose

ROOT = Path(__file__).resolve().parents[2]
OFF = "model.jit_compile = False\nmodel.train_function = model.test_function = model.predict_function = None\n"


def ask(source, *, jit=True, new=False, device="GPU:0", compiled=False, **model):
    facts = ModelFacts("model", ("Dense",), jit_compile=jit, steps_before=None if new else 0, **model)
    cell = Cell(source)
    recording = Recording(cell, status="oom", facts=Facts(keras="3.15.1", models=(facts,)))
    (only,) = propose(Context(cell, recording, Diagnosis(device, jit=compiled)))
    return only


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        ("model.fit(x, y)", OFF + "model.fit(x, y)"),
        ("model.compile('adam')\nmodel.fit(x)", "model.compile('adam', jit_compile=False)\nmodel.fit(x)"),
        (
            "model.compile('adam', jit_compile='auto')\nmodel.fit(x)",
            "model.compile('adam', jit_compile=False)\nmodel.fit(x)",
        ),
        (
            "if go:\n    model.fit(x)",
            "if go:\n" + "".join(f"    {row}\n" for row in OFF.splitlines()) + "    model.fit(x)",
        ),
        ("for i in range(3):\n    model.fit(x)", OFF + "for i in range(3):\n    model.fit(x)"),
        ("model.compile(**options)\nmodel.fit(x)", "hidden behind stars"),
        ("model.compile('adam', jit_compile=flag)\nmodel.fit(x)", "decided when the cell runs"),
        ("other.compile(jit_compile=True)\nmodel.fit(x)", "cannot be followed"),
        ("model.compile()\nmodel.compile()\nmodel.fit(x)", "more than once"),
        ("step(x)", "was not found in the cell"),
        ("for model in nets:\n    model.fit(x)", "made or chosen in the statement that uses it"),
        ("model = pick(); model.fit(x)", "shares its line"),
        (OFF + "model.fit(x)", "sets `model.jit_compile` itself"),
        ('print(f"{model.fit(x)}")', OFF + 'print(f"{model.fit(x)}")'),
        ("%%bash\nls", "not read as Python"),
    ],
)
def test_where_xla_is_turned_off(source, edited):
    answer = ask(source)
    assert edited == (answer.source if isinstance(answer, Proposal) else answer.reason) or edited in answer.reason


def test_a_model_made_and_trained_in_a_loop_is_refused():
    assert (
        "made or chosen in the statement that uses it"
        in ask("for i in range(3):\n    model = build()\n    model.fit(x)", new=True).reason
    )


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"device": "host"}, "host memory ran out"),
        ({"run_eagerly": True, "jit": False}, "runs eagerly"),
        ({"jit": None}, "not known whether"),
        ({"jit": False}, "0.7 to 2.5 times the memory"),
    ],
)
def test_what_cannot_help_is_refused(known, reason):
    assert reason in ask("model.fit(x, y)", **known).reason


def test_an_error_of_xlas_own_tells_that_it_is_on():
    assert "Without XLA" == ask("model.fit(x, y)", jit=None, compiled=True).title


def test_that_it_must_be_measured_is_said():
    off, on = ask("model.fit(x, y)"), ask("model.fit(x, y)", jit=False).settings
    assert ["cannot be told beforehand" in one.caveats[0] for one in (on, off)] == [True, True]
    assert (None, "Compile with XLA") == (on.estimate, on.title)


@given(
    st.sampled_from(["", "%%tfmem\n", "%%tfmem -q\n%%time\n", "\n\n%%tfmem\n"]),
    st.lists(
        st.sampled_from(
            ["# jit", "%matplotlib inline", "", "ü = 'ü'", "!ls", "def f():\n    return f'{ü}'", "b = 1 + \\\n  2"]
        ),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=150, deadline=None)
def test_every_other_byte_stays(lead, noise, end):
    source = (lead + "".join(f"{line}\n" for line in noise) + "h = model.fit(\n    x,  # data\n    y)\n").replace(
        "\n", end
    )
    answer = ask(source)
    assert not isinstance(answer, Declined), answer.reason
    assert source == answer.source.replace(OFF.replace("\n", end), "")
    assert hasattr(read_cell(answer.source), "tree")


SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf
from tests.remedies.test_xla import ask
noted, function = [], tf.function
def noting(*args, **more):
    if "jit_compile" in more:
        noted.append(more["jit_compile"])
    return function(*args, **more)
tf.function = noting
L = keras.layers
rng = np.random.default_rng(0)
x = rng.integers(0, 50, (64, 12)); y = rng.random((64, 1))

def build():
    keras.utils.set_random_seed(1)
    i = keras.Input((12,)); e = L.Embedding(50, 8)(i); e = e + L.MultiHeadAttention(2, 4)(e, e)
    model = keras.Model(i, L.Dense(1)(L.GlobalAveragePooling1D()(e)))
    return model

found = {}
for name, jit in {"off": True, "on": False}.items():
    for place in ("compile", "earlier"):
        model = build()
        source = "history = model.fit(x, y, batch_size=16, verbose=0, shuffle=False)"
        if place == "compile":
            source = "model.compile('sgd', 'mse')\\n" + source
        else:
            model.compile("sgd", "mse", jit_compile=jit)
            model.fit(x, y, batch_size=16, verbose=0, shuffle=False)
            model.set_weights(build().get_weights())
        answer = ask(source, jit=jit)
        answer = getattr(answer, "settings", None) or answer
        noted.clear()
        exec(answer.source)
        one = found[f"{name} {place}"] = {"jit": bool(model.jit_compile), "loss": history.history["loss"][0]}
        one["compiled"] = [bool(jit) for jit in noted]
        if answer.undo:
            exec(answer.undo)
            model.fit(x, y, batch_size=16, verbose=0)
            one["undone"] = bool(model.jit_compile)
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT)


@pytest.mark.tf
@pytest.mark.parametrize("place", ["compile", "earlier"])
@pytest.mark.parametrize("name", ["off", "on"])
def test_keras_compiles_as_the_edited_cell_says(found, name, place):
    one = found[f"{name} {place}"]
    assert (name == "on") == one["jit"]
    assert {name == "on"} == set(one["compiled"])


@pytest.mark.tf
def test_the_losses_are_close(found):
    losses = [one["loss"] for one in found.values()]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-4)


@pytest.mark.tf
def test_undo_gives_back_the_setting(found):
    assert (True, False) == (found["off earlier"]["undone"], found["on earlier"]["undone"])


@pytest.mark.parametrize(
    ("source", "new", "reason"),
    [
        ("for k in folds:\n    model = build()\n    model.fit(x)", True, "`model` is made or chosen in the statement"),
        ("while k:\n    model = models[k]\n    model.fit(x)", False, "`model` is made or chosen in the statement"),
        ("for net, model in pairs:\n    model.predict(x)", False, "`model` is made or chosen in the statement"),
        ("model = build()\nfor x in data:\n    model.predict(x)", True, "`model` is made in this cell"),
    ],
)
def test_a_loop_says_whether_it_makes_the_model_or_only_uses_it(source, new, reason):
    assert reason in ask(source, new=new).reason
