"""What ``predict`` gives, part by part: parts that fit, of the array that was predicted, by the model that did it."""

from __future__ import annotations

import re

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.facts import BatchSeen, DatasetFacts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.core.recording import Dump, ErrorText, Frame
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies.outputs_to_host import propose

MIB = 1 << 20
LIMIT = 200 * MIB


def ask(source, *, shape=(4, 64, 64, 8), requested=MIB, in_use=190 * MIB, chunks=((MIB, MIB, 180),), batch=4, **more):
    """Ask about a cell that ran out in its line with ``predict``, of 400 rows in batches of four."""
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "predict(" in text)
    diagnosis = Diagnosis(
        "GPU:0",
        requested=requested,
        shape=shape,
        line=line,
        in_use=in_use,
        limit=more.pop("limit", LIMIT),
        situation=Situation("outputs", ""),
    )
    given = {
        "models": (ModelFacts("model"),),
        "values": (NamedValue("x", 400 * 12288, "numpy.ndarray", shape=(400, 32, 32, 3)),),
        "batches": (BatchSeen("predict", batch, "arrays"),),
        **more,
    }
    dumps = (Dump("bfc", "structured", in_use=in_use, chunks=chunks),)
    errors = (ErrorText("ResourceExhaustedError", "", given.pop("frames", ())),)
    recorded = {"status": "oom", "dumps": dumps, "errors": errors}
    asked = example("", source, "", diagnosis=diagnosis, recorded=recorded, **given)
    (answer,) = propose(asked.context)
    return answer


def rows_of(answer):
    assert isinstance(answer, Proposal), answer.reason
    found = re.search(r"predict_in_parts\(model, x, (\d+)", answer.source)
    assert found is not None
    return int(found[1])


CELL = "pred = model.predict(x, batch_size=4, verbose=0)\n"


def test_a_part_takes_a_share_of_the_memory_where_only_some_rows_were_computed():
    # 180 batches of four rows, a MiB each, are 720 rows in 180 MiB; with 400 rows those are all.
    assert rows_of(ask(CELL, chunks=((MIB, MIB, 60),), in_use=60 * MIB)) * 60 / 240 <= LIMIT / MIB / 8
    assert rows_of(ask(CELL, chunks=((2 * MIB, 2 * MIB, 20),), in_use=41 * MIB)) == 48


def test_of_several_outputs_all_count():
    # Of 400 rows 50 MiB were to be joined, and 160 MiB of all outputs are in use.
    one = ask(CELL, shape=(400, 32, 32, 32), requested=50 * MIB, in_use=55 * MIB)
    more = ask(CELL, shape=(400, 32, 32, 32), requested=50 * MIB, in_use=160 * MIB)
    assert rows_of(one) * 55 / 400 <= 25
    assert rows_of(more) * 160 / 400 <= 25
    assert rows_of(more) < rows_of(one)


def test_where_nothing_tells_how_large_a_row_is_a_part_is_a_batch():
    assert rows_of(ask(CELL, chunks=(), in_use=None, limit=None)) == 4


LOCAL = [
    "def run(x):\n    return model.predict(x)\npred = run(other)\n",
    "preds = [model.predict(x) for x in parts]\n",
    "best = max(parts, key=lambda x: model.predict(x).max())\n",
    "def run():\n    x = load()\n    return model.predict(x)\npred = run()\n",
]


@pytest.mark.parametrize("source", LOCAL)
def test_an_array_of_a_functions_own_is_not_taken_for_the_notebooks(source):
    answer = ask(source)
    assert isinstance(answer, Declined)
    assert "`x` is no array whose rows are known" in answer.reason


@pytest.mark.parametrize("source", LOCAL)
def test_an_array_of_a_functions_own_is_known_where_the_failing_line_was_seen_to_read_it(source):
    own = (NamedValue("x", 80 * 12288, "numpy.ndarray", shape=(80, 32, 32, 3)),)
    assert rows_of(ask(source, inputs=own, chunks=((MIB, MIB, 10),), in_use=40 * MIB)) <= 25
    assert isinstance(ask(source, inputs=own, chunks=((MIB, MIB, 10),), in_use=4 * MIB), Declined)


@pytest.mark.parametrize(
    "source",
    [
        "def run(model, data):\n    return model.predict(x)\npred = run(net, x)\n",
        "preds = [model.predict(x) for model in models]\n",
    ],
)
def test_a_model_of_a_functions_own_is_one_where_keras_itself_was_called(source):
    answer = ask(source)
    assert isinstance(answer, Declined)
    assert "`model` is a name of a function" in answer.reason
    cell = Frame("In[5]", 2, "run", True, True)
    keras = Frame("/venv/site-packages/keras/src/utils/traceback_utils.py", 122, "error_handler")
    assert isinstance(ask(source, frames=(cell, keras)), Proposal)
    between = Frame("/venv/site-packages/scikeras/wrappers.py", 9, "predict")
    assert isinstance(ask(source, frames=(cell, between, keras)), Declined)


@pytest.mark.parametrize(
    "source",
    [
        "def run():\n    return model.predict(x)\npred = run()\n",
        "for fold in folds:\n    pred = model.predict(x)\n",
        "labels = model.predict(x, 4).argmax(-1)\n",
        "print(f(model.predict(x, verbose=0)))\n",
    ],
)
def test_names_of_the_notebook_are_known_wherever_they_are_read(source):
    answer = ask(source)
    assert isinstance(answer, Proposal)
    assert "apply.predict_in_parts(model, x, " in answer.source


@pytest.mark.parametrize(
    ("given", "shows"),
    [("", True), (", verbose=1", True), (", verbose=2", True), (", verbose=v", True), (", verbose=0", False)],
)
def test_progress_is_announced_only_where_it_is_shown(given, shows):
    answer = ask(f"pred = model.predict(x{given})\n")
    assert shows is any("reports its progress" in caveat for caveat in answer.caveats)
    assert any("The batches stay at 4 rows" in caveat for caveat in answer.caveats)


def test_a_dataset_of_a_functions_own_is_not_known():
    source = "def run(ds):\n    return model.predict(ds)\npred = run(other)\n"
    answer = ask(source, datasets=(DatasetFacts("ds", batch=4, cardinality=100),))
    assert isinstance(answer, Declined)
    assert "`ds` is no array" in answer.reason
