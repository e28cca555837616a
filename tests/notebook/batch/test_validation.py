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


KNOWN = "import keras\nimport tensorflow as tf\nfrom tqdm import tqdm\nloss = keras.losses.MeanSquaredError()\nmetric = keras.metrics.Mean()"


def looped(code, line=3, data=(TRAIN, VAL), earlier=(STEP, TEST)):
    cell = read_cell(code)
    assert isinstance(cell, PythonCell)
    facts = replace(FACTS, datasets=data, read_elsewhere=(), used=(), earlier_cells=(KNOWN, *earlier))
    found = find_batch(cell, facts, frozenset({line}))
    assert isinstance(found, BatchFound), found
    return set_batch(found, 32)


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        ("    for x, y in val:\n        metric(compute(x, y))", "for x, y in val.rebatch(32)"),
        ("    for i, (x, y) in enumerate(val):\n        metric.update_state(y, model(x))", "enumerate(val.rebatch(32)"),
        ("for b in val:\n    print(loss(b[1], model(b[0])))", "for b in val.rebatch(32)"),
        (
            "total = 0\nfor x, y in tqdm(val):\n    total += float(compute(x, y))\ntotal / len(val)",
            "tqdm(val.rebatch(32)",
        ),
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
        ("len(val)", "print(total / (2 * len(val)))"),
        ("val_steps", "print(total / (2 * val_steps))"),
        ("seen", "print(total / seen)"),
        # Of other numbers it is not known: the loop stays as it is.
        ("4", None),
        ("float(len(val))", "print(total / (2 * (float(len(val)))))"),
        ("lots", None),
    ],
)
def test_a_mean_over_the_batches_of_the_validation_stays_a_mean(count, told):
    sums = "    total = seen = 0.0\n    for x, y in val:\n        total += float(compute(x, y))\n        seen += 1\n"
    source, _ = looped(f"{LOOP}{sums}    print(total / {count})", earlier=(STEP, TEST, "val_steps = len(val)"))
    assert "for x, y in train.rebatch(32)" in source
    assert ("in val.rebatch(32)" in source) is (told is not None)
    assert source.endswith(told or f"print(total / {count})")


@pytest.mark.parametrize(
    "before",
    [
        # They stand before the training, or look at some of the data only.
        "for x, y in val:\n    compute(x, y)\n",
        "for images, _ in val:\n    print(images)\n",
        "total = 0\nfor x, y in val:\n    total += compute(x, y)\nprint(total / len(val))\n",
        "with tf.device('/CPU:0'):\n    for x, y in val:\n        compute(x, y)\n",
    ],
)
def test_a_loop_before_the_training_keeps_its_batches(before):
    source, notes = looped(before + LOOP, line=3 + before.count("\n"))
    assert source.startswith(before)
    assert not any("trains nothing" in note for note in notes)


@pytest.mark.parametrize(
    "after",
    [
        "for images, _ in val.take(1):\n    compute(images, images)",
        "for images, _ in val.take(0):\n    print(images)",
        "for x, y in val:\n    compute(x, y)\n    break",
        "for i, (x, y) in enumerate(val):\n    if compute(x, y) > 1:\n        break",
        "for x, y in val:\n    with tf.device('/CPU:0'):\n        print(compute(x, y))\n        break",
        # What a loop leaves behind depends on the batch.
        "for x, y in val:\n    seed = x\nshow(seed)",
        "for x, y in val:\n    out = model(x, training=False)\nprint(out.shape)",
        "for x, y in val:\n    compute(x, y)\nplt.imshow(x[0])",
        "for i, (x, y) in enumerate(val):\n    compute(x, y)\nprint(i)",
        "seen = 0\nfor x, y in val:\n    compute(x, y)\n    seen += 1\nprint(seen, 'batches')",
        # A number is written out that is the size of a batch, or a name is read that stays.
        "for x, y in val:\n    compute(x + tf.zeros((64, 4)), y)",
    ],
)
def test_a_loop_that_only_looks_keeps_its_batches(after):
    kept = after.split("\n")[0]
    cell = read_cell(LOOP + after)
    assert isinstance(cell, PythonCell)
    facts = replace(FACTS, datasets=(TRAIN, VAL), read_elsewhere=(), used=(), earlier_cells=(KNOWN, STEP, TEST))
    found = find_batch(cell, facts, frozenset({3}))
    assert not isinstance(found, BatchFound) or kept in set_batch(found, 32)[0]


@pytest.mark.parametrize(
    "after",
    [
        "for x, y in val:\n    x = x + 1\n    out = compute(x, y)\nfor x, y in other:\n    print(x)",
        "    for x, y in val:\n        out = compute(x, y)\n    out = 3\n    print(out)",
        "preds = []\nfor x, y in val:\n    preds.append(model(x, training=False))\nnp.concatenate(preds)",
        "    losses = []\n    for x, y in val:\n        losses.append(compute(x, y))\n    print(np.mean(losses))",
    ],
)
def test_what_is_the_same_by_smaller_batches_stops_nothing(after):
    source, _ = looped(LOOP + after)
    assert "in val.rebatch(32)" in source


@pytest.mark.parametrize(
    "maker",
    [
        "class Net(keras.Model):\n    def call(self, x, training=False):\n        return x + tf.random.normal((bs, 4))\nmodel = Net()",
        "def compute(x, y):\n    return loss(y, model(x) + tf.zeros([bs, 1]))",
        "noise = tf.random.normal((64, 4))\ndef compute(x, y):\n    return loss(y, model(x) + noise)",
    ],
)
def test_code_that_counts_on_the_size_of_the_validation_keeps_its_batches(maker):
    train = replace(TRAIN, batch=128)
    cell = read_cell(LOOP + "for x, y in val:\n    compute(x, y)")
    assert isinstance(cell, PythonCell)
    facts = replace(FACTS, datasets=(train, VAL), earlier_cells=(KNOWN, STEP, TEST, "bs = 64", maker))
    found = find_batch(cell, facts, frozenset({3}))
    assert not isinstance(found, BatchFound) or "for x, y in val:" in set_batch(found, 32)[0]


@pytest.mark.parametrize("shape", ["tf.zeros([bs, 1])", "tf.random.normal((bs, 4))", "tf.ones(shape=(bs, 1))"])
@pytest.mark.parametrize(
    "after", ["for x, y in val:\n    out = compute(x, y)\nprint(out)", "for x, y in val:\n    compute(x, y)\n    break"]
)
def test_code_that_counts_on_a_name_that_is_set_cannot_validate_on_the_old_batches(shape, after):
    """The step's function reads the name too, so that the edit sets it; the loop that validates must stay."""
    counting = f"def noisy(x):\n    return x + {shape}"
    compute = "def compute(x, y):\n    return loss(y, model(noisy(x)))"
    step = "def step(x, y):\n    with tf.GradientTape() as t:\n        l = loss(y, model(noisy(x)))\n    return l"
    cell = read_cell(f"for x, y in train:\n    noisy(x)\n    step(x, y)\n{after}")
    assert isinstance(cell, PythonCell)
    facts = replace(FACTS, datasets=(TRAIN, VAL), earlier_cells=(KNOWN, "bs = 64", counting, compute, step))
    found = find_batch(cell, facts, frozenset({2, 3}))
    assert not isinstance(found, BatchFound), set_batch(found, 32)[0]
    assert found.reason.startswith("the code counts on `bs` in the validation too, whose data keep their batches: ")
