"""A run's states, and how a rerun is found again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Choice, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.session.state import KEPT_RUNS, Register, Rerun, Run

CELL, CHANGED = "%%tfmem\nfit(256)", "%%tfmem\nfit(128)"
HALF = Proposal("smaller-batch", "Smaller batch", CHANGED, CELL, "same model, other gradients")
STUDENT = Proposal("distill", "Distill", "student()", CELL, "nothing", new_cell=True)
RAN_OUT = Outcome(Recording(Cell(CELL), status="oom"), offered=(HALF,))


@dataclass
class Live:
    """A run of which nothing is alive but its value."""

    run: Run
    report: Any = None
    results: list[Any] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)

    def supersede(self):
        self.run = self.run.to("superseded")
        self.frozen.append("superseded")

    def retire(self):
        self.run = self.run.to("retired")
        self.frozen.append("retired")


def explained(cell_id=None):
    return Run(Cell(CELL, cell_id)).to("recording").explained(RAN_OUT)


def test_a_run_goes_from_planned_to_offered_where_it_has_choices():
    run = explained()
    assert ("offered", (RAN_OUT,)) == (run.state, run.lineage.outcomes)


def test_a_run_without_choices_is_explained():
    assert "explained" == Run(Cell(CELL)).to("recording").explained(Outcome(Recording(Cell(CELL)))).state


@pytest.mark.parametrize(
    ("before", "after"), [("planned", "offered"), ("retired", "recording"), ("offered", "planned")]
)
def test_no_run_goes_a_way_that_there_is_not(before, after):
    with pytest.raises(ValueError, match=f"a run that is {before} cannot become {after}"):
        Run(Cell(CELL), state=before).to(after)


def test_a_rerun_knows_the_runs_before_it_and_its_own_proposal():
    lineage = Rerun(HALF, explained(), "click").lineage
    assert ((RAN_OUT,), (HALF,)) == (lineage.outcomes, lineage.proposals)


def test_a_cell_of_a_remedys_own_begins_anew():
    rerun = Rerun(STUDENT, explained(), "click")
    assert (False, ()) == (rerun.continues, rerun.lineage.outcomes)


def test_a_rerun_is_found_by_its_identity_whatever_the_page_made_of_the_text():
    register = Register()
    rerun = register.announce(Rerun(HALF, explained(), "click"))
    assert rerun is register.take("fit(128)  # as the page sent it", rerun.identity)


def test_a_rerun_is_found_once():
    register = Register()
    rerun = register.announce(Rerun(HALF, explained(), "click"))
    assert [rerun, None, None] == [
        register.take(CHANGED, rerun.identity),
        register.take(CHANGED, rerun.identity),
        register.take(CHANGED),
    ]


def test_of_two_reruns_with_the_same_text_the_identity_tells_which_is_meant():
    register = Register()
    first, second = (register.announce(Rerun(HALF, explained(), "click")) for _ in range(2))
    assert first is register.take(CHANGED, first.identity)
    assert second is register.take(CHANGED, second.identity)


def test_what_we_run_ourselves_is_known_without_a_message():
    register = Register()
    rerun = Rerun(HALF, explained(), "call")
    register.make_due(rerun)
    assert rerun is register.take(CHANGED)


def test_another_cell_in_between_is_not_what_is_due():
    register = Register()
    register.make_due(Rerun(HALF, explained(), "call"))
    assert register.take("1 + 1") is None


def test_what_was_due_and_did_not_run_is_forgotten():
    register = Register()
    register.make_due(Rerun(HALF, explained(), "call"))
    register.not_due()
    assert register.take(CHANGED) is None


@pytest.mark.parametrize("pasted", [CHANGED, CHANGED + "\n\n", "fit(128)"])
def test_a_pasted_copy_is_known_by_its_text(pasted):
    register = Register()
    register.announce_copies((HALF,), explained())
    assert "copy" == register.take(pasted).how


def test_a_choice_of_a_proposal_is_known_too_and_the_cell_as_it_is_is_not():
    register = Register()
    chosen = Proposal("x", "", CELL, CELL, "", choices=(Choice("other", "fit(64)"),))
    register.announce_copies((chosen,), explained())
    assert "fit(64)" == register.take("fit(64)").source
    assert register.take(CELL) is None


def test_a_cell_of_a_remedys_own_stays_one_however_often_it_runs():
    register = Register()
    register.announce_copies((STUDENT,), explained())
    assert [False, False] == [register.take("%%tfmem\nstudent()").continues for _ in range(2)]


def test_the_run_that_a_rerun_became_is_given_once():
    register = Register()
    rerun = Rerun(HALF, explained(), "call")
    live = Live(rerun.run)
    register.make_due(rerun)
    register.begun(live)
    register.finished(live)
    assert [live, None] == [register.taken_up(rerun), register.taken_up(rerun)]


def test_a_new_run_supersedes_those_of_its_cell_only():
    register = Register()
    mine, theirs = Live(explained("a")), Live(explained("b"))
    register.finished(mine)
    register.finished(theirs)
    register.supersede("a")
    assert ("superseded", "offered") == (mine.run.state, theirs.run.state)


def test_where_the_cell_has_no_name_all_are_superseded_once():
    register = Register()
    live = Live(explained())
    register.finished(live)
    register.supersede(None)
    register.supersede(None)
    assert ["superseded"] == live.frozen


def test_only_so_many_runs_and_reruns_are_remembered():
    register = Register()
    lives = [Live(explained()) for _ in range(KEPT_RUNS + 1)]
    reruns = [Rerun(HALF, live.run, "click", f"fit({number})") for number, live in enumerate(lives)]
    for live, rerun in zip(lives, reruns):
        register.finished(live)
        register.announce(rerun)
    assert (None, lives[-1]) == (register.of(lives[0].run), register.of(lives[-1].run))
    assert register.take("fit(0)", reruns[0].identity) is None
