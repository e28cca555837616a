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
