"""Steps that nobody knows the number of grow as the batches shrink, those of a validation by its own batches."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.notebook.batch.found import BatchFound, set_batch
from tf_mem_magic.notebook.batch.search import find_batch
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

FACTS = Facts(
    datasets=(DatasetFacts("train_ds", batch=32), DatasetFacts("val_ds", batch=40, cardinality=23)),
    models=(ModelFacts("model"),),
    scalars=(ScalarFact("KNOWN", 23),),
)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("VAL_STEPS", "-(-VAL_STEPS * 40 // 16)"),
        ("cfg.val_steps", "-(-cfg.val_steps * 40 // 16)"),
        ("n_val // VAL_BATCH", "-(-(n_val // VAL_BATCH) * 40 // 16)"),
        ("KNOWN", "58"),
    ],
)
def test_a_validation_covers_as_many_samples_where_its_batches_are_of_another_size(given, written):
    source = f"model.fit(train_ds, steps_per_epoch=90, validation_data=val_ds, validation_steps={given})"
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, FACTS, frozenset({1}))
    assert isinstance(found, BatchFound), found
    changed, notes = set_batch(found, 16)
    assert "val_ds.rebatch(16)" in changed
    assert f"validation_steps={written})" in changed
    assert (
        eval(written, {"VAL_STEPS": 23, "n_val": 920, "VAL_BATCH": 40, "cfg": type("C", (), {"val_steps": 23})}) == 58
    )
    assert any(note.startswith("`validation_steps` becomes ") and "as many samples" in note for note in notes)
