"""A list of models keeps their weights instead: those of the trained models, in the list that holds them, or not at all."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis, Situation
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording
from tf_mem_magic.remedies.collect_garbage.remedy import propose

MIB = 1 << 20


def ask(source, line, holder="models", earlier=(), models=None, facts=()):
    """Ask about a cell in whose ``line`` the next model did not fit."""
    held = models or [f"{holder}[{n}]" for n in range(3)]
    known = tuple(ModelFacts(name, weight_bytes=20 * MIB, device="CPU:0") for name in ("model", *held))
    frame = Frame("In[5]", line, "<module>", in_cell=True, is_user=True)
    recording = Recording(
        Cell(source),
        status="oom",
        facts=Facts(models=known, earlier_cells=earlier, **dict(facts)),
        errors=(ErrorText("ResourceExhaustedError", "", (frame,)),),
    )
    situation = Situation("models-kept", f"`{holder}` keeps 3 models.", holder=holder)
    diagnosis = Diagnosis("CPU:0", in_use=98 * MIB, limit=100 * MIB, line=line, situation=situation)
    (answer,) = propose(Context(Cell(source), recording, diagnosis))
    return answer


class Model:
    """Stands in for a model: its weight counts its trainings."""

    def __init__(self):
        self.weight = 0

    def fit(self, *_, **__):
        self.weight += 1
        return SimpleNamespace(history={"loss": [0.0]})

    def evaluate(self, *_, **__):
        return 0.0

    def get_weights(self):
        return [self.weight]


def ran(source, **names):
    """Run a cell with stand-ins and give its names."""
    plain = source.replace("from tf_mem_magic import apply\n", "")
    space = {
        "apply": SimpleNamespace(collect_garbage=lambda *_: None),
        "build": Model,
        "x": None,
        "y": None,
        "folds": range(3),
        **names,
    }
    exec(compile(plain, "cell", "exec"), space)
    return space


def weights(held):
    return [one.get_weights() if isinstance(one, Model) else one for one in held]


LOOPS = {
    "after the training": "models = []\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n",
    "before the training": "models = []\nfor f in folds:\n    model = build()\n    models.append(model)\n    model.fit(x)\n",
    "before it, with a score": (
        "models, scores = [], []\nfor f in folds:\n    model = build()\n    models.append(model)\n    model.fit(x, y)\n"
        "    scores.append(model.evaluate(x, y))  # of this fold\n"
    ),
    "as a sum": "models = []\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models += [model]\n",
    "as a sum, before": "models = []\nfor f in folds:\n    model = build()\n    models += [model]\n    model.fit(x)\n",
    "as a longer sum": (
        "models = list()\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models = models + [model]\nprint(1)"
    ),
    "in every epoch of its own": (
        "models = []\nfor f in folds:\n    model = build()\n    for e in range(2):\n        model.fit(x)\n"
        "    models.append(model)\n"
    ),
    "epochs after it": (
        "models = []\nfor f in folds:\n    model = build()\n    models.append(model)\n    for e in range(2):\n"
        "        model.fit(x)\n"
    ),
    "under another name": (
        "models = []\nfor f in folds:\n    model = build()\n    net = model\n    models.append(model)\n    net.fit(x)\n"
    ),
    "in a function that trains it later": (
        "models = []\ndef train(m):\n    m.fit(x)\nfor f in folds:\n    model = build()\n    models.append(model)\n"
        "    train(model)\n"
    ),
    "in a function that reads it": (
        "models = []\ndef train():\n    model.fit(x)\nfor f in folds:\n    model = build()\n    models.append(model)\n"
        "    train()\n"
    ),
    "with a final model": (
        "models = []\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n"
        "model = build()\nmodel.fit(y)\n"
    ),
}


@pytest.mark.parametrize("source", LOOPS.values(), ids=LOOPS)
def test_the_weights_that_are_kept_are_those_of_the_trained_models(source):
    made = next(n for n, line in enumerate(source.splitlines(), 1) if "build()" in line)
    answer = ask(source, made)
    assert isinstance(answer, Proposal), answer.reason
    expected = weights(ran(source)["models"])
    now = ran(answer.source)["models"]
    assert expected == now
    assert not any(isinstance(one, Model) for one in now)


def test_the_weights_of_a_dict_are_taken_only_after_the_training():
    good = "best = {}\nfor n in folds:\n    model = build()\n    model.fit(x)\n    best[n] = model\n"
    answer = ask(good, 4, "best")
    assert isinstance(answer, Proposal)
    assert [[1], [1], [1]] == [*ran(answer.source)["best"].values()]
    early = "best = {}\nfor n in folds:\n    model = build()\n    best[n] = model\n    model.fit(x)\n"
    answer = ask(early, 5, "best")
    assert isinstance(answer, Declined)
    assert "may be trained after they were added" in answer.reason


@pytest.mark.parametrize(
    "source",
    [
        "models = []\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\nmodel.fit(y)\n",
        "models = []\nfor f in folds:\n    model = build()\n    models.append(model)\n    if f: continue\n    model.fit(x)\n",
        (
            "models = []\nfor f in folds:\n    model = build()\n    if f:\n        models.append(model)\n"
            "    model.fit(x)\n"
        ),
    ],
)
def test_a_model_that_is_trained_further_than_its_round_tells_is_kept_whole(source):
    answer = ask(source, 4)
    assert isinstance(answer, Declined)
    assert "may be trained after they were added" in answer.reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("for f in folds:\n    model = build()\n    model.fit(x)\n    keep(model)\n", "was not found in the cell"),
        (
            "models = []\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n"
            "    models.append(model)\n",
            "in more than one place",
        ),
        (
            "models = []\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n"
            "mean([m.predict(x) for m in models])\n",
            "does more with it than to add one",
        ),
        (
            "models = old\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n",
            "not sure that it begins empty",
        ),
        (
            "models = []\nmodels.append(first)\nfor f in folds:\n    model = build()\n    model.fit(x)\n"
            "    models.append(model)\n",
            "in more than one place",
        ),
        (
            "models = [first]\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n",
            "not sure that it begins empty",
        ),
        (
            "models = rest = []\nfor f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n",
            "not sure that it begins empty",
        ),
    ],
)
def test_a_list_that_holds_more_or_is_filled_otherwise_is_left_alone(source, reason):
    answer = ask(source, 4 if "first)" not in source else 5)
    assert isinstance(answer, Declined)
    assert reason in answer.reason


def test_a_list_that_a_function_of_an_earlier_cell_reads_is_left_alone():
    source = LOOPS["after the training"] + "score = vote(x)\n"
    vote = "def vote(x):\n    return sum(m.predict(x) for m in models)"
    answer = ask(source, 4, earlier=(vote,))
    assert isinstance(answer, Declined)
    assert "a function of an earlier cell reads it" in answer.reason
    assert isinstance(ask(source, 4, earlier=(vote.replace("(x):", "(x, models):"),)), Proposal)


def test_what_the_failed_run_left_in_a_list_of_an_earlier_cell_goes_first():
    source = "for f in folds:\n    model = build()\n    model.fit(x)\n    models.append(model)\n"
    answer = ask(source, 3, earlier=("models = []",))
    assert isinstance(answer, Proposal)
    assert [[1], [1], [1]] == ran(answer.source, models=[Model()])["models"]
    assert any("is dropped first" in caveat for caveat in answer.caveats)
    more = ask(source, 3, models=["models[2]", "models[3]", "models[4]"])
    assert isinstance(more, Declined)
    assert "not all that it holds" in more.reason


def test_a_cell_that_collects_already_still_keeps_weights_only():
    source = (
        "from tf_mem_magic import apply\nmodels = []\nfor f in folds:\n    model = None\n    apply.collect_garbage()\n"
        "    model = build()\n    model.fit(x)\n    models.append(model)\n"
    )
    answer = ask(source, 7)
    assert isinstance(answer, Proposal)
    assert answer.source == source.replace("append(model)", "append(model.get_weights())")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (
            "models, told = [], []\nfor f in folds:\n    model = build()\n    h = model.fit(x)\n"
            "    told.append(h)\n    models.append(model)\n",
            "told",
        ),
        (
            "models = []\ntold = {}\nfor f in folds:\n    model = build()\n    told[f] = model.fit(x)\n"
            "    models += [model]\n",
            "told",
        ),
        (
            "models, told = [], []\nfor f in folds:\n    model = build()\n    h = model.fit(x)\n"
            "    told.append(h.history)\n    models.append(model)\n",
            "",
        ),
    ],
)
def test_a_list_of_what_fit_gave_beside_it_lets_go_of_the_models_too(source, names):
    answer = ask(source, 4)
    assert isinstance(answer, Proposal), answer.reason
    assert f"apply.collect_garbage({names})\n" in answer.source
    assert bool(names) is any("loses its model" in caveat for caveat in answer.caveats)


def test_a_list_of_what_fit_gave_in_an_earlier_cell_keeps_the_models_all_the_same():
    source = (
        "models = []\nfor f in folds:\n    model = build()\n    told.append(model.fit(x))\n    models.append(model)\n"
    )
    answer = ask(source, 3, earlier=("told = []",))
    assert isinstance(answer, Declined)
    assert "and `told` does so too" in answer.reason


def test_models_in_an_attribute_are_named_as_such():
    answer = ask(
        "for f in folds:\n    model = build()\n    model.fit(x)\n    run.models.append(model)\n", 3, "run.models"
    )
    assert isinstance(answer, Declined)
    assert "no plain name" in answer.reason


def test_a_list_of_tensors_that_fills_the_memory_leaves_the_models_alone():
    source = LOOPS["after the training"]
    situation = Situation("growing", "`preds` went from 0 to 48 entries.", holder="preds")
    recording = Recording(
        Cell(source), status="oom", facts=Facts(models=(ModelFacts("models[0]", ("Dense",), device="CPU:0"),))
    )
    diagnosis = Diagnosis("CPU:0", in_use=98 * MIB, limit=100 * MIB, line=4, situation=situation)
    (answer,) = propose(Context(Cell(source), recording, diagnosis))
    assert isinstance(answer, Declined)
