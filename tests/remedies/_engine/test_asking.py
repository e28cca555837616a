from __future__ import annotations

import pytest

from tests.test_explain import oom
from tf_mem_magic.core.proposals import Declined, RefusedError
from tf_mem_magic.explain import explain
from tf_mem_magic.notebook.rerun import changes
from tf_mem_magic.remedies import xla
from tf_mem_magic.remedies._engine.examples import FIT, example
from tf_mem_magic.remedies._engine.question import Ask, remedy


def test_an_error_of_a_remedy_is_a_decline_and_a_note_of_the_report(monkeypatch):
    def broken(ask):
        raise ZeroDivisionError("what a pity")

    monkeypatch.setattr(xla, "propose", remedy("xla", "XLA")(broken))
    outcome = explain(oom(), notices=("said before",))
    reasons = [d.reason for d in outcome.declined if d.key == "xla"]
    assert ["what a pity" in reason for reason in reasons] == [True]
    assert outcome.notices[0] == "said before"
    assert ["XLA" in note and "what a pity" in note for note in outcome.notices[1:]] == [True]
    assert "smaller-batch" in {p.key for p in outcome.offered}


def test_an_error_in_reading_what_the_run_changed_costs_nothing_but_that(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("what a pity")

    monkeypatch.setattr(changes, "effects_of", broken)
    outcome = explain(oom())
    assert outcome.offered
    assert outcome.changes == ()
    assert ["already changed" in note for note in outcome.notices] == [True]


def test_a_report_without_troubles_has_no_notes():
    assert explain(oom()).notices == ()


def test_a_refusal_anywhere_in_a_remedy_is_its_decline_with_the_patch():
    def body(ask):
        raise RefusedError("not here", "- a\n+ b")

    answers = remedy("key", "Title")(body)(example("", FIT, "").context)
    assert answers == (Declined("key", "Title", "not here", "- a\n+ b"),)


def test_guards_are_asked_in_their_order_before_the_body():
    def guard(name):
        def check(ask):
            asked.append(name)

        return check

    asked: list[str] = []
    propose = remedy("key", "Title", (guard("first"), guard("second")))(lambda ask: asked.append("body") or ())
    assert propose(example("", FIT, "").context) == ()
    assert asked == ["first", "second", "body"]


@pytest.mark.parametrize("cell", ["%%bash\nls", "x = ("])
def test_what_needs_the_cell_as_python_refuses_by_itself(cell):
    with pytest.raises(RefusedError):
        Ask(example("", cell, "").context).place  # noqa: B018
