"""What was being made when memory ran out, on recordings of real errors (tests/data/capture_situations.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tf_mem_magic.core.facts import GrownFacts
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.recording import ErrorText, Recording
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.oom import find_oom
from tf_mem_magic.explain import explain

FOLDER = Path(__file__).resolve().parents[1] / "data" / "situations"


def recording(name: str) -> Recording:
    return decode((FOLDER / f"{name}.json").read_bytes(), Recording)


def situation(name: str, **changes):
    diagnosis = diagnose(replace(recording(name), **changes))
    assert diagnosis is not None
    return diagnosis.situation


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        (
            "flatten_dense",
            "weight",
            "The kernel of the layer `Dense(1024, …)`, [131072, 1024] float32, alone needs 512",
        ),
        ("weights_adam", "weights-fill", "Weights (64.1) and the optimizer's values (128) fill 192 of 200 MiB"),
        ("big_picture", "one-sample", "One sample alone needs it (1600 × 1200 × 32 values in one layer)"),
        ("one_hot_eager", "eager-data", "The result of one operation on all rows, [500, 64, 8000] float32, is 977 MiB"),
        ("resize_eager", "eager-data", "The result of one operation on all rows, [600, 224, 224, 3] float32"),
        ("pairwise", "eager-data", "The result of one operation on all rows, [1200, 1200, 64] float32"),
    ],
)
def test_what_was_being_made_is_told(name, kind, words):
    found = situation(name)
    assert found is not None
    assert found.kind == kind
    assert found.text.startswith(words)
    whole = diagnose(recording(name))
    assert whole is not None
    assert found.text in whole.text


def test_an_ordinary_step_that_ran_out_rules_nothing_out():
    assert situation("validation", facts=replace(recording("validation").facts, validating=False)) is None


@pytest.mark.parametrize("name", ["flatten_dense", "one_hot_eager", "pairwise"])
def test_nothing_is_offered_that_cannot_help_and_what_would_is_said(name):
    outcome = explain(recording(name))
    assert outcome.offered == ()
    assert outcome.diagnosis is not None
    assert outcome.diagnosis.situation is not None
    assert outcome.diagnosis.situation.advice


def test_a_picture_that_is_one_sample_gets_no_smaller_batch():
    keys = {proposal.key for proposal in explain(recording("big_picture")).offered}
    assert not keys & {"smaller-batch", "accumulate-gradients"}


def test_flattened_pictures_are_told_to_be_pooled_and_other_wide_layers_are_not():
    told = situation("flatten_dense")
    assert "GlobalAveragePooling2D" in told.code
    cell = recording("flatten_dense").cell
    plain = situation("flatten_dense", cell=replace(cell, source=cell.source.replace("layers.Flatten(), ", "")))
    assert "Flatten" not in plain.advice + plain.code
    assert "1,024" in plain.advice


def test_a_layer_is_named_only_where_one_of_that_width_is_in_the_notebook():
    cell = recording("flatten_dense").cell
    twice = situation("flatten_dense", cell=replace(cell, source=cell.source + "\nz = layers.Embedding(1024, 8)"))
    assert "Dense(1024" in twice.text
    both = situation("flatten_dense", cell=replace(cell, source=cell.source + "\nz = layers.Embedding(131_072, 1024)"))
    assert both.text.startswith("The kernel of a layer, [131072, 1024]")


def test_the_rows_of_all_pairs_are_written_with_the_name_of_the_array():
    assert "emb[i : i + 128, None]" in situation("pairwise").code


def test_a_weight_that_keras_lost_while_it_traced_is_an_out_of_memory():
    lost = replace(recording("lazy_net"), status="oom")
    found = diagnose(lost)
    assert found is not None
    assert found.requested == 65536 * 2048 * 4
    assert found.situation is not None
    assert found.situation.kind == "weight"


@pytest.mark.parametrize(
    "change",
    [
        {"dumps": ()},
        {"errors": (ErrorText("AttributeError", "'SymbolicTensor' object has no attribute 'handle'"),)},
        {"errors": (ErrorText("AttributeError", "'Net' object has no attribute 'handle'"),)},
    ],
)
def test_the_same_words_prove_nothing_without_a_dump_or_from_elsewhere(change):
    lost = replace(recording("lazy_net"), **change)
    assert find_oom(lost.errors, lost.facts, lost.dumps) is None


def test_the_computers_own_memory_is_no_situation_of_a_device():
    full = recording("resize_eager")
    assert situation("resize_eager") is not None
    assert diagnose(replace(full, status="error")) is None


def grown(name: str, bytes_: int, device: str | None = "CPU:0", after: int = 48):
    facts = recording("validation").facts
    return replace(facts, grown=(GrownFacts(name, 0, after, bytes_, "tf.Tensor", device),))


def test_a_list_that_a_loop_filled_is_named_with_its_entries_and_bytes():
    found = situation("validation", facts=grown("grads", 100 << 20))
    assert found is not None
    assert found.kind == "growing"
    assert found.text.startswith("`grads` went from 0 to 48 entries in this cell, and its tensors hold 100")


@pytest.mark.parametrize(
    "facts", [grown("grads", 1 << 20), grown("x", 100 << 20, device=None), grown("pair", 100 << 20, after=1)]
)
def test_a_small_list_one_in_host_memory_or_a_single_entry_is_no_cause(facts):
    assert situation("validation", facts=replace(facts, validating=False)) is None
