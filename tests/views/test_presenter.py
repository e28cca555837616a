"""Where a run shows itself, without a page: what is published, and when the page learns that memory ran out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests import gallery
from tests.panel_demo import NotingActions
from tf_mem_magic.api import Report
from tf_mem_magic.core.options import Options
from tf_mem_magic.views.presenter import NotebookPresenter
from tf_mem_magic.views.slots import WIDGET_VIEW


@pytest.fixture
def shown():
    """Give a function that makes a presenter under some options, and the bundles that it publishes."""
    made = []

    def show(on_oom, report, attended=True):
        published = []
        publish = SimpleNamespace(publish=lambda data, *_, **__: published.append(data))
        shell = SimpleNamespace(display_pub=publish, kernel=SimpleNamespace(_allow_stdin=attended))
        cell = report.recording.cell
        made.append(NotebookPresenter(shell, cell, Options(on_oom=on_oom), NotingActions(), is_hosted=False))
        made[-1].reserve()
        made[-1].finish(report)
        return made[-1], published

    yield show
    for presenter in made:
        presenter.retire()


def has_panel(published) -> bool:
    return any(WIDGET_VIEW in data for data in published)


def test_a_failure_that_only_reports_tells_the_page_too(shown):
    presenter, published = shown("raise", Report(gallery.out_of_memory()))
    assert (has_panel(published), presenter._panel._bridge.failed) == (True, True)


def test_while_remedies_may_help_without_a_click_the_page_is_not_told_that_memory_ran_out(shown):
    _, published = shown("auto", Report(gallery.out_of_memory()))
    assert not has_panel(published)


def test_a_failure_on_which_nothing_was_tried_is_told_to_the_page_with_what_can_be_done(shown):
    report = Report(gallery.out_of_memory())
    presenter, published = shown("auto", report)
    presenter.tell_untried(report)
    bridge = presenter._panel._bridge
    assert (WIDGET_VIEW in published[-1], bridge.failed, bridge.running) == (True, True, False)
    assert "Batch 128" in bridge.frozen


@pytest.mark.parametrize(("report", "attended"), [(gallery.went_well, True), (gallery.out_of_memory, False)])
def test_a_run_that_went_well_and_one_that_nobody_watches_get_no_panel_for_it(shown, report, attended):
    presenter, published = shown("auto", Report(report()), attended)
    presenter.tell_untried(Report(report()))
    assert not has_panel(published)


def test_what_happened_is_said_on_the_strip_while_what_fits_is_being_worked_out(shown, monkeypatch):
    presenter, published = shown("panel", Report(gallery.out_of_memory()))
    sent = []
    monkeypatch.setattr(presenter._panel._bridge, "send", sent.append)
    before = len(published)
    presenter.tell_first(gallery.out_of_memory())
    assert [("ended", "working out what filled it and what would fit …")] == [(m["op"], m["words"]) for m in sent]
    assert sent[0]["state"].startswith("✗ Out of memory on GPU:0")
    assert before == len(published), "nothing else on the page moves"


def test_where_no_strip_is_shown_nothing_is_said_before_the_report(shown):
    presenter, published = shown("auto", Report(gallery.out_of_memory()))
    before = len(published)
    presenter.tell_first(gallery.out_of_memory())
    assert (before, None) == (len(published), presenter._panel)
