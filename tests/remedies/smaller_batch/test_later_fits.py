"""Trainings behind the one that failed: of the same model by the same size they get smaller batches with it."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import ask as ask_accumulate
from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import BatchSeen, Facts
from tf_mem_magic.core.proposals import Declined, Proposal

MADE = "import keras\nmodel = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(1)])\n"
MADE += (
    "model.compile('adam', 'mse')\nother = keras.Sequential([keras.layers.Dense(1)])\nother.compile('adam', 'mse')\n"
)
FIRST = "model.fit(x, y, batch_size=64)\n"
THAWED = "model.trainable = True\nmodel.compile(keras.optimizers.Adam(1e-5), 'mse')\n"


def answer(source, line=1, seen=64):
    facts = Facts("2.21.0", "3.15.1", True, earlier_cells=(MADE,), batches=(BatchSeen("fit", seen, "arrays"),))
    return ask(source, facts, line=line)


@pytest.mark.parametrize(
    ("later", "edited"),
    [
        ("model.fit(x, y, batch_size=64, epochs=9)", "model.fit(x, y, batch_size=32, epochs=9)"),
        ("model.fit(few, less, 64)", "model.fit(few, less, 32)"),
        (THAWED + "model.fit(x, y, batch_size=64)", THAWED + "model.fit(x, y, batch_size=32)"),
        (
            "model.fit(x, y, batch_size=64, validation_split=0.1)\nmodel.fit(x, y, batch_size=64)",
            "model.fit(x, y, batch_size=32, validation_split=0.1)\nmodel.fit(x, y, batch_size=32)",
        ),
    ],
)
def test_a_later_training_of_the_model_gets_the_smaller_batches_too(later, edited):
    found = answer(FIRST + later)
    assert isinstance(found, Proposal), found.reason
    assert found.source == FIRST.replace("64", "32") + edited
    assert any("gets the smaller batches too" in caveat for caveat in found.caveats)


def test_the_batch_size_of_keras_itself_is_written_into_each_call():
    found = answer("model.fit(x, y)\n" + THAWED + "model.fit(x, y, epochs=3)", seen=32)
    assert found.source == ("model.fit(x, y, batch_size=16)\n" + THAWED + "model.fit(x, y, epochs=3, batch_size=16)")


@pytest.mark.parametrize(
    "later",
    [
        "model.fit(x, y, batch_size=16)",
        "other.fit(x, y, batch_size=64)",
        "model = make()\nmodel.fit(x, y, batch_size=64)",
        "def later():\n    model.fit(x, y, batch_size=64)",
        "model.fit(x, y, batch_size=64, steps_per_epoch=100)",
        "model.evaluate(x, y, batch_size=64)",
        "model.fit(x, y, batch_size=size)",
    ],
)
def test_what_trains_otherwise_is_left_alone(later):
    found = answer(FIRST + later)
    assert isinstance(found, Proposal), found.reason
    assert found.source == FIRST.replace("64", "32") + later


def test_a_training_before_the_one_that_failed_is_left_alone():
    before = "model.fit(x, y, batch_size=64)\n"
    found = answer(before + "model.fit(more, labels, batch_size=64)", line=2)
    assert found.source == before + "model.fit(more, labels, batch_size=32)"


def test_accumulating_covers_the_later_training_only_with_the_same_optimizer():
    later = "model.fit(x, y, batch_size=64, epochs=9)"
    both = ask_accumulate(FIRST + later, line=1, earlier=(MADE,))
    assert both.source.endswith(FIRST.replace("64", "32") + later.replace("64", "32"))
    compiled = ask_accumulate(FIRST + THAWED + later, line=1, earlier=(MADE,))
    assert compiled.source.endswith(FIRST.replace("64", "32") + THAWED + later)
    held = "adam = keras.optimizers.Adam()\nmodel.compile(adam, 'mse')\n"
    shared = ask_accumulate(held + FIRST + "model.compile(adam, 'mae')\n" + later, line=3, earlier=(MADE,))
    assert shared.source.endswith("batch_size=32)\nmodel.compile(adam, 'mae')\n" + later.replace("64", "32"))
    assert isinstance(ask_accumulate(FIRST + "model.fit(x, y, batch_size=128)", line=1, earlier=(MADE,)), Declined)
