"""Remedies that are a cell of their own: where they are offered, and that the cell that ran is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.panel_demo import outcome, proposal
from tests.views.test_panel import CELL, CHANGED, Driven, driven, ticks  # noqa: F401  (a fixture)
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.options import Options
from tf_mem_magic.core.proposals import Choice, Declined
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.diagnose.breakdown import deployable
from tf_mem_magic.explain import explain
from tf_mem_magic.remedies._engine import ranking as remedies
from tf_mem_magic.report.html.page import choices_html, head_html, render_html
from tf_mem_magic.report.text import render_text
from tf_mem_magic.report.view import view_of
from tf_mem_magic.session.auto import Ladder

NEW = "%%tfmem\nsmall = quantized(model)"
FIT = "%%tfmem\nmodel.fit(x, y)"
MODEL = ModelFacts("model", ("Dense",), weight_bytes=1 << 20, steps=3)
OFFER = proposal("quantize", "Quantize `model`", NEW, CELL, new_cell=True, why="Weights 4 → 1 MiB, computed.",
                 choices=(Choice("int4", NEW + "  # int4"),))  # fmt: skip
BATCH = proposal("smaller-batch", "Batch 128", CHANGED, CELL)
BUTTON = "Run a new cell below: Quantize model"


def went_well(*offered, **more):
    return outcome(FIT, *(offered or (OFFER,)), status="ok", **more)


class Asked:
    """A remedy that notes whether it was asked."""

    KEY, TITLE, EXAMPLES = "asked", "Asked", ()

    def __init__(self, answer, **attributes):
        self.answer, self.times = answer, 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def propose(self, context):
        self.times += 1
        return (self.answer,)


def ok_run(source=FIT, model=MODEL):
    return Recording(Cell(source), 1.0, facts=Facts(models=(model,)))


@pytest.mark.parametrize(
    ("source", "model", "expected"),
    [
        ("model.fit(x, y)", ModelFacts("model", steps=3, steps_before=0), ["model"]),
        ("train()", ModelFacts("model", steps=3, steps_before=1), ["model"]),
        ("build()", ModelFacts("model"), ["model"]),
        ("model.predict(x)", ModelFacts("model", steps=3, steps_before=3), ["model"]),
        ("print(x)", ModelFacts("model", steps=3, steps_before=3), []),
    ],
)
def test_a_cell_is_about_the_models_that_it_trains_makes_or_names(source, model, expected):
    assert [m.name for m in deployable(ok_run(source, model))] == expected


def test_after_a_run_that_went_well_only_the_remedies_for_deployment_are_asked(monkeypatch):
    deploying, other = Asked(OFFER, AFTER_SUCCESS=True), Asked(BATCH)
    monkeypatch.setattr(remedies, "all_remedies", lambda: (deploying, other))
    assert explain(ok_run()).proposals == (replace(OFFER, technique="Asked"),)
    assert (deploying.times, other.times) == (1, 0)


def test_a_cell_that_is_about_no_model_asks_none(monkeypatch):
    deploying = Asked(OFFER, AFTER_SUCCESS=True)
    monkeypatch.setattr(remedies, "all_remedies", lambda: (deploying,))
    idle = ModelFacts("model", steps=3, steps_before=3)
    assert (explain(ok_run("print(1)", idle)).proposals, deploying.times) == ((), 0)


def test_after_a_new_cell_has_run_nothing_more_is_offered(monkeypatch):
    monkeypatch.setattr(remedies, "all_remedies", lambda: (Asked(OFFER, AFTER_SUCCESS=True),))
    assert explain(ok_run(), deploys=False).proposals == ()


def test_a_change_of_the_cell_is_never_offered_after_a_run_that_went_well(monkeypatch):
    monkeypatch.setattr(remedies, "all_remedies", lambda: (Asked(BATCH, AFTER_SUCCESS=True),))
    assert explain(ok_run()).proposals == ()


def test_where_nothing_is_offered_after_success_nothing_is_refused_either(monkeypatch):
    refused = Declined("prune", "Prune", "the model has no kernels")
    monkeypatch.setattr(remedies, "all_remedies", lambda: (Asked(refused, AFTER_SUCCESS=True),))
    assert explain(ok_run()).proposals == ()
    both = (Asked(refused, AFTER_SUCCESS=True), Asked(OFFER, AFTER_SUCCESS=True))
    monkeypatch.setattr(remedies, "all_remedies", lambda: both)
    assert explain(ok_run()).proposals == (replace(OFFER, technique="Asked"), refused)


def test_no_way_to_go_on_training_is_added_to_a_new_cell(monkeypatch):
    kept = ModelFacts("model", steps=3, steps_before=1, kept=True)
    monkeypatch.setattr(remedies, "all_remedies", lambda: (Asked(OFFER, AFTER_SUCCESS=True),))
    facts = Facts(models=(kept,), epochs_done=1)
    for status in ("ok", "oom"):
        offered = explain(Recording(Cell(FIT), 1.0, status=status, facts=facts)).offered
        assert [p.choices for p in offered] == [OFFER.choices]


def test_without_a_click_a_new_cell_is_never_run():
    class Run:
        class report:
            status = "oom"
            outcome = outcome(
                CELL, proposal("quantize", "Quantize", NEW, CELL, new_cell=True, preserves="same results")
            )

    assert Ladder(Options(on_oom="auto", keep="any"))._next(Run) is None


def test_a_click_asks_the_page_for_a_new_cell_and_announces_no_rerun(driven):  # noqa: F811
    d = driven(outcome(CELL, BATCH, OFFER))
    d.buttons()[BUTTON].click()
    order = d.sent[-1]
    assert (order["op"], order["new_cell"], order["source"], order["original"]) == ("run", True, NEW, CELL)


def test_a_change_of_the_cell_is_not_sent_as_a_new_one(driven):  # noqa: F811
    d = driven(outcome(CELL, BATCH, OFFER))
    d.buttons()["Batch 128"].click()
    assert d.sent[-1]["new_cell"] is False


def test_a_new_cell_cannot_be_ticked_to_be_combined(driven):  # noqa: F811
    d = driven(outcome(CELL, BATCH, proposal("xla", "XLA", CHANGED, CELL), OFFER))
    assert len(ticks(d.panel)) == 2


@pytest.mark.parametrize("tier", ["execute", "panel"])
def test_where_no_cell_can_be_added_copy_comes_first_and_it_runs_in_the_panel(driven, tier):  # noqa: F811
    d = driven(went_well(), tier=tier)
    labels = list(d.buttons())
    assert labels.index("Copy the cell") < labels.index(BUTTON)
    d.buttons()[BUTTON].click()
    assert d.panel.hosts
    if tier == "panel":
        assert ("run_here", NEW, "quantize") in [note[:3] for note in d.actions.notes]


def test_after_success_the_offers_are_folded_with_their_reasons(driven):  # noqa: F811
    d = driven(went_well(declined=(Declined("prune", "Prune", "no kernels"),)))
    toggles = [w.description for w in d.widgets() if type(w).__name__ == "ToggleButton"]
    assert toggles == ["Make a model smaller for deployment", "new cell"]
    assert "no kernels" in d.text()
    assert "expected peak" not in d.text()


def test_the_frozen_panel_keeps_the_code_of_the_new_cell():
    html = choices_html(view_of(outcome(CELL, BATCH, OFFER)))
    assert html.count(">+small = quantized(model)<") == 1
    assert html.index("Batch 128") < html.index("Or run another cell")


def test_the_announcement_counts_changes_of_the_cell_alone():
    assert "1 change is offered below" in view_of(outcome(CELL, BATCH, OFFER)).announcement
    assert "offered" not in view_of(went_well()).announcement


def test_the_static_page_folds_the_new_cell_and_leaves_it_to_a_panel_below():
    page = render_html(went_well())
    assert "<summary" in page
    assert "smaller for deployment" in page
    assert "small = quantized(model)" in page
    assert "smaller for deployment" not in head_html(view_of(went_well()))


def test_the_static_page_after_an_out_of_memory_shows_new_cells_after_the_changes():
    page = render_html(outcome(CELL, BATCH, OFFER))
    assert page.index("Batch 128") < page.index("Or run another cell: this one stays as it is") < page.index("Quantize")


def test_text_says_it_in_one_line_after_success_and_whole_after_an_out_of_memory():
    (line,) = [line for line in render_text(went_well()).splitlines() if "[quantize]" in line]
    assert line.strip() == "Make a model smaller for deployment: Quantize model [quantize]"
    text = render_text(outcome(CELL, BATCH, OFFER), everything=True)
    assert text.index("1. Batch 128") < text.index("Or run another cell") < text.index("2. Quantize")
    assert "+small = quantized(model)" in text
