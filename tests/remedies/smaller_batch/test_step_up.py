"""A step back up after a smaller batch fitted: it says what the smaller batch still changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.diagnose.test_expected import BATCH, failed
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.remedies.smaller_batch.step_up import step_up

MIB = 1 << 20
CELL = "model.fit(x, y, batch_size=256)\n"


def stepped(*layers, schedule=None, peak=30):
    model = ModelFacts("model", ("Dense", *layers), schedule=schedule)
    facts = Facts(tensorflow="2.21.0", keras="3.15.1", models=(model,), batches=(BatchSeen("fit", 256, "arrays"),))
    full = Recording(Cell(CELL), status="oom", facts=facts)
    series = (Series("allocator:GPU:0", (0.0,), (peak * MIB,), peak=peak * MIB, peak_basis="counter", limit=100 * MIB),)
    seen = (BatchSeen("fit", 64, "arrays"),)
    smaller = Cell(CELL.replace("256", "64"))
    fitted = Recording(smaller, status="ok", series=series, facts=Facts(models=(model,), batches=seen))
    return step_up(Context(Cell(CELL), full, Diagnosis("GPU:0", limit=100 * MIB, line=1)), fitted)


@pytest.mark.parametrize(
    ("layers", "schedule", "caveat"),
    [
        ((), None, "Each epoch takes more steps."),
        (("BatchNormalization",), None, "BatchNormalization computes its statistics from smaller batches."),
        ((), "ExponentialDecay", "The learning-rate schedule counts steps, so it moves on faster."),
    ],
)
def test_a_batch_between_the_two_still_is_a_smaller_one(layers, schedule, caveat):
    larger = stepped(*layers, schedule=schedule)
    assert larger.title == "Batch 192"
    assert caveat in larger.caveats


def test_without_room_there_is_no_step_up():
    assert stepped(peak=80) is None


def from_a_known_step(share, by=1.0, limit=14 * MIB):
    """Give the step up after a quarter of the batch fitted, where the step that ran out is known, and the peak.

    The peak lies at a ``share`` of the range that was told, times ``by``.
    """
    recording, diagnosis = failed(limit=limit)
    cell = Cell(f"model.fit(x, y, batch_size={BATCH})\n")
    facts = replace(recording.facts, batches=(BatchSeen("fit", BATCH, "arrays"),), keras="3.15.1")
    full = replace(recording, cell=cell, facts=facts)
    told = expected(full, diagnosis, Effect(batch=(BATCH, BATCH // 4)))
    peak = int((told.low + share * (told.high - told.low)) * by)
    series = (Series("allocator:CPU:0", (0.0,), (peak,), peak=peak, peak_basis="counter", limit=limit),)
    smaller = replace(facts, batches=(BatchSeen("fit", BATCH // 4, "arrays"),))
    fitted = Recording(Cell(f"model.fit(x, y, batch_size={BATCH // 4})\n"), status="ok", series=series, facts=smaller)
    return step_up(Context(cell, full, diagnosis), fitted), peak


@pytest.mark.parametrize("limit", [12, 14, 18])
def test_where_the_step_is_known_the_peak_grows_by_what_its_operations_take_more(limit):
    larger, peak = from_a_known_step(0.5, limit=limit * MIB)
    ((_, batch),) = larger.expects
    assert batch > BATCH // 4
    assert batch % 8 == 0
    assert peak < larger.estimate.high <= min(limit * MIB, peak * batch // (BATCH // 4))
    assert "what the step's own operations take more" in larger.estimate.basis


def test_a_peak_that_was_low_by_chance_is_not_taken_for_the_usual_one():
    (usual, peak), (lucky, low) = (from_a_known_step(0.5, by, 30 * MIB) for by in (1, 0.85))
    assert low < 0.86 * peak
    assert usual.title == lucky.title
    assert 0.9 * usual.estimate.high < lucky.estimate.high < usual.estimate.high


def test_after_a_peak_higher_than_told_the_step_is_shorter():
    (usual, _), (higher, _) = (from_a_known_step(1, by, 18 * MIB) for by in (0.9, 1.15))
    assert higher is None or dict(higher.expects)["batch"] <= dict(usual.expects)["batch"]
