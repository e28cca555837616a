"""What a saved report holds, and what it does not."""

from __future__ import annotations

import dataclasses
import stat

import pytest

from tests import gallery
from tf_mem_magic.api import Report, load
from tf_mem_magic.core.facts import Facts, FunctionFacts, ModuleFacts, NamedValue, ScalarFact
from tf_mem_magic.core.jsonio import encode
from tf_mem_magic.core.recording import ErrorText
from tf_mem_magic.report.html.page import render_html
from tf_mem_magic.report.saved import shareable

SECRET = "hunter2"


def outcome():
    base = gallery.out_of_memory()
    facts = Facts(
        steps_done=0,
        epochs_done=0,
        earlier_cells=(f"password = '{SECRET}'",),
        environment=(("TF_SECRET", SECRET),),
        scalars=(ScalarFact("x", SECRET), ScalarFact("y", 256), ScalarFact("other", 7)),
        used=(f"def f(): return '{SECRET}'",),
        functions=(FunctionFacts("f", f"def f(): return '{SECRET}'", "cell", 1),),
        modules=(ModuleFacts("m.py", f"key = '{SECRET}'"),),
        values=(NamedValue(SECRET, 5, "ndarray"), NamedValue("old_model", 5, "Model")),
    )
    errors = (ErrorText("ValueError", f"no table {SECRET}"), ErrorText("ResourceExhaustedError", f"OOM for {SECRET}"))
    return dataclasses.replace(base, recording=dataclasses.replace(base.recording, facts=facts, errors=errors))


def test_nothing_of_other_cells_of_strings_of_errors_messages_or_of_the_environment_is_saved():
    assert SECRET.encode() not in encode(shareable(outcome()))


def test_numbers_that_the_cell_reads_stay_and_others_go():
    assert [scalar.name for scalar in shareable(outcome()).recording.facts.scalars] == ["y"]


@pytest.mark.parametrize("name", gallery.OUTCOMES)
def test_what_is_saved_shows_the_same_report(name):
    shown = gallery.OUTCOMES[name]()
    assert render_html(shareable(shown)) == render_html(shown)


def test_the_file_is_for_its_owner_alone(tmp_path):
    path = Report(outcome()).save(tmp_path / "report.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path).outcome == shareable(outcome())


def test_everything_is_saved_only_when_asked_for_and_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="source of every earlier cell"):
        path = Report(outcome()).save(tmp_path / "full.json", full=True)
    assert load(path).outcome == outcome()
