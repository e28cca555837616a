"""Validation data that keep their batches stop an edit where the model's code counts on the size by a name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

TRAIN = DatasetFacts("train", batch=64, cardinality=9)
VAL = DatasetFacts("val", batch=64, cardinality=4)
FACTS = Facts(
    datasets=(TRAIN,),
    models=(ModelFacts("model"),),
    scalars=(ScalarFact("bs", 64),),
    read_elsewhere=("bs",),
    used=("bs",),
)
FIT = "model.compile('adam', 'mse')\nmodel.fit(train, validation_data=val)"
NOISY = "class Net(keras.Model):\n    def call(self, x):\n        return x + tf.random.normal((bs, 4))"
CODE = [
    (NOISY, "model = Net()\n"),
    ("def noisy(t):\n    return t + tf.zeros([bs, 1])", "model = keras.Sequential([keras.layers.Lambda(noisy)])\n"),
    (
        "class Diffusion(keras.Model):\n    def test_step(self, data):\n"
        "        return {'l': tf.reduce_mean(data - tf.random.uniform(shape=(bs, 8)))}",
        "model = Diffusion()\n",
    ),
]


def found_in(made, code, *data):
    """Find the batch of a cell that makes its model, trains it and validates."""
    cell = read_cell(made + FIT)
    assert isinstance(cell, PythonCell)
    facts = replace(FACTS, datasets=data, earlier_cells=("import keras\nimport tensorflow as tf", "bs = 64", code))
    return find_batch(cell, facts, frozenset({3}))


@pytest.mark.parametrize("data", [(TRAIN,), (TRAIN, replace(VAL, kind="generator")), (TRAIN, replace(VAL, batch=None))])
@pytest.mark.parametrize(("code", "made"), CODE)
def test_a_model_that_counts_on_the_size_cannot_validate_on_the_old_batches(code, made, data):
    found = found_in(made, code, *data)
    assert not isinstance(found, BatchFound)
    assert found.reason.startswith("the model counts on `bs` in the validation too, whose data keep their batches: ")


@pytest.mark.parametrize(("code", "made"), CODE)
def test_validation_data_that_follow_stop_nothing(code, made):
    found = found_in(made, code, TRAIN, VAL)
    assert isinstance(found, BatchFound), found
    changed = set_batch(found, 32)[0]
    assert "bs = 32\n" in changed
    assert "model.fit(train.rebatch(32), validation_data=val.rebatch(32))" in changed


def test_a_model_that_counts_on_nothing_validates_on_what_it_has():
    found = found_in("model = keras.Sequential([keras.layers.Dense(1)])\n", "", TRAIN)
    assert isinstance(found, BatchFound), found
    assert any(note.startswith("The validation data keep their batch size") for note in found.notes)
