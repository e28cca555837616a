"""Epochs whose number of steps follows the batch: where they end within an update."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import BUILD, ask
from tf_mem_magic.core.proposals import Proposal

MADE = BUILD.format('"adam"') + "ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).repeat()\n"
SPELLED = ["len(x) // BATCH", "int(len(x) / BATCH)", "math.ceil(len(x) / BATCH)"]


@pytest.mark.parametrize("steps", SPELLED)
@pytest.mark.parametrize(("rows", "parts"), [(256, 8), (240, 7), (224, 7), (160, 5)])
def test_an_epoch_that_ends_within_an_update_is_said_to_train_otherwise(steps, rows, parts):
    found = ask(f"BATCH = 64\n{MADE}model.fit(ds, steps_per_epoch={steps}, epochs=2)", rows=rows)
    assert isinstance(found, Proposal), found.reason
    parts += "ceil" in steps and rows % 32 > 0
    told = [note for note in found.caveats if "goes on into the next epoch" in note]
    assert bool(told) is bool(parts % 2)
    assert found.preserves == ("same model, other gradients" if parts % 2 else "same effective batch")
    assert all(note.startswith(f"{parts} batches of 32 an epoch, which 2 does not divide") for note in told)


@pytest.mark.parametrize("steps", ["count // BATCH", "int(total(x) / BATCH)", "len(paths) // BATCH"])
def test_where_the_samples_are_not_known_it_is_said_on_what_it_depends(steps):
    found = ask(f"BATCH = 64\n{MADE}model.fit(ds, steps_per_epoch={steps}, epochs=2)")
    assert isinstance(found, Proposal), found.reason
    assert any("where 2 does not divide their number" in note for note in found.caveats)


SLICES = "tf.data.Dataset.from_tensor_slices"
DATA = [
    f"{SLICES}((x, x)).batch(64)",
    f"{SLICES}(x).shuffle(99).batch(64).map(pair).prefetch(1)",
    f"{SLICES}((x, t)).cache().batch(64)",
]
UNKNOWN = [
    "load_data().batch(64)",
    f"{SLICES}((x, x)).filter(good).batch(64)",
    "tf.data.TFRecordDataset(paths).batch(64)",
]
LOOP = """optimizer = keras.optimizers.Adam()
{before}for a, b in {data}:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(a) - b) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""
LAST = "last update of an epoch is not quite"


def ways(data):
    """Give the styles of training on a dataset: ``fit``, a loop over it, over its name, over its numbered batches."""
    built = BUILD.format('"adam"')
    yield f"{built}model.fit({data})"
    yield built + LOOP.format(before="", data=data)
    yield f"{built}ds = {data}\nmodel.fit(ds)"
    yield built + LOOP.format(before=f"ds = {data}\n", data="tqdm(ds)")


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("rows", "right"), [(256, "same effective batch"), (250, "same model, other gradients")])
def test_the_samples_of_a_dataset_of_arrays_are_known(data, rows, right):
    for source in ways(data):
        found = ask(source, rows=rows)
        assert isinstance(found, Proposal), found.reason
        assert found.preserves == right
        assert any("last 26 samples" in note for note in found.caveats) is (rows == 250)
        assert not any(LAST in note for note in found.caveats)


@pytest.mark.parametrize("data", UNKNOWN)
def test_the_same_batch_is_promised_only_where_the_samples_are_known(data):
    for source in ways(data):
        found = ask(source, rows=256)
        assert isinstance(found, Proposal), found.reason
        assert found.preserves == "same model, other gradients"
        assert any(LAST in note for note in found.caveats)
