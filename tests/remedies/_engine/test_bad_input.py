"""Cells that cannot be read, magics in the middle, code made by exec, names from a star: an answer at once, and true."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import DeviceFacts, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies._engine.ranking import propose_all

OLD = ModelFacts("old", ("Dense",), "Adam", weight_bytes=64 << 20, steps=3, steps_before=3, device="GPU:0")
MODEL = ModelFacts(
    "model", ("Dense",), "Adam", weight_bytes=4096, steps=3, steps_before=3, halving=2, form="functional"
)


def ask(source, line=None, earlier=("import keras\nimport tensorflow as tf",)):
    facts = Facts(
        "2.21.0",
        "3.15.1",
        True,
        models=(MODEL, OLD),
        devices=(DeviceFacts("GPU:0", compute_capability=(8, 0)),),
        values=(NamedValue("cache", 900 << 20, "tf.Tensor", "GPU:0"),),
        earlier_cells=earlier,
    )
    cell = Cell(source)
    diagnosis = Diagnosis("GPU:0", 1 << 20, line=line, in_use=1 << 30, limit=1 << 30)
    return {a.key: a for a in propose_all(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))}


UNREADABLE = (
    "model.fit(x, y",
    "model.fit(x, y)\n  z = 1",
    "if True:\nmodel.fit(x)",
    "model.fit(x) y = 2",
    "for x in :\n    pass",
    "print 'epoch', e\nmodel.fit(x)",
    "x = '''\nmodel.fit(x)",
    "def f(x:\n    return x\nf(1)",
    "\x00model.fit(x)",
    "await = 3\nmodel.fit(x)",
)


@pytest.mark.parametrize("source", UNREADABLE)
def test_a_cell_that_is_no_python_is_declined_by_every_remedy_that_would_edit_it(source):
    answers = ask(source)
    assert [] == [a.reason for a in answers.values() if isinstance(a, Declined) and "it failed" in a.reason]
    offered = {key for key, a in answers.items() if isinstance(a, Proposal) and a.source != a.original}
    assert set() == offered & {
        "mixed-precision",
        "free-leftovers",
        "lighter-optimizer",
        "smaller-batch",
        "rematerialize",
    }


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("%matplotlib inline\n!nvidia-smi\nmodel.fit(x, y)", 3),
        ("x = load()\n%time\nmodel.fit(x, y)\n!ls *.keras", 3),
        ("files = !ls data\nmodel.fit(x, y)", 2),
        ("model.summary?\nmodel.fit(x, y)", 2),
        ("if ready:\n    %time history = model.fit(x, y)", 2),
        ("%%time\nmodel.fit(x, y)", 2),
    ],
)
def test_magics_in_the_middle_stay_and_hinder_nothing(source, line):
    answers = ask(source, line)
    hidden = [text for text in source.splitlines() if text.lstrip().startswith(("%", "!")) or text.endswith("?")]
    for key in ("mixed-precision", "free-leftovers"):
        assert isinstance(answers[key], Proposal), answers[key].reason
        assert [text for text in answers[key].source.splitlines() if text in hidden] == hidden


@pytest.mark.parametrize(
    "source",
    ["exec(code)\nmodel.fit(x)", "exec(f'{name}.fit(x)')", "eval(expression).fit(x)", "globals()[name].fit(x)"],
)
def test_what_code_made_by_exec_uses_is_not_let_go_of(source):
    reason = ask(source, len(source.splitlines()))["free-leftovers"].reason
    assert reason.startswith("the cell reaches names in a way that cannot be followed: `")


@pytest.mark.parametrize("source", ["exec(f'{name}.fit(x)')", "eval(expression).fit(x)", "globals()[name].fit(x)"])
def test_a_model_that_code_made_by_exec_trains_is_not_guessed(source):
    assert isinstance(ask(source, 1)["mixed-precision"], Declined)


@pytest.mark.parametrize(
    "star",
    [
        "from keras.layers import *",
        "from keras import *\nfrom keras.models import *",
        "from tensorflow.keras.layers import *",
    ],
)
def test_layers_from_a_star_are_not_taken_for_keras_own_without_knowing(star):
    cell = "net = Sequential([Dense(8), Dense(1)])\nnet.compile('adam', 'mse')\nnet.fit(x, y)"
    answer = ask(cell, 3, (star,))["mixed-precision"]
    assert isinstance(answer, Declined)
    assert "is not known to be a Keras model" in answer.reason
