"""Cells that make one model after another: what earlier ones still take is told, and one click lets go of it."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc
from tests.native.ramgpu import CannotBuildError, ramgpu_env
from tests.needs import lacking
from tests.script import found_by
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.remedies._engine.ranking import propose_all
from tf_mem_magic.remedies.collect_garbage.remedy import KEY, propose

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
from keras import layers
x = np.zeros((2048, 64), "float32"); y = np.zeros((2048, 1), "float32")
def build():
    stack = [keras.Input((64,)), *(layers.Dense(512, "relu") for _ in range(4)), layers.Dense(1)]
    model = keras.Sequential(stack)
    model.compile("adam", "mse", jit_compile=False)
    return model"""
LIMIT = 60
FIT = "model.fit(x, y, batch_size=2048, verbose=0)"
FOLDS = f"""losses = []
for fold in range(8):
    model = build()
    losses.append({FIT}.history["loss"][-1])"""
GRID = f"""results = {{}}
for units in (1, 2):
    for rate in (1e-2, 1e-3, 1e-4, 1e-5):
        model = build()
        results[units, rate] = {FIT}"""
IN_FUNCTION = f"""def run_fold(fold):
    model = build()
    return {FIT}.history["loss"][-1]
losses = [run_fold(fold) for fold in range(8)]"""
EARLIER = f"""def cross_validate(folds=8):
    losses = []
    for fold in range(folds):
        model = build()
        losses.append({FIT}.history["loss"][-1])
    return losses"""
CASES = {
    "folds": ((), FOLDS, "len(losses)"),
    "grid": ((), GRID, "sum('loss' in one.history for one in results.values())"),
    "function": ((), IN_FUNCTION, "len(losses)"),
    "earlier function": ((EARLIER,), "losses = cross_validate()", "len(losses)"),
}


@pytest.mark.kernel
@pytest.mark.tf
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.oldest if name == "folds" else ()) for name in CASES]
)
def test_models_that_pile_up_are_named_and_go_with_one_click(name):
    earlier, cell, done = CASES[name]
    with Kernel(bfc(LIMIT)) as kernel:
        for source in (SETUP, *earlier):
            assert kernel.run(source).status == "ok"
        ran = kernel.run(f"%%tfmem -o rep\n{cell}")
        assert kernel.value("rep.status") == "oom", ran.errors
        parts = kernel.value("{p.kind: p.bytes for p in rep.diagnosis.breakdown}")
        # Each model takes 9.4 MiB with its optimizer; at least two were there before the one that failed.
        assert parts.get("garbage", 0) + parts.get("values", 0) >= 2 * 9 << 20
        assert sum(parts.values()) == kernel.value("rep.diagnosis.in_use")
        assert kernel.value("rep.outcome.offered[0].key") == KEY, ran.report_text
        again = kernel.run(f"new = rep.rerun({KEY!r})")
        assert kernel.value("new.status") == "ok", again.errors
        assert kernel.value("new.comparison.after.peak") < 45 << 20
        assert kernel.value(done) == 8


@pytest.mark.kernel
@pytest.mark.tf
@pytest.mark.timeout(900)
def test_on_a_gpu_whose_limit_only_its_dump_tells_it_is_the_same(tmp_path):
    try:
        env = ramgpu_env(tmp_path, count=1, mib=48)
    except CannotBuildError as reason:
        lacking(reason)
    with Kernel(env) as kernel:
        kernel.run(SETUP)
        ran = kernel.run(f"%%tfmem -o rep\n{FOLDS}")
        assert kernel.value("(rep.status, rep.recording.main.limit)") == ("oom", None), ran.errors
        ((name, made),) = kernel.value("rep.recording.discarded")
        assert name == "allocator:GPU:0"
        assert made >= 2 * 9 << 20
        assert kernel.value("rep.outcome.offered[0].key") == KEY, ran.report_text
        again = kernel.run(f"new = rep.rerun({KEY!r})")
        assert kernel.value("(new.status, len(losses))") == ("ok", 8), again.errors


@pytest.mark.kernel
@pytest.mark.tf
@pytest.mark.timeout(900)
def test_a_single_model_that_is_too_large_leaves_no_garbage_behind():
    with Kernel(bfc(LIMIT)) as kernel:
        kernel.run(SETUP)
        kernel.run("x = np.zeros((16384, 64), 'float32'); y = x[:, :1]")
        kernel.run(f"%%tfmem -o rep\nmodel = build()\n{FIT.replace('2048', '16384')}")
        assert kernel.value("(rep.status, rep.recording.discarded)") == ("oom", ())
        assert KEY not in kernel.value("[p.key for p in rep.outcome.offered]")


def ask(source, line, values=(), earlier=(), made=0, models=("model",)):
    (answer,) = propose(asked(source, line, values, earlier, made, models))
    return answer


def asked(source, line, values=(), earlier=(), made=0, models=("model",)):
    frame = Frame("In[5]", line, "<module>", in_cell=True, is_user=True)
    facts = Facts(
        models=tuple(ModelFacts(name, device="CPU:0") for name in models), values=values, earlier_cells=earlier
    )
    cell = Cell(source)
    recording = Recording(
        cell,
        status="oom",
        facts=facts,
        errors=(ErrorText("ResourceExhaustedError", "", (frame,)),),
        discarded=(("allocator:CPU:0", made),) if made else (),
    )
    return Context(cell, recording, Diagnosis("CPU:0", limit=100 << 20))


def kept(name):
    return NamedValue(name, 30 << 20, "History and its model", "CPU:0", "cell", keeps_model=True)


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("for r in rates:\n    model = build()\n    results[r] = model.fit(x)", "results[1]"),
        ("for r in rates:\n    results = {}\n    model = build()\n    results[r] = model.fit(x)", "results[1]"),
        (
            "if more:\n    results = {}\nfor r in rates:\n    model = build()\n    results[r] = model.fit(x)",
            "results[1]",
        ),
    ],
)
def test_results_that_may_not_be_there_yet_are_not_named(source, values):
    answer = ask(source, len(source.splitlines()), (kept(values),))
    assert isinstance(answer, Declined)
    assert "live on in `results`" in answer.reason


@pytest.mark.parametrize("before", ["results = old", "results = []\ndel results", "results = results = []", "go()"])
def test_results_that_do_not_begin_empty_keep_what_is_not_of_this_cell(before):
    source = f"{before}\nfor r in rates:\n    model = build()\n    results += [model.fit(x)]"
    answer = ask(source, len(source.splitlines()), (kept("results[0]"),), made=30 << 20)
    assert "apply.collect_garbage()\n" in answer.source


def test_results_that_a_function_of_an_earlier_cell_may_ask_keep_their_models():
    source = "results = []\nfor r in rates:\n    model = build()\n    results.append(model.fit(x))\nbest(results)"
    best = "def best(results):\n    return min(results, key=last).model"
    assert isinstance(ask(source, 4, (kept("results[0]"),), earlier=(best,)), Declined)
    assert isinstance(ask(source, 4, (kept("results[0]"),), earlier=("self.model = 1",)), Proposal)


def test_results_whose_models_are_asked_for_keep_them():
    source = "results = []\nfor r in rates:\n    model = build()\n    results.append(model.fit(x))\nbest(results).model"
    assert isinstance(ask(source, 4, (kept("results[0]"),)), Declined)
    assert isinstance(ask(source.rpartition("\n")[0], 4, (kept("results[0]"),)), Proposal)


def test_a_list_of_models_is_named_with_what_it_keeps():
    answer = ask("for f in folds:\n    models.append(go())", 2, models=("models[0]", "models[1]"))
    assert isinstance(answer, Declined)
    assert "`models` keeps 2 models of this cell" in answer.reason


@pytest.mark.parametrize(
    ("cell", "earlier"),
    [
        ("def apply(m):\n    return m.fit(x)\nfor f in folds:\n    model = build()\n    apply(model)", ()),
        ("for f in folds:\n    model = build()\n    apply = model.fit\n    apply(x)", ()),
        ("for f in folds:\n    model = build()\n    apply(model)", ("def apply(m):\n    return m.fit(x)",)),
        ("for f in folds:\n    model = build()\n    apply(model)", ("from mine import apply",)),
        ("for f in folds:\n    model = build()\n    apply(model)", ("import mine as apply",)),
    ],
)
def test_a_name_apply_of_the_notebook_is_not_taken_from_it(cell, earlier):
    context = asked(cell, len(cell.splitlines()), earlier=earlier, made=60 << 20)
    answers = [answer for answer in propose_all(context) if answer.key == KEY]
    assert ["the notebook uses the name `apply` for something of its own"] == [a.reason for a in answers]


@pytest.mark.parametrize(
    "line",
    [
        "data = data.apply(f)",
        "x = frame.apply(g)",
        "from tf_mem_magic import apply",
        "class Rule:\n    def apply(self, m):\n        return m",
    ],
)
def test_other_uses_of_the_word_are_none_of_the_name(line):
    cell = f"{line}\nfor f in folds:\n    model = build()\n    model.fit(x)"
    lines = len(cell.splitlines())
    answers = [a for a in propose_all(asked(cell, lines, earlier=(line,), made=60 << 20)) if a.key == KEY]
    assert [True] == [isinstance(answer, Proposal) for answer in answers]


LETS_GO = """
import json, weakref
import keras
import numpy as np
from tf_mem_magic import apply

def trained():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros((4, 2), "float32")
    return weakref.ref(model), model.fit(x, x[:, :1], verbose=0)

alone, history = trained()
inside, nested = trained()
others, other = trained()
apply.collect_garbage({"a": [nested]}, history)
gone = [alone() is None, inside() is None, others() is other.model]
print("FOUND" + json.dumps([gone, [len(one.history["loss"]) for one in (history, nested)]]))
"""


@pytest.mark.tf
def test_what_fit_gave_keeps_what_it_tells_and_lets_go_of_its_model():
    assert [[True, True, True], [1, 1]] == found_by(LETS_GO, None)
