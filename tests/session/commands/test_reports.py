"""``%tfmem last``, ``history`` and ``apply``: in any front end, by number or by key."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests import gallery
from tf_mem_magic.api import Report
from tf_mem_magic.session.commands.reports import apply, find_choice, history_text, show_last


def session_of(*outcomes):
    reports = [Report(outcome) for outcome in outcomes]
    return SimpleNamespace(reports=reports, last=reports[-1] if reports else None, shell=SimpleNamespace())


@pytest.mark.parametrize("which", ["2", "mixed-precision"])
def test_a_change_is_found_by_its_number_and_by_its_key(which):
    assert find_choice(Report(gallery.out_of_memory()), which).key == "mixed-precision"


def test_a_misspelled_key_gets_the_nearest_one_and_all_that_there_are():
    with pytest.raises(ValueError, match="did you mean smaller-batch\\? Offered: 1 smaller-batch, 2 mixed-precision"):
        find_choice(Report(gallery.out_of_memory()), "smaler-batch")


def test_a_report_without_changes_says_so():
    with pytest.raises(ValueError, match="the last report offers no change"):
        find_choice(Report(gallery.went_well()), "1")


def test_what_is_applied_is_the_rerun_of_that_key():
    asked = []
    session = session_of(gallery.out_of_memory())
    session.reports[0] = session.last = Report(gallery.out_of_memory(), lambda key: asked.append(key) or session.last)
    apply(session, "1")
    assert asked == ["smaller-batch"]


def test_what_cannot_be_run_is_one_sentence():
    with pytest.raises(ValueError, match="this report has no cell to run"):
        apply(session_of(gallery.out_of_memory()), "1")


def test_the_history_is_a_line_each():
    lines = history_text(session_of(gallery.out_of_memory(), gallery.fits_now())).splitlines()
    assert [line[:3] for line in lines] == ["1  ", "2  "]
    assert "Batch 128: it fits" in lines[1]


def test_the_last_reports_are_shown_oldest_first(capsys):
    show_last(session_of(gallery.tiny(), gallery.out_of_memory(), gallery.fits_now()), 2, False)
    told = capsys.readouterr().out
    assert told.index("Out of memory") < told.index("it fits")


def test_everything_of_the_last_report_has_each_change(capsys):
    show_last(session_of(gallery.out_of_memory()), 1, True)
    assert "+model.fit(x, y, batch_size=128, epochs=3)" in capsys.readouterr().out


def test_before_the_first_run_there_is_nothing_to_show():
    with pytest.raises(ValueError, match="no cell was watched yet"):
        history_text(session_of())


def test_a_reruns_report_is_shown_once():
    shown = Report(gallery.fits_now())
    report = Report(gallery.out_of_memory(), lambda key: shown)
    first, second = (report.rerun("smaller-batch")._repr_mimebundle_(), shown._repr_mimebundle_())
    assert (set(first), "text/html" in second) == ({"text/plain"}, True)
