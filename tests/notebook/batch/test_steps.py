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


COUNTED = """n = 32
train = gen.flow_from_directory(tr, batch_size={0})
valid = gen.flow_from_directory(va, batch_size={0})
{1}model.fit(train, steps_per_epoch=train.samples // {0}, validation_data=valid, validation_steps={2})
"""


@pytest.mark.parametrize(
    ("between", "steps", "written"),
    [
        ("", "valid.samples // 32", "2 * (valid.samples // 32)"),
        ("of_valid = valid.n\n", "of_valid // 32", "2 * (of_valid // 32)"),
        ("of_valid = len(valid.filenames)\n", "int(of_valid / 32)", "2 * int(of_valid / 32)"),
        ("of_valid = valid.samples\nmost = of_valid // 32\n", "most", "2 * most"),
        ("", "len(valid)", "len(valid)"),
        ("", "valid.samples // valid.batch_size", "valid.samples // valid.batch_size"),
    ],
)
def test_how_many_samples_a_generator_has_does_not_follow_its_batches(between, steps, written):
    source = COUNTED.format("32", between, steps)
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    line = source[: source.index("model.fit")].count("\n") + 1
    found = find_batch(cell, Facts(models=(ModelFacts("model"),)), frozenset({line}))
    assert isinstance(found, BatchFound), found
    changed = set_batch(found, 16)[0]
    assert changed.count("batch_size=16") == 2
    assert "steps_per_epoch=train.samples // 16" in changed
    assert f"validation_steps={written})" in changed


@pytest.mark.parametrize(
    "behind",
    [
        "def show(h):\n    plt.plot(h.history)\nshow(history)\n",
        "plt.plot(history.history)\n",
        "losses = history.history\nplot_all(losses)\n",
    ],
)
def test_steps_of_a_training_whose_history_is_drawn_follow_the_name(behind):
    source = COUNTED.format("n", "", "valid.samples // n")
    source = source.replace("model.fit", "history = model.fit") + behind
    cell = read_cell(source)
    assert isinstance(cell, PythonCell)
    found = find_batch(cell, Facts(models=(ModelFacts("model"),)), frozenset({4}))
    assert isinstance(found, BatchFound), found
    assert set_batch(found, 16)[0] == source.replace("n = 32", "n = 16")
