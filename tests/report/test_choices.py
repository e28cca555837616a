"""What can be clicked, in words."""

from __future__ import annotations

import dataclasses

import pytest

from tests import gallery
from tf_mem_magic.core.diagnosis import Situation
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Estimate, Proposal
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.core.units import GIB
from tf_mem_magic.report.choices import choice_view, declined_view, not_offered, nothing_fits


@pytest.mark.parametrize(
    ("low", "high", "word"), [(1, 8, "fits"), (1, 9.5, "likely"), (9, 11, "tight"), (11, 12, "no")]
)
def test_an_estimate_has_a_range_and_a_word(low, high, word):
    proposal = Proposal("k", "t", "", "", "nothing", Estimate(int(low * GIB), int(high * GIB), "points"))
    series = Series("allocator:GPU:0", (), (), 10 * GIB, "counter", 10 * GIB)
    expected = choice_view(proposal, Outcome(Recording(Cell("x = 1"), 1.0, (series,)))).expected
    assert (expected.range, expected.word) == (f"{low:.1f}–{high:.1f} GiB", word)


def test_a_proposal_without_an_estimate_has_none():
    assert choice_view(gallery.proposals()[1], gallery.out_of_memory()).expected is None


def test_what_is_kept_is_said_in_plain_words():
    keeps = [choice_view(proposal, gallery.out_of_memory()).keeps for proposal in gallery.proposals()]
    assert keeps == ["other gradients", "slightly different numbers", "same results"]


def test_a_restart_is_a_cost_beside_the_button():
    slow = dataclasses.replace(gallery.proposals()[2], cost="slower on CPU")
    assert choice_view(slow, gallery.out_of_memory()).cost == "slower on CPU, restarts the kernel"


def test_what_is_not_offered_is_a_count():
    assert (not_offered(gallery.DECLINED), not_offered(())) == ("3 not offered", "")


def test_what_can_be_had_under_other_settings_is_a_choice_of_its_own():
    declined = dataclasses.replace(gallery.DECLINED[0], settings=gallery.proposals()[0])
    assert declined_view(declined, gallery.out_of_memory()).settings.button == "Batch 128"


def test_what_is_kept_is_true_of_a_prediction_and_of_a_new_cell_too():
    predicted = Proposal("outputs-to-host", "In parts", "b", "a", "same results")
    pruned = Proposal("prune", "Prune", "b", "a", "nothing", new_cell=True)
    kept = [choice_view(proposal, gallery.out_of_memory()).keeps for proposal in (predicted, pruned)]
    assert kept == ["same results", "another model; yours stays as it is"]


def offered(*ranges):
    outcome = gallery.out_of_memory()
    limit = outcome.diagnosis.limit
    estimates = [None if one is None else Estimate(int(one[0] * limit), int(one[1] * limit), "told") for one in ranges]
    plain = gallery.proposals()[0]
    proposals = tuple(dataclasses.replace(plain, estimate=one, new_cell=False) for one in estimates)
    return dataclasses.replace(outcome, offered=proposals)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        (((1.2, 1.4),), "The change that is offered is not expected to fit."),
        (((1.1, 1.2), (1.5, 2)), "No change that is offered is expected to fit; the first comes nearest."),
        (((0.9, 1.2), (1.5, 2)), ""),
        (((0.5, 0.6),), ""),
        ((None, (1.5, 2)), ""),
    ],
)
def test_where_nothing_fits_it_is_said_in_a_sentence(ranges, said):
    assert nothing_fits(offered(*ranges)) == said


def test_what_is_to_be_done_by_hand_says_enough():
    outcome = offered((1.2, 1.4))
    situation = Situation("one-sample", "One sample alone needs it.", "Cut it into parts.")
    told = dataclasses.replace(outcome, diagnosis=dataclasses.replace(outcome.diagnosis, situation=situation))
    assert nothing_fits(told) == ""
