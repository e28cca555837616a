"""A model that an earlier cell compiled is compiled once more in the cell that trains, where that is certain."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.remedies.lighter_optimizer.remedy import propose

IMPORTS = "import keras\nimport tensorflow as tf\n"
BUILD = "model = keras.Sequential([keras.layers.Dense(9), keras.layers.Dense(1)])\n"
SGD = "keras.optimizers.SGD(learning_rate=0.01, momentum=0.9)"


def ask(source, *earlier, line=None, optimizer="Adam"):
    model = ModelFacts("model", ("Dense",), optimizer, weight_bytes=100, steps=4, steps_before=4)
    facts = Facts("2.21.0", "3.15.1", True, models=(model,), earlier_cells=(IMPORTS, *earlier))
    diagnosis = Diagnosis("GPU:0", line=line or len(source.splitlines()), limit=500)
    cell = Cell(source)
    (only,) = propose(Context(cell, Recording(cell, status="oom", facts=facts), diagnosis))
    return only


@pytest.mark.parametrize(
    ("compiled", "line"),
    [
        ("model.compile('adam', 'mse')", f"model.compile({SGD}, 'mse')"),
        ("model.compile(loss='mse', optimizer='adam', metrics=['mae'])",
         f"model.compile(loss='mse', optimizer={SGD}, metrics=['mae'])"),
        ("model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate=1e-4, clipnorm=1.0), loss=tf.keras.losses.Huber())",
         "model.compile(optimizer=keras.optimizers.SGD(learning_rate=0.01, momentum=0.9, clipnorm=1.0), "
         "loss=tf.keras.losses.Huber())"),
    ],
)  # fmt: skip
def test_it_is_compiled_with_the_same_arguments_before_it_trains(compiled, line):
    answer = ask("history = model.fit(x, y)", BUILD + compiled)
    assert answer.source == f"{line}\nhistory = model.fit(x, y)"
    assert answer.undo == compiled
    assert answer.title == "Adam → SGD with momentum"
    assert [choice.label for choice in answer.choices] == ["Adafactor", "SGD"]


def test_a_call_over_several_lines_stays_one():
    compiled = "model.compile(\n        optimizer='adam',\n        loss='mse',\n)"
    lines = ask("if go:\n    model.fit(x, y)", BUILD, compiled).source.splitlines()
    assert lines[:6] == [
        "if go:",
        "    model.compile(",
        f"        optimizer={SGD},",
        "        loss='mse',",
        "        )",
        "    model.fit(x, y)",
    ]


def test_it_stands_before_the_loop_in_which_it_trains():
    answer = ask("for epoch in range(9):\n    model.fit(x, y)", BUILD + "model.compile('adam', 'mse')")
    assert answer.source.splitlines() == [
        f"model.compile({SGD}, 'mse')",
        "for epoch in range(9):",
        "    model.fit(x, y)",
    ]


REFUSED = {
    "a name holds the optimizer": ("opt = keras.optimizers.Adam()\nmodel.compile(opt, 'mse')", "a name of the notebook holds"),
    "in a function": ("def prepare():\n    model.compile('adam', 'mse')\nprepare()", "in a function, a loop or more than once"),
    "twice": ("model.compile('sgd', 'mse')\nmodel.compile('adam', 'mse')", "more than once"),
    "in a loop": ("for rate in rates:\n    model.compile('adam', 'mse')", "in a function, a loop"),
    "a schedule": ("model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9)))", "is a schedule"),
    "hidden arguments": ("model.compile(**settings)", "does not plainly say its optimizer"),
    "one of their own": ("class Mine(Base):\n    pass\nmodel.compile(Mine(), 'mse')", "none of Keras's own"),
    "one from somewhere": ("model.compile(Mine(), 'mse')", "which optimizer `Mine()` is cannot be told"),
    "a comment among the arguments": ("model.compile('adam',  # as before\n    loss='mse')", "cannot be written again"),
    "nowhere": ("print(model.name)", "is not compiled in this cell"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_where_it_is_not_certain_it_is_declined(name):
    compiled, reason = REFUSED[name]
    answer = ask("model.fit(x, y)", BUILD + compiled)
    assert isinstance(answer, Declined), answer
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("cells", "cell"),
    [
        (("loss = 'mse'\n" + BUILD + "model.compile('adam', loss)", "loss = 'mae'"), "model.fit(x, y)"),
        (("loss = 'mse'\n" + BUILD + "model.compile('adam', loss)",), "loss = model.evaluate(x, y)\nmodel.fit(x, y)"),
        (("rate = 0.1\n" + BUILD + "model.compile(keras.optimizers.Adam(rate), 'mse')", "rate = 2"), "model.fit(x, y)"),
    ],
)
def test_an_argument_that_means_something_else_by_now_is_not_written_again(cells, cell):
    assert "was set anew since" in ask(cell, *cells).reason


def test_a_model_that_was_made_anew_since_was_compiled_otherwise():
    answer = ask("model.fit(x, y)", BUILD + "model.compile('adam', 'mse')", "model = load()")
    assert "is not compiled in this cell" in answer.reason


@pytest.mark.parametrize("method", ["predict", "evaluate"])
def test_inference_is_no_reason_to_forget_what_training_learnt(method):
    reason = ask(f"model.{method}(x)", BUILD + "model.compile('adam', 'mse')").reason
    assert reason == f"it ran out of memory in `{method}`, and another optimizer would change the training"


def test_two_trainings_are_both_behind_the_new_optimizer():
    answer = ask("model.fit(x, y)\nmodel.fit(a, b)", BUILD + "model.compile('adam', 'mse')", line=1)
    assert isinstance(answer, Proposal)
    assert answer.source.splitlines()[0].startswith("model.compile(")


@pytest.mark.parametrize("between", [(), ("model.fit(x, y)",), ("print(1)", "model.evaluate(x, y)")])
def test_a_cell_that_ran_twice_compiled_the_last_model(between):
    built, compiled = BUILD.strip(), "model.compile(optimizer='adam', loss='mse')\nmodel.summary()"
    answer = ask("model.fit(x, y)", built, compiled, *between, built, compiled)
    assert isinstance(answer, Proposal), answer.reason
    assert answer.source.startswith(f"model.compile(optimizer={SGD}, loss='mse')\n")


@pytest.mark.parametrize("name", ["LazyAdam", "ConditionalGradient", "MyAdam"])
def test_what_another_optimizer_keeps_is_not_claimed(name):
    reason = ask("model.fit(x, y)", BUILD + "model.compile('adam', 'mse')", optimizer=name).reason
    assert reason == f"how much {name} keeps for each weight is not known: it is none of Keras's optimizers"
