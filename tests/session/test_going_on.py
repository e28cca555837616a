"""What can be done after a rerun: the other changes where it failed for another reason, more room where it fitted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.test_explain import CELL, MIB, OLD, oom
from tf_mem_magic.core.facts import BatchSeen, ModelFacts, NamedValue
from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.recording import Cell, ErrorText
from tf_mem_magic.explain import combined, explain
from tf_mem_magic.report.sentences import changes_heading, further_groups, headline, mark
from tf_mem_magic.report.text import render_text

MODEL = ModelFacts("model", ("Dense",), "Adam", weight_bytes=MIB, optimizer_bytes=2 * MIB, steps=3, device="GPU:0")
FACTS = {"keras": "3.15.1", "tensorflow": "2.21.0", "epochs_done": 0, "steps_done": 0}


def ran_out(**more):
    return explain(oom(models=(replace(MODEL, steps=0),), batches=(BatchSeen("fit", 64, "arrays"),), **FACTS, **more))


def rerun_of(before, key, status, lineage=None, **facts):
    """Give the outcome of a rerun and the lineage with it, as a click on ``key`` would lead to it."""
    lineage = lineage or Lineage().finished(before)
    proposal = next(p for p in before.applicable if p.key == key)
    lineage = lineage.applying(proposal)
    run = before.recording
    errors = (ErrorText("ValueError", "no", ()),) if status == "error" else ()
    series = (replace(run.series[0], peak=50 * MIB, values=(MIB, 50 * MIB)),)
    known = {"models": (MODEL,), "epochs_done": None, "steps_done": None, **facts}
    facts = replace(run.facts, **known)
    rerun = replace(run, cell=Cell(proposal.source), status=status, errors=errors, series=series, facts=facts)
    outcome = explain(rerun, lineage)
    return outcome, lineage.finished(outcome)


def keys(proposals):
    return [p.key for p in proposals]


@pytest.mark.parametrize("status", ["error", "interrupted"])
def test_after_a_rerun_that_ended_otherwise_the_other_changes_are_offered_in_its_place(status):
    before = ran_out()
    after, _ = rerun_of(before, "smaller-batch", status)
    assert keys(after.edits) == [key for key in keys(before.edits) if key != "smaller-batch"]
    mixed = next(p for p in after.edits if p.key == "mixed-precision")
    assert (mixed.original, mixed.instead_of) == (CELL, CELL.replace("64", "32"))
    assert "batch_size=64" in mixed.source
    assert "-model.fit(x, y, batch_size=32)" in mixed.diff.splitlines()
    assert [(d.key, d.reason) for d in after.declined] == [(d.key, d.reason) for d in before.declined]
    assert changes_heading(after) == "Try another change in its place"


def test_a_first_run_that_fails_otherwise_gets_no_changes():
    assert explain(replace(oom(), status="error")).proposals == ()


def test_each_change_that_failed_is_not_offered_again():
    before = ran_out()
    after, lineage = rerun_of(before, "smaller-batch", "error")
    last, _ = rerun_of(after, "mixed-precision", "error", lineage)
    assert set(keys(after.edits)) - set(keys(last.edits)) == {"mixed-precision"}
    assert {p.original for p in last.edits} == {CELL}
    assert {p.instead_of for p in last.edits} == {last.recording.cell.source}


def test_the_rerun_of_a_change_in_place_of_another_is_compared_with_the_run_that_ran_out_and_undone_to_its_code():
    before = ran_out()
    after, lineage = rerun_of(before, "smaller-batch", "error")
    last, lineage = rerun_of(after, "mixed-precision", "ok", lineage)
    assert (last.comparison.status_before, last.comparison.before.peak) == ("oom", 95 * MIB)
    assert last.comparison.original == CELL
    assert [p.key for p in lineage.proposals] == ["smaller-batch", "mixed-precision"]
    assert [p.key for p in lineage.effective] == ["mixed-precision"]


def test_changes_that_are_ticked_there_are_made_from_the_code_that_ran_out():
    before = ran_out()
    after, lineage = rerun_of(before, "smaller-batch", "error")
    both = combined(after, ("mixed-precision", "smaller-batch"), lineage)
    assert (both.original, both.instead_of) == (CELL, after.recording.cell.source)
    assert "batch_size=32" in both.source
    assert "apply.mixed_precision" in both.source or "set_dtype_policy" in both.source


def test_after_a_rerun_that_fitted_there_is_more_room_on_top_of_it_and_other_changes_in_its_place():
    after, _ = rerun_of(ran_out(), "smaller-batch", "ok", batches=(BatchSeen("fit", 32, "arrays"),))
    (top, on_top), (place, instead) = further_groups(after)
    assert (top, place) == ("On top of this change, for more room", "In place of this change")
    assert "Batch 16" in [p.title for p in on_top]
    assert all("batch_size=64" not in p.source for p in on_top)
    others = [p for p in instead if p.key not in ("accumulate-gradients", "larger-batch")]
    assert all("batch_size=64" in p.source for p in others)
    assert "smaller-batch" not in keys(instead)
    assert (after.offered, after.edits) == ((), ())
    assert "On top of this change, for more room:\n" in render_text(after)


def test_what_is_on_top_is_compared_with_the_run_that_fitted():
    after, lineage = rerun_of(ran_out(), "smaller-batch", "ok", batches=(BatchSeen("fit", 32, "arrays"),))
    last, _ = rerun_of(after, "smaller-batch", "ok", lineage)
    assert (last.comparison.status_before, last.comparison.original) == ("ok", CELL.replace("64", "32"))


def test_a_plain_run_that_fits_is_offered_nothing_more():
    assert explain(replace(oom(), status="ok", errors=())).further == ()


def test_what_takes_a_restart_or_ticks_is_not_among_the_further_changes():
    after, _ = rerun_of(ran_out(), "smaller-batch", "ok", models=(MODEL, OLD))
    assert all(p.takes_effect == "rerun" and not p.picks and not p.new_cell for p in after.further)


def test_steps_that_a_fitting_rerun_took_in_an_earlier_model_are_known_to_the_further_changes():
    earlier = replace(MODEL, steps=3, steps_before=0, kept=True)
    after, _ = rerun_of(ran_out(), "smaller-batch", "ok", models=(earlier,))
    assert [c.kind for c in after.changes] == ["steps"]
    assert all("Start again" in [c.label for c in p.choices] for p in after.further)
    assert "This run already did" not in render_text(after)


def test_a_rerun_that_trained_on_nothing_does_not_fit():
    after, _ = rerun_of(ran_out(), "smaller-batch", "ok", models=(replace(MODEL, steps=0),))
    assert after.comparison.trained is False
    assert headline(after) == "Batch 32: the rerun took no training step"
    assert mark(after) == "●"
    assert "Was the data used up?" in after.comparison.text
    assert "it fits" not in after.comparison.text
    assert "Was the data used up?" in render_text(after)


@pytest.mark.parametrize("models", [(), (MODEL,), (replace(MODEL, optimizer=None, steps=0),)])
def test_where_steps_are_seen_or_cannot_be_seen_it_fits(models):
    after, _ = rerun_of(ran_out(), "smaller-batch", "ok", models=models)
    assert after.comparison.trained is True


def test_what_can_be_had_under_other_settings_replaces_the_cell_as_it_is_now():
    before = ran_out(values=(NamedValue("z", 2 * MIB, "tf.Tensor", "GPU:0"),))
    after, _ = rerun_of(before, "smaller-batch", "error")
    settings = [d.settings for d in after.declined if d.settings is not None]
    assert settings
    assert {p.replaces for p in settings} == {after.recording.cell.source}


def stepped_up(peak, limit=200 * MIB):
    """Give the step up that is offered after batch 32 fitted with a peak, where 64 had run out."""
    before = ran_out()
    proposal = next(p for p in before.applicable if p.key == "smaller-batch")
    series = (replace(before.recording.series[0], peak=peak, values=(MIB, peak), limit=limit),)
    facts = replace(before.recording.facts, batches=(BatchSeen("fit", 32, "arrays"),), models=(MODEL,))
    run = replace(before.recording, cell=Cell(proposal.source), status="ok", errors=(), series=series, facts=facts)
    full = replace(before.recording, series=(replace(before.recording.series[0], limit=limit),))
    lineage = Lineage().finished(explain(full)).applying(proposal)
    return [p for p in explain(run, lineage).further if p.key == "larger-batch"]


def test_after_a_batch_that_fitted_with_room_the_next_larger_one_that_surely_fits_is_offered():
    limit = 200 * MIB
    found = stepped_up(limit // 2)
    assert [p.title for p in found] == ["Batch 48"]
    assert "batch_size=48" in found[0].source
    assert found[0].instead_of == CELL.replace("64", "32")
    assert found[0].estimate.high == limit // 2 * 48 // 32
    assert found[0].estimate.word(limit) in ("fits", "likely")


def test_without_room_there_is_no_step_up():
    assert stepped_up(160 * MIB) == []
