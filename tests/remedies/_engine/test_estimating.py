"""Effects become estimates in one place; what saves nothing is declined; what does not fit comes last."""

from dataclasses import replace

import pytest

from tests.diagnose.test_expected import BATCH, MIB, WEIGHT, failed
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.proposals import Context, Declined, Estimate, Proposal
from tf_mem_magic.core.recording import Cell
from tf_mem_magic.remedies._engine.estimating import with_estimate
from tf_mem_magic.remedies._engine.ranking import combine, propose_all

CELL = f"%%tfmem\nm.fit(x, y, batch_size={BATCH}, epochs=2)"


def context(limit=16 * MIB, source=CELL):
    recording, diagnosis = failed(limit=limit)
    cell = Cell(source)
    return Context(cell, replace(recording, cell=cell), replace(diagnosis, line=2))


def proposal(**known):
    return Proposal("key", "Title", "new", "old", "same results", **known)


def test_a_known_effect_becomes_an_estimate():
    found = with_estimate(proposal(effect=Effect(batch=(BATCH, BATCH // 4))), context())
    assert isinstance(found, Proposal)
    assert 8 * WEIGHT < found.estimate.low < found.estimate.high
    assert f"batch {BATCH // 4}" in found.estimate.basis


def test_an_estimate_from_measured_runs_stays():
    measured = Estimate(1, 2, "measured")
    found = with_estimate(proposal(estimate=measured, effect=Effect(batch=(BATCH, 1))), context())
    assert found.estimate == measured


def test_without_an_effect_nothing_is_estimated():
    assert with_estimate(proposal(), context()) == proposal()


def test_what_saves_nothing_is_declined_with_the_number():
    found = with_estimate(proposal(effect=Effect(slots=0)), context())
    assert isinstance(found, Declined)
    assert "MiB" in found.reason


@pytest.mark.parametrize("limit", [12 * MIB, 16 * MIB])
def test_the_smaller_batch_is_the_largest_that_is_expected_to_fit(limit):
    answers = propose_all(context(limit))
    (smaller,) = (a for a in answers if a.key == "smaller-batch")
    assert isinstance(smaller, Proposal)
    assert smaller.estimate.high <= limit
    assert smaller.effect.batch[1] >= BATCH // 8


def test_what_the_step_says_does_not_fit_comes_after_what_may():
    answers = [a for a in propose_all(context(8 * WEIGHT + 2 * MIB)) if isinstance(a, Proposal) and not a.new_cell]
    limit = 8 * WEIGHT + 2 * MIB
    words = [a.estimate.word(limit) == "no" for a in answers if a.estimate is not None]
    assert words == sorted(words)


def test_two_changes_at_once_have_one_estimate_of_both():
    known = context()
    one = next(a for a in propose_all(known) if a.key == "smaller-batch")
    both = combine(known, ("smaller-batch", "accumulate-gradients"))
    if isinstance(both, Proposal) and both.effect is not None:
        assert both.estimate is not None
    assert one.estimate is not None
