"""When ``%%tfmem --trace`` traces, what it counts, and what it leaves alone."""

from __future__ import annotations

import pytest

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.recording import Series
from tf_mem_magic.core.step import TracedSteps
from tf_mem_magic.facts.fit import Progress
from tf_mem_magic.record.step_trace import StepTrace, steps_between, with_limit


@pytest.mark.parametrize(
    "code",
    [
        "tf.profiler.experimental.start(folder)",
        "from tensorflow import profiler",
        "keras.callbacks.TensorBoard(folder, profile_batch=(2, 4))",
    ],
)
def test_a_notebook_that_runs_the_profiler_itself_is_not_traced(code):
    trace = StepTrace(("model.fit(x, y)", code))
    trace.start(0)
    trace.stop()
    said = "the notebook runs a profiler itself; were it TensorFlow's, a second one would be refused"
    assert (trace.is_wanted, trace.tell(Facts(), {}, False).why_not) == (False, said)


def test_a_profile_of_something_else_does_not_matter():
    assert StepTrace(("import cProfile\nprofile = user.profile.name\nprofiler_name = 1",)).is_wanted


def test_a_run_without_tensorflow_ends_without_a_trace(tmp_path):
    trace = StepTrace(("1 + 1",), tmp_path / "folder")
    trace.start(0)
    trace.stop()
    trace.stop()
    assert "a trace begins after the first step of a `fit`" in trace.tell(Facts(), {}, False).why_not
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "now", "steps"),
    [
        (None, Progress(0, 5), 0),
        (Progress(0, 5), Progress(0, 7), 2),
        (Progress(0, 99), Progress(1, 0), 1),
        (Progress(0, 99), Progress(1, 3), 4),
        (Progress(0, 5), Progress(), 0),
        (Progress(3, 5), Progress(0, 1), 1),
    ],
)
def test_steps_between_two_looks_at_a_fit_are_counted(before, now, steps):
    assert steps_between(before, now) == steps


def test_a_traced_allocator_tells_its_limit_where_nobody_else_does():
    traced, plain = TracedSteps("GPU:0", limit=500), Series("allocator:GPU:0")
    assert (with_limit(plain, traced).limit, with_limit(plain, traced).limit_basis) == (500, "trace")
    known = Series("allocator:GPU:0", limit=400, limit_basis="configured")
    assert with_limit(known, traced) == known
    assert with_limit(Series("device:GPU:0"), traced).limit is None
