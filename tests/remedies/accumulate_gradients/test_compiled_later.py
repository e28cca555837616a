"""A model that is compiled again behind the training that failed: that optimizer is not the one that fails."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import ask
from tests.remedies.lighter_optimizer.test_remedy import ask as ask_lighter
from tf_mem_magic.core.proposals import Declined, Proposal

MADE = (
    "import keras\nmodel = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(1)])\n"
    "model.compile('adam', 'mse')\n"
)
FIT = "model.fit(x, y, batch_size=64)\n"
AGAIN = "model.compile(keras.optimizers.RMSprop(1e-4), 'mse')\n"
THAWED = "for layer in model.layers:\n    layer.trainable = True\n"
LATER = {
    "on top": FIT + THAWED + AGAIN + FIT.replace("x, y", "x, y, epochs=9"),
    "in a block": FIT + f"if fine_tune:\n    {AGAIN}    {FIT}",
    "in a function": f"def tune():\n    {FIT}    {AGAIN}    {FIT}tune()\n",
    "in a scope": f"with strategy.scope():\n    {FIT}    {AGAIN}    {FIT}",
}
LINES = {"on top": 1, "in a block": 1, "in a function": 2, "in a scope": 2}


@pytest.mark.parametrize("name", LATER)
def test_the_optimizer_of_a_later_compile_is_left_alone(name):
    source, line = LATER[name], LINES[name]
    answer = ask(source, line=line, earlier=(MADE,))
    if isinstance(answer, Proposal):
        assert "RMSprop(1e-4)" in answer.source
        assert answer.source.index("apply.accumulate_gradients(model, 2)") < answer.source.index("batch_size=32")


def test_the_call_stands_before_the_training_that_failed():
    answer = ask(LATER["on top"], line=1, earlier=(MADE,))
    assert answer.source == (
        "from tf_mem_magic import apply\napply.accumulate_gradients(model, 2)\n"
        + FIT.replace("64", "32")
        + LATER["on top"].removeprefix(FIT)
    )


def test_the_compile_before_it_is_changed_and_the_later_one_stays():
    source = "model.compile('sgd', 'mse')\n" + LATER["on top"]
    answer = ask(source, line=2, earlier=(MADE,))
    assert "model.compile(keras.optimizers.SGD(gradient_accumulation_steps=2), 'mse')" in answer.source
    assert AGAIN in answer.source


def test_a_loop_comes_back_to_a_compile_behind_it():
    source = f"for turn in range(3):\n    {FIT}    {AGAIN}"
    answer = ask(source, line=2, earlier=(MADE,))
    assert isinstance(answer, Declined) or "apply.accumulate_gradients" in answer.source, answer.source


SHARED = "optimizer = keras.optimizers.Adam()\nmodel.compile(optimizer, 'mse')\n"


@pytest.mark.parametrize(
    ("between", "declined"),
    [
        ("model.compile(optimizer, 'mse')\n", True),
        ("model.compile(loss='mse', optimizer=optimizer)\n", True),
        ("optimizer = keras.optimizers.Adam()\nmodel.compile(optimizer, 'mse')\n", False),
        ("model.compile(keras.optimizers.Adam(), 'mse')\n", False),
    ],
)
def test_an_optimizer_that_a_name_holds_goes_on_accumulating_in_the_next_training(between, declined):
    answer = ask(SHARED + FIT + between + "model.fit(x, y, batch_size=128)\n", line=3, earlier=(MADE,))
    assert isinstance(answer, Declined) == declined, answer
    if declined:
        assert "with batches that would stay as they are" in answer.reason


@pytest.mark.parametrize("name", LATER)
def test_a_lighter_optimizer_is_not_written_where_it_comes_too_late(name):
    answer = ask_lighter(LATER[name], earlier=(MADE,), line=LINES[name])
    if isinstance(answer, Proposal):
        assert "RMSprop(1e-4)" in answer.source
        assert answer.title.startswith("Adam → ")
    else:
        assert "RMSprop" not in answer.patch


def test_what_is_offered_in_place_of_an_optimizer_keeps_less_than_the_cells_own():
    for given, left in (("'sgd'", None), ("'rmsprop'", "SGD"), ("'adam'", "SGD with momentum")):
        answer = ask_lighter(f"model.compile({given}, 'mse')\nmodel.fit(x, y)\n", earlier=(MADE,), optimizer="Adam")
        assert (None if isinstance(answer, Declined) else answer.title.split(" → ")[1]) == left
