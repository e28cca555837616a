"""A step back up after a smaller batch fitted: it says what the smaller batch still changes."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts
from tf_mem_magic.core.proposals import Context
from tf_mem_magic.core.recording import Cell, Recording, Series
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
