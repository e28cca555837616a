"""Effects become estimates in one place; what saves nothing is declined; what does not fit comes last."""

from dataclasses import replace

import pytest

from tests.diagnose.room import test_pieces as pieces
from tests.diagnose.test_expected import BATCH, MIB, WEIGHT, failed
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.proposals import Context, Declined, Estimate, Proposal
from tf_mem_magic.core.recording import Cell, Frame
from tf_mem_magic.diagnose.room.batches import batch_to_try
from tf_mem_magic.diagnose.room.pieces import room_for
from tf_mem_magic.memory.forecast import updating_from_sums
from tf_mem_magic.remedies._engine.estimating import with_estimate, with_what_is_done
from tf_mem_magic.remedies._engine.ranking import combine, propose_all
from tf_mem_magic.remedies.accumulate_gradients import remedy

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


ACCUMULATES = {
    "in compile": 'm.compile(Adam(gradient_accumulation_steps=4), "mse")\n',
    "by a call": "apply.accumulate_gradients(m, 4)\n",
    "in an optimizer": "opt = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)\nm.compile(opt)\n",
}


@pytest.mark.parametrize("name", ACCUMULATES)
def test_where_the_cell_accumulates_already_a_smaller_batch_takes_its_update_too(name):
    text = CELL.replace("m.fit", f"{ACCUMULATES[name]}m.fit")
    estimates = []
    for source in (CELL, text):
        known = context(20 * MIB, source)
        known = replace(known, diagnosis=replace(known.diagnosis, line=source.count("\n") + 1))
        smaller = next(a for a in propose_all(known) if a.key == "smaller-batch")
        estimates.append(with_estimate(proposal(effect=Effect(batch=(BATCH, 1))), with_what_is_done(known)).estimate)
        assert smaller.estimate is not None
        assert smaller.effect.batch[1] >= BATCH // 8
    low, high = updating_from_sums([WEIGHT] * 8)
    plain, summed = estimates
    assert plain.high < 8 * WEIGHT + high <= summed.high
    assert plain.low < 8 * WEIGHT + low <= summed.low


@pytest.mark.parametrize("text", ["# gradient_accumulation_steps=4\n", "print('accumulate_gradients(m, 4)')\n"])
def test_words_about_accumulation_are_none(text):
    known = context(20 * MIB, CELL.replace("m.fit", f"{text}m.fit"))
    assert not with_what_is_done(known).applied.sums


def test_a_remedy_that_cannot_tell_what_is_done_leaves_the_others_working(monkeypatch):
    def fails(_):
        raise RuntimeError

    monkeypatch.setattr(remedy, "done_already", fails)
    assert any(isinstance(answer, Proposal) for answer in propose_all(context()))


@pytest.mark.parametrize("keys", [("smaller-batch",), ("smaller-batch", "mixed-precision"), ("xla", "smaller-batch")])
def test_what_is_done_already_is_counted_once(monkeypatch, keys):
    asked = []
    monkeypatch.setattr(remedy, "done_already", lambda known: asked.append(known) or Effect(released=MIB))
    combine(context(), keys)
    assert [known.applied.released for known in asked] == [0]


def in_pieces(**known):
    """A run that ran out at a batch of 128, in a pool that lies in pieces."""
    recording, diagnosis = pieces.failed(**known)
    cell = Cell("%%tfmem\nm.fit(x, y, batch_size=128)")
    return Context(cell, replace(recording, cell=cell), replace(diagnosis, line=2))


def test_what_finds_room_only_in_a_fresh_kernel_takes_effect_there_and_says_why():
    found = with_estimate(proposal(effect=Effect(batch=(128, 16))), in_pieces())
    assert found.takes_effect == "restart"
    assert "pieces of at most 16.0 MiB, with 11.0 of the device left to take" in found.caveats[0]
    assert [(one.label, one.source, one.takes_effect) for one in found.choices] == [
        ("Without a restart", "new", "rerun")
    ]


def test_where_two_buffers_at_once_have_no_room_one_operation_runs_at_a_time():
    found = with_estimate(proposal(effect=Effect(batch=(128, 16))), in_pieces())
    assert found.environment == (("TF_NUM_INTEROP_THREADS", "1"),)
    assert "one operation run at a time" in found.caveats[-1]


def test_what_finds_room_in_the_pieces_that_there_are_takes_no_restart():
    found = with_estimate(proposal(effect=Effect(batch=(2048, 16))), in_pieces(limit=90 * MIB, batch=2048))
    assert (found.takes_effect, found.caveats) == ("rerun", ())


@pytest.mark.parametrize(("limit", "batch"), [(51, 96), (52, 16), (60, 16)])
def test_what_is_likely_to_find_room_here_takes_no_restart_and_is_not_said_to_fit_for_sure(limit, batch):
    """Restarts for it fitted no more often than the same change in the kernel that had failed."""
    found = with_estimate(proposal(effect=Effect(batch=(128, batch))), in_pieces(limit=limit * MIB))
    assert (found.takes_effect, found.environment) == ("rerun", ())
    assert "may not both find room" in found.caveats[0]
    assert found.estimate.word(400 * MIB) == "likely"


def test_of_what_ran_out_in_a_thread_beside_others_no_peak_is_told_and_the_batch_is_halved():
    known = in_pieces(limit=90 * MIB, batch=2048)
    change = proposal(effect=Effect(batch=(2048, 16)))
    error = known.recording.errors[0]
    frames = (*error.frames, Frame("/lib/python3.12/concurrent/futures/thread.py", 58, "run"))
    threaded = replace(known.recording, errors=(replace(error, frames=frames),))
    assert with_estimate(change, known).estimate is not None
    assert with_estimate(change, replace(known, recording=threaded)).estimate is None
    assert batch_to_try(known.recording, known.diagnosis, 2048, 2048) is not None
    assert batch_to_try(threaded, known.diagnosis, 2048, 2048) is None


def test_what_finds_room_nowhere_comes_after_what_may():
    found = with_estimate(
        proposal(effect=Effect(batch=(128, 64))), in_pieces(limit=20 * MIB, regions=(2 * MIB, 4 * MIB, 8 * MIB))
    )
    assert (found.takes_effect, found.doubtful) == ("rerun", True)


@pytest.mark.parametrize(("limit", "released"), [(16, 22), (18, 22), (20, 18), (20, 22)])
@pytest.mark.parametrize("regions", [(2, 4, 8), (2, 4, 8, 16)])
def test_what_finds_room_nowhere_is_not_said_to_fit_however_few_bytes_it_takes(limit, released, regions):
    known = in_pieces(limit=limit * MIB, regions=tuple(one * MIB for one in regions))
    effect = Effect(batch=(128, 1), released=released * MIB)
    assert room_for(known.recording, known.diagnosis, effect) == "nowhere"
    found = with_estimate(proposal(effect=effect), known)
    assert "largest buffer" in found.caveats[-1]
    bytes_alone = replace(found.estimate, in_pieces=False)
    assert bytes_alone.word(limit * MIB) in ("fits", "likely")
    assert found.estimate.word(limit * MIB) == "tight"


def test_a_smaller_batch_in_a_pool_in_pieces_is_offered_with_a_restart():
    smaller = next(a for a in propose_all(in_pieces()) if a.key == "smaller-batch")
    assert smaller.takes_effect == "restart"
