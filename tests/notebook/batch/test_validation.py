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


LOOP = "for e in range(3):\n    for x, y in train:\n        step(x, y)\n"
STEP = "@tf.function\ndef step(x, y):\n    with tf.GradientTape() as t:\n        l = loss(y, model(x))\n    opt.apply_gradients(zip(t.gradient(l, v), v))"
TEST = "@tf.function\ndef compute(x, y):\n    return loss(y, model(x, training=False))"


def looped(code, line=3, data=(TRAIN, VAL), earlier=(STEP, TEST)):
    cell = read_cell(code)
    assert isinstance(cell, PythonCell)
    facts = replace(
        FACTS, datasets=data, read_elsewhere=(), used=(), earlier_cells=("import tensorflow as tf", *earlier)
    )
    found = find_batch(cell, facts, frozenset({line}))
    assert isinstance(found, BatchFound), found
    return set_batch(found, 32)


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        ("    for x, y in val:\n        metric(compute(x, y))", "for x, y in val.rebatch(32)"),
        ("    for i, (x, y) in enumerate(val):\n        metric.update_state(y, model(x))", "enumerate(val.rebatch(32)"),
        ("for b in val:\n    print(loss(b[1], model(b[0])))", "for b in val.rebatch(32)"),
        ("for x, y in tqdm(val):\n    total += float(compute(x, y))", "tqdm(val.rebatch(32)"),
    ],
)
def test_a_loop_that_validates_beside_the_training_gets_batches_as_small(after, changed):
    source, notes = looped(LOOP + after)
    assert "for x, y in train.rebatch(32)" in source
    assert changed in source
    assert "The loop over `val`, which trains nothing, gets batches that are as small." in notes


@pytest.mark.parametrize(
    ("after", "data"),
    [
        # It trains, or may; it runs only when it is called; its batches are as small already; there is no data set.
        ("    for x, y in val:\n        step(x, y)", (TRAIN, VAL)),
        ("    for x, y in val:\n        fine_tune(x, y)", (TRAIN, VAL)),
        ("def later():\n    for x, y in val:\n        compute(x, y)", (TRAIN, VAL)),
        ("    for x, y in val:\n        compute(x, y)", (TRAIN, replace(VAL, batch=16))),
        ("    for x, y in val:\n        compute(x, y)", (TRAIN,)),
        ("    for name in names:\n        print(name)", (TRAIN, VAL)),
    ],
)
def test_other_loops_stay_as_they_are(after, data):
    source, notes = looped(LOOP + after, data=data)
    assert source.split("step(x, y)\n", 1)[1] == after
    assert not any("trains nothing" in note for note in notes)


def test_where_the_validation_ran_out_the_training_keeps_its_batches():
    code = LOOP + "    for x, y in val:\n        metric(compute(x, y))"
    source, _ = looped(code, line=5)
    assert "in val.rebatch(32)" in source
    assert "for x, y in train:\n" in source


@pytest.mark.parametrize(
    ("count", "told"),
    [
        ("len(val)", "print(total / (2 * (len(val))))"),
        ("val_steps", "print(total / (2 * val_steps))"),
        ("seen", "print(total / seen)"),
        # Of other numbers it is not known: the loop stays as it is.
        ("4", None),
        ("float(len(val))", None),
        ("lots", None),
    ],
)
def test_a_mean_over_the_batches_of_the_validation_stays_a_mean(count, told):
    sums = "    total = seen = 0.0\n    for x, y in val:\n        total += float(compute(x, y))\n        seen += 1\n"
    source, _ = looped(f"{LOOP}{sums}    print(total / {count})", earlier=(STEP, TEST, "val_steps = len(val)"))
    assert "for x, y in train.rebatch(32)" in source
    assert ("in val.rebatch(32)" in source) is (told is not None)
    assert source.endswith(told or f"print(total / {count})")
