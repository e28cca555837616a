"""The order of what is offered: what fits first, alone or two together; of what does not, what comes nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.proposals import Choice, Context, Estimate, Proposal
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.explain import explain
from tf_mem_magic.remedies._engine import ranking

FOLDER = Path(__file__).resolve().parents[2] / "data" / "situations"
LIMIT = 1000


def one(key, low=None, high=None, **given):
    estimate = None if low is None else Estimate(low, high, "told")
    return Proposal(key, key, "b", "a", given.pop("preserves", "same results"), estimate, **given)


def ordered(*proposals):
    diagnosis = Diagnosis("CPU:0", 10, in_use=900, limit=LIMIT)
    cell = Cell("%%tfmem\nf()")
    rank = ranking._ranking(Context(cell, Recording(cell, status="oom"), diagnosis))
    return [proposal.key for proposal in sorted(proposals, key=rank)]


@pytest.mark.parametrize(
    ("proposals", "keys"),
    [
        # However little the others change: what fits is first.
        ((one("no", 1100, 1200), one("fits", 400, 500, preserves="nothing")), ["fits", "no"]),
        ((one("tight", 900, 1100), one("restart", 700, 990, takes_effect="restart")), ["restart", "tight"]),
        # What is made for the cause is not first where its own estimate says that it is not enough.
        ((one("cause", 900, 1100, answers_cause=True), one("fits", 1, 2, preserves="nothing")), ["fits", "cause"]),
        ((one("cause", 1100, 1200, answers_cause=True), one("tight", 900, 1100)), ["tight", "cause"]),
        ((one("plain", 1, 2), one("cause", answers_cause=True)), ["cause", "plain"]),
        # Of what does not fit, the nearest; of what is not known, what may fit.
        ((one("far", 2000, 2100), one("near", 1001, 1300, preserves="nothing")), ["near", "far"]),
        ((one("no", 1001, 1002), one("unknown", preserves="nothing")), ["unknown", "no"]),
        # In pieces that are too small a number of bytes does not decide.
        ((one("pieces", 10, 20, doubtful=True), one("likely", 950, 990, preserves="nothing")), ["likely", "pieces"]),
    ],
)
def test_what_fits_is_first_and_then_what_comes_nearest(proposals, keys):
    assert ordered(*proposals) == keys


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_first_button_is_never_one_that_is_said_not_to_fit_beside_one_that_is(path):
    outcome = explain(decode(path.read_bytes(), Recording))
    limit = outcome.diagnosis.limit if outcome.diagnosis is not None else None
    words = [p.estimate.word(limit) if p.estimate is not None and limit else "" for p in outcome.edits]
    order = {"fits": 0, "likely": 0, "tight": 1, "": 1, "no": 2}
    assert [order[word] for word in words[:1]] == sorted(order[word] for word in words)[:1]


@pytest.mark.parametrize(
    ("waits", "first"),
    [
        ({"takes_effect": "restart", "choices": (Choice("Here", "b", is_whole=True),)}, "free+batch"),
        ({"takes_effect": "restart", "choices": (Choice("From epoch 3", "b"),)}, None),
        ({"takes_effect": "restart"}, None),
        ({}, "free+batch"),
    ],
)
def test_a_change_that_waits_for_a_fresh_kernel_can_be_one_of_two(monkeypatch, waits, first):
    free = one("free", 1100, 1300, effect=Effect(released=1))
    batch = one("batch", 1100, 1200, effect=Effect(batch=(8, 4)), **waits)
    known = {p.key: p for p in (free, batch)}
    monkeypatch.setattr(ranking, "_one_after_another", lambda context, keys: [known[key] for key in keys])
    monkeypatch.setattr(ranking, "merge", lambda steps, key, title: one(key, 500, 600))
    monkeypatch.setattr(ranking, "with_estimate", lambda answer, context: answer)
    cell = Cell("%%tfmem\nf()")
    context = Context(cell, Recording(cell, status="oom"), Diagnosis("CPU:0", 10, in_use=900, limit=LIMIT))
    found = ranking._together(context, [free, batch])
    assert (found.key if found is not None else None) == first


@pytest.mark.parametrize(
    ("peaks", "first"),
    [
        ({"batch": (930, 990), "sums": (500, 800)}, "free+sums"),
        ({"batch": (500, 800), "sums": (400, 500)}, "free+batch"),
        ({"batch": (930, 990), "sums": (900, 1100)}, "free+batch"),
        ({"batch": (900, 1100), "sums": (930, 990)}, "free+sums"),
        ({"batch": (1100, 1200), "sums": (1001, 1300)}, None),
    ],
)
def test_two_changes_that_leave_room_come_before_two_that_only_just_fit(monkeypatch, peaks, first):
    free = one("free", 1100, 1300, effect=Effect(released=1))
    smaller = [one(key, 1100, 1200, effect=Effect(batch=(8, 4))) for key in peaks]
    known = {p.key: p for p in (free, *smaller)}
    monkeypatch.setattr(ranking, "_one_after_another", lambda context, keys: [known[key] for key in keys])
    monkeypatch.setattr(ranking, "merge", lambda steps, key, title: one(key, *peaks[steps[-1].key]))
    monkeypatch.setattr(ranking, "with_estimate", lambda answer, context: answer)
    cell = Cell("%%tfmem\nf()")
    context = Context(cell, Recording(cell, status="oom"), Diagnosis("CPU:0", 10, in_use=900, limit=LIMIT))
    found = ranking._together(context, [free, *smaller])
    assert (found and found.key) == first
