"""A mask, labels or a constant that an earlier cell made for one batch size do not follow a smaller one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

IMPORTS = (
    "import keras\nimport numpy as np\nimport tensorflow as tf\nimport tools\n"
    "from keras.layers import Concatenate, Dense, Input\nfrom keras import Model"
)
FACTS = Facts(
    models=(ModelFacts("model"), ModelFacts("critic"), ModelFacts("gan")),
    datasets=(DatasetFacts("ds", batch=48, cardinality=9),),
    scalars=(ScalarFact("BATCH", 48), ScalarFact("cfg.batch_size", 48)),
)
TAPE = """def step(x):
    with tf.GradientTape() as tape:
        z = model(x)
        loss = {}
    model.optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))"""
LOOP = "for x in ds:\n    step(x)"
DRAWN = "for i in range(9):\n    xb = x[np.random.randint(0, len(x), BATCH)]\n    "
FIT = "model.fit(ds, epochs=3)"
BUILT = "inp = Input((10,))\nh = Dense(5)(inp)\n{}\nmodel = Model(inp, Dense(2)(h))\nmodel.compile('adam', 'mse')"


def found_in(cell, *earlier):
    """Find the batch of a cell whose last line runs out of memory."""
    read = read_cell(cell)
    assert isinstance(read, PythonCell)
    facts = replace(FACTS, earlier_cells=(IMPORTS, "BATCH = 48", *earlier))
    return find_batch(read, facts, frozenset({cell.count("\n") + 1}))


MADE = [
    pytest.param("m = tools.off_diagonal(BATCH)", "tf.boolean_mask(tf.matmul(z, z, transpose_b=True), m)", id="mask"),
    pytest.param("m = tf.ones((BATCH, 1))", "bce(m, z)", id="labels"),
    pytest.param("m = np.eye(BATCH)", "tf.reduce_sum(z @ tf.transpose(z) * m)", id="product"),
    pytest.param("m = tf.zeros([2 * cfg.batch_size, 4])", "mse(tf.concat([z, z], 0), m)", id="two halves"),
    pytest.param("a, m = 3, np.zeros(48)", "loss_fn(y_true=tf.cast(m, tf.float32), y_pred=z)", id="a number"),
]


@pytest.mark.parametrize(("made", "loss"), MADE)
def test_a_step_that_computes_with_a_value_of_the_old_size_declines(made, loss):
    found = found_in(LOOP, made, TAPE.format(loss))
    assert not isinstance(found, BatchFound)
    assert found.reason.startswith("an earlier cell makes `m` for batches of 48 (`")
    assert found.reason.endswith("make it smaller where it is set, and run the cells from there on again")


@pytest.mark.parametrize(
    ("made", "step"),
    [
        ("real = np.ones((BATCH, 1))", "critic.train_on_batch(xb, real)"),
        ("real, fake = np.ones(BATCH), np.zeros(BATCH)", "loss = 0.5 * np.add(critic.train_on_batch(xb, real), 0)"),
        ("real = np.ones((BATCH, 1)) * 0.9", "critic.train_on_batch(xb, [real, yb])"),
        ("real = -np.ones((BATCH, 1), dtype='float32')", "gan.train_on_batch(xb, y=real.astype('float16'))"),
    ],
)
def test_labels_of_the_old_size_do_not_go_with_a_smaller_batch(made, step):
    found = found_in(DRAWN + step, made)
    assert not isinstance(found, BatchFound)
    assert found.reason.startswith("an earlier cell makes `real` for batches of 48 (`BATCH`)")


@pytest.mark.parametrize(
    "joined",
    [
        "h = keras.ops.concatenate([h, start], -1)",
        "h = Concatenate()([h, start])",
        "h = tf.concat([h, tf.cast(start, 'float32')], axis=-1)",
        "h = keras.layers.Lambda(lambda t: tf.concat([t, start], -1))(h)",
        "for _ in range(2):\n    start = tf.concat([h, start], axis=-1)\n    h = Dense(5)(start)",
    ],
)
def test_a_constant_of_the_old_size_that_a_model_holds_declines(joined):
    for cell in (FIT, "model.fit(x, y, batch_size=BATCH)"):
        found = found_in(cell, "start = np.zeros((BATCH, 5))\n" + BUILT.format(joined))
        assert not isinstance(found, BatchFound)
        assert found.reason.startswith("an earlier cell makes `start` for batches of 48 (`BATCH`)")


@pytest.mark.parametrize(
    ("cell", "earlier"),
    [
        (f"real = np.ones((BATCH, 1))\n{DRAWN}critic.train_on_batch(xb, real)", ()),
        (f"{DRAWN}critic.train_on_batch(xb, real[: len(xb)])", ("real = np.ones((BATCH, 1))",)),
        (f"{DRAWN}critic.train_on_batch(xb * window, yb)", ("window = np.ones((28, 28))",)),
        (f"{DRAWN}critic.train_on_batch(xb, np.ones((BATCH, 1)))", ("seed = tf.random.normal((BATCH, 9))",)),
        (FIT, ("sample = np.zeros((BATCH, 10))\n" + BUILT.format("") + "\nmodel.predict(sample)",)),
        (FIT, ("ds = tools.make_batches(x, BATCH)\n" + BUILT.format(""),)),
        (
            "for x, y in tf.data.Dataset.zip((ds, ds)):\n    step(x)",
            ("ds = tools.rows().cache().batch(BATCH)", TAPE.format("z")),
        ),
        ("for x in tf.data.Dataset.zip({'a': ds, 'b': ds}):\n    step(x)", ("ds = ds.batch(BATCH)", TAPE.format("z"))),
        (
            "for x in tf.data.Dataset.sample_from_datasets([ds, ds]).batch(BATCH):\n    step(x)",
            ("ds = tools.rows(BATCH)",),
        ),
        (LOOP, ("seed = tf.random.normal((BATCH, 9))", TAPE.format("bce(tf.ones_like(z), z)"))),
        (LOOP, ("m = tf.eye(128)", TAPE.format("tf.reduce_sum(z * m)"))),
        (LOOP, ("scale = 1.0 / 48", TAPE.format("tf.reduce_sum(z) * scale"))),
    ],
)
def test_what_follows_or_stands_beside_no_batch_declines_nothing(cell, earlier):
    found = found_in(cell, *earlier)
    assert isinstance(found, BatchFound), found.reason
    assert "24" in set_batch(found, 24)[0]
