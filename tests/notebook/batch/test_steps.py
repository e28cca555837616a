"""Steps that nobody knows the number of grow as the batches shrink, those of a validation by its own batches."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import DatasetFacts, Facts, ModelFacts, ScalarFact
from tf_mem_magic.core.proposals import RefusedError
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


SPLIT = "X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.2)\n"


@pytest.mark.parametrize(
    ("made", "steps", "written"),
    [
        (SPLIT, "len(X_train)", "2 * len(X_train)"),
        (SPLIT.replace("train_test_split", "model_selection.train_test_split"), "len(y_train)", "2 * len(y_train)"),
        (SPLIT, "int(len(X_train) / 10)", "2 * int(len(X_train) / 10)"),
        (SPLIT, "len(X_train) // 32", "len(X_train) // 16"),
    ],
)
def test_samples_that_the_cell_has_split_are_as_many_after_the_edit(made, steps, written):
    cell = read_cell(f"{made}model.fit(gen.flow(X_train, y_train), steps_per_epoch={steps})")
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, Facts(models=(ModelFacts("model"),)), frozenset({2}))
    assert isinstance(found, BatchFound), found
    changed = set_batch(found, 16)[0]
    assert changed == f"{made}model.fit(gen.flow(X_train, y_train, batch_size=16), steps_per_epoch={written})"


@pytest.mark.parametrize("made", ["X_train, y_train = next(batches)\n", "X_train = draw()\n"])
def test_what_may_be_a_batch_is_not_counted_as_samples(made):
    cell = read_cell(f"{made}model.fit(gen.flow(X, y), steps_per_epoch=len(X_train))")
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, Facts(models=(ModelFacts("model"),)), frozenset({2}))
    assert isinstance(found, BatchFound), found
    with pytest.raises(RefusedError, match="cannot be followed"):
        set_batch(found, 16)
