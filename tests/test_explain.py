from __future__ import annotations

from dataclasses import replace

import pytest

from tf_mem_magic.core.facts import BatchSeen, DeviceFacts, Facts, ModelFacts, NamedValue, TracedFacts
from tf_mem_magic.core.lineage import Lineage, measured_of
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Point
from tf_mem_magic.core.recording import Cell, ErrorText, FailedRequest, Frame, Recording, Series
from tf_mem_magic.core.step import StepFacts
from tf_mem_magic.explain import AFTER_XLA, combined, explain

MIB = 1 << 20
CELL = "%%tfmem\nmodel.fit(x, y, batch_size=64)"
TEXT = (
    "OOM when allocating tensor with shape[64,1024] and type float on "
    "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc"
)


def oom(message=TEXT, **facts):
    error = ErrorText("ResourceExhaustedError", message, (Frame("c.py", 2, "<module>", True, True),),
                      ("tensorflow.python.framework.errors_impl.ResourceExhaustedError",))  # fmt: skip
    series = Series("allocator:GPU:0", (0.0, 1.0), (MIB, 90 * MIB), 95 * MIB, "counter", 100 * MIB, "configured")
    return Recording(Cell(CELL), 1.0, (series,), "oom", (error,), facts=Facts(initialised=True, **facts))


def test_a_cell_that_went_well_needs_no_remedies():
    outcome = explain(Recording(Cell("%%tfmem\n1")))
    assert (outcome.diagnosis, outcome.proposals, outcome.changes) == (None, (), ())


def test_an_out_of_memory_gets_a_diagnosis_and_remedies():
    outcome = explain(oom())
    assert outcome.diagnosis.device == "GPU:0"
    assert [p.key for p in outcome.offered][:1] == ["smaller-batch"]
    assert "memory-growth" in {d.key for d in outcome.declined}


def test_after_xla_the_restart_comes_first_and_the_rerun_stays_possible():
    outcome = explain(oom("Out of memory while trying to allocate 942.65MiB."))
    first = outcome.offered[0]
    assert first.takes_effect == "restart"
    assert "XLA" in " ".join(first.caveats)
    assert [(c.label, c.source) for c in first.choices][-1] == ("Without a restart", first.source)


BOTH = ("smaller-batch", "mixed-precision")


def trained(message=TEXT, cell=CELL, **more):
    """A run that failed while it validated the first of three epochs, on a model of an earlier cell."""
    model = ModelFacts("model", ("Dense",), weight_bytes=MIB, steps=5, steps_before=0, kept=True, device="GPU:0")
    run = oom(message, keras="3.15.1", tensorflow="2.21.0", models=(model,), epochs_done=0, validating=True, **more)
    return replace(run, cell=Cell(cell.replace("batch_size=64", "batch_size=64, epochs=3")))


def test_combined_remedies_go_on_or_start_again_like_single_ones():
    outcome = explain(trained())
    both = combined(outcome, BOTH)
    single = next(p for p in outcome.offered if p.key == "smaller-batch")
    assert (
        ["Continue from epoch 2", "Start again"] == [c.label for c in both.choices] == [c.label for c in single.choices]
    )
    assert ["initial_epoch=1" in c.source and "batch_size=32" in c.source for c in both.choices] == [True, False]
    assert "apply.mixed_precision(model" in both.choices[1].source
    assert "apply.start_again(model)" in both.choices[1].source


def test_combined_remedies_restart_first_after_xla_like_single_ones():
    both = combined(explain(trained("Out of memory while trying to allocate 942.65MiB.")), BOTH)
    assert ("restart", AFTER_XLA) == (both.takes_effect, both.caveats[-1])
    assert ("Without a restart", both.source, "rerun") == (
        both.choices[-1].label,
        both.choices[-1].source,
        both.choices[-1].takes_effect,
    )


def test_combined_with_a_restart_there_is_no_training_to_go_on_with():
    card = DeviceFacts("GPU:0", compute_capability=(8, 0), growth=False, total=100 * MIB, others=(), uuid="GPU-0")
    both = combined(explain(trained(devices=(card,))), ("smaller-batch", "memory-growth"))
    assert ("restart", ()) == (both.takes_effect, both.choices)


def test_what_is_reachable_under_other_settings_is_completed_too():
    values = (NamedValue("z", 2 * MIB, "tf.Tensor", "GPU:0"),)
    declined = next(d for d in explain(trained(values=values)).declined if d.key == "free-leftovers")
    assert ["Continue from epoch 2", "Start again"] == [c.label for c in declined.settings.choices]


OLD = ModelFacts("old", weight_bytes=20 * MIB, steps=3, steps_before=3, device="GPU:0")
NOW = ModelFacts("model", weight_bytes=MIB, steps_before=0, device="GPU:0")


def test_combined_with_another_change_a_model_can_still_be_saved_first():
    both = combined(explain(oom(models=(OLD, NOW))), ("free-leftovers", "smaller-batch"))
    (saving,) = [c.source for c in both.choices]
    assert saving.endswith('apply.free("old", save={"old": "old.keras"})\nmodel.fit(x, y, batch_size=32)')
    assert (True, ()) == (both.asks, both.picks)


def test_what_was_ticked_is_what_is_combined():
    values = tuple(NamedValue(name, 20 * MIB, "tf.Tensor", "GPU:0") for name in ("a", "b"))
    outcome = explain(oom(values=values))
    keys = ("free-leftovers", "smaller-batch")
    for order in (keys, keys[::-1]):
        assert 'apply.free("b")\nmodel.fit(x, y, batch_size=32)' in combined(outcome, order, picked=("b",)).source
    assert 'apply.free("a", "b")' in combined(outcome, keys).source
    assert "nothing is ticked" in combined(outcome, keys, picked=()).reason


def test_a_rerun_is_compared_with_the_run_before():
    before = explain(oom())
    lineage = Lineage().finished(before).applying(before.offered[0])
    series = replace(before.recording.series[0], peak=50 * MIB, values=(MIB, 50 * MIB))
    after = explain(replace(before.recording, status="ok", errors=(), series=(series,)), lineage)
    assert after.comparison.key == "smaller-batch"
    assert (after.comparison.before.peak, after.comparison.after.peak) == (95 * MIB, 50 * MIB)
    assert [a.status for a in after.history] == ["oom", "ok"]


def test_what_a_run_leaves_behind_is_named_only_where_the_counter_confirms_it():
    facts = Facts(
        models=(ModelFacts("model", weight_bytes=30 * MIB, optimizer_bytes=60 * MIB, device="GPU:0"),),
        values=(
            NamedValue("history", 2 * MIB, "Tensor", "GPU:0", "cell"),
            NamedValue("old", 9 * MIB, "Tensor", "GPU:0"),
        ),
    )
    series = Series("allocator:GPU:0", (0.0,), (0,), 0, "counter")
    run = Recording(Cell("%%tfmem\n1"), series=(series,), facts=facts)
    grown = replace(run, before=(("allocator:GPU:0", 0),), after=(("allocator:GPU:0", 92 * MIB),))
    assert explain(grown).leftovers == (("model", 90 * MIB), ("history", 2 * MIB))
    assert explain(run).leftovers == ()


def test_a_line_is_counted_as_the_person_sees_the_cell():
    run = oom()
    frame = replace(run.errors[0].frames[0], line=1)
    errors = (replace(run.errors[0], frames=(frame,)),)
    cell = Cell("%%tfmem\n%%time\nmodel.fit(x, y, batch_size=64)")
    outcome = explain(replace(run, cell=cell, errors=errors))
    assert outcome.diagnosis.line == 3
    assert "Line 3 of your cell: model.fit" in outcome.diagnosis.text
    assert outcome.offered[0].source != cell.source


def fitted(batch, peak, cell=CELL, before=MIB):
    run = oom()
    series = (replace(run.series[0], peak=peak, values=(before, peak)),)
    facts = replace(run.facts, batches=(BatchSeen("fit", batch, "arrays"),))
    source = cell.replace("64", str(batch))
    known = replace(run, cell=Cell(source), status="ok", errors=(), series=series, facts=facts)
    return measured_of(Outcome(replace(known, before=(("allocator:GPU:0", before),))))


def failed(batch=64):
    run = oom(batches=(BatchSeen("fit", batch, "arrays"),))
    return replace(run, before=(("allocator:GPU:0", MIB),))


def test_runs_that_differed_only_in_the_batch_give_an_estimate():
    measured = (fitted(8, 20 * MIB), fitted(16, 33 * MIB))
    batch = next(p for p in explain(failed(), measured=measured).offered if p.key == "smaller-batch")
    assert batch.title == "Batch 32"
    assert batch.estimate.low < 59 * MIB < batch.estimate.high
    assert "batch 8" in batch.estimate.basis


@pytest.mark.parametrize(
    "other",
    [
        fitted(16, 33 * MIB, cell=CELL.replace("fit(x", "fit(z")),
        fitted(16, 33 * MIB, before=9 * MIB),
    ],
)
def test_runs_of_another_cell_or_from_another_start_are_no_points(other):
    measured = (fitted(8, 20 * MIB), other)
    batch = next(p for p in explain(failed(), measured=measured).offered if p.key == "smaller-batch")
    assert batch.estimate is None


def test_garbage_that_a_rerun_starts_without_is_not_counted():
    model = ModelFacts("model", ("Dense",), weight_bytes=MIB, device="GPU:0")
    begun = replace(failed(), before=(("allocator:GPU:0", 9 * MIB),))
    begun = replace(begun, facts=replace(begun.facts, models=(model,)), garbage=(("allocator:GPU:0", 8 * MIB),))
    assert measured_of(Outcome(begun)).before == MIB


def test_a_number_that_is_not_the_batch_is_not_blanked():
    assert (
        fitted(8, MIB, cell=CELL + "\nlayer = Dense(128)").cell
        != fitted(128, MIB, cell=CELL + "\nlayer = Dense(128)").cell
    )


def test_a_cell_that_builds_its_model_is_compared_from_wherever_it_started():
    this, other = (
        replace(fitted(batch, peak, before=before), models=(("model", MIB),), builds=True)
        for batch, peak, before in ((64, 90 * MIB, 9 * MIB), (16, 33 * MIB, MIB))
    )
    assert other.beside(this) == Point(16, 41 * MIB, True)
    assert other.beside(replace(this, builds=False)) is None


REQUEST = FailedRequest("GPU_0_bfc", 256 * MIB, "Relu")


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ((REQUEST,), "Memory ran out on GPU:0, and the error stayed in your code, a library or a thread: a request of 256 MiB for Relu got no memory."),
        (
            (REQUEST, replace(REQUEST, bytes=64 * MIB, op=None)),
            "Memory ran out on GPU:0, and the error stayed in your code, a library or a thread: 2 requests of 64.0–256 MiB got no memory, the largest for Relu.",
        ),
        (
            (FailedRequest("odd", MIB), FailedRequest("odd", MIB)),
            "Memory ran out, and the error stayed in your code, a library or a thread: 2 requests of 1.0 MiB got no memory.",
        ),
        (
            (FailedRequest("GPU_0_bfc", 0),),
            "Memory ran out on GPU:0, and the error stayed in your code, a library or a thread: a request got no memory.",
        ),
        (
            (FailedRequest("GPU_0_bfc", 0),) * 3,
            "Memory ran out on GPU:0, and the error stayed in your code, a library or a thread: 3 requests got no memory.",
        ),
    ],
)  # fmt: skip
def test_a_cell_that_caught_its_own_error_is_told_what_was_asked_for_in_vain(requests, words):
    outcome = explain(Recording(Cell("%%tfmem\ntry: fit()\nexcept: pass"), failed_requests=requests))
    assert (words,) == outcome.notices


POOLS = ["/lib/python3.12/concurrent/futures/thread.py", "C:\\Python\\Lib\\multiprocessing\\pool.py"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([POOLS[0]], True),
        ([POOLS[1]], True),
        ([POOLS[1], "/site/keras/src/trainers/data_adapters/py_dataset_adapter.py"], False),
        (["/lib/python3.12/concurrent/futures/_base.py"], False),
        ([], False),
    ],
)
def test_of_a_thread_of_the_cells_no_peak_is_estimated_and_it_is_said_why(files, said):
    """Two threads that predicted at once took 132 MiB where 83 to 102 were told for one of them."""
    run = oom(step=None)
    error = run.errors[0]
    frames = (*error.frames, *(Frame(file, 58, "run") for file in files))
    outcome = explain(replace(run, errors=(replace(error, frames=frames),)))
    assert any("in a thread that the cell began" in one for one in outcome.notices) is said


@pytest.mark.parametrize("status", ["oom", "error", "interrupted"])
def test_what_a_cell_that_failed_asked_for_is_not_called_caught(status):
    assert () == Recording(Cell("x"), status=status, failed_requests=(REQUEST,)).caught


@pytest.mark.parametrize(("before", "after", "said"), [(0, 300, True), (4, 14, True), (0, 3, False), (200, 203, False)])
def test_a_function_that_is_traced_again_and_again_is_said(before, after, said):
    facts = Facts(tensorflow="2.21.0", traced=(TracedFacts("step", before, after),))
    outcome = explain(Recording(Cell("for i in range(300): step(x, i)"), status="ok", facts=facts))
    told = [notice for notice in outcome.notices if notice.startswith("`step` was traced")]
    assert [f"{after - before} times" in notice for notice in told] == [True] * said


def fitted_from(begun, ended, peak, limit=200):
    """Give a run that fitted, from so many MiB in use to so many, under a limit."""
    series = Series("allocator:GPU:0", (0.0, 1.0), (begun * MIB, ended * MIB), peak * MIB, "counter", limit * MIB)
    levels = (("allocator:GPU:0", begun * MIB),), (("allocator:GPU:0", ended * MIB),)
    return Recording(Cell("step()"), 1.0, (series,), before=levels[0], after=levels[1])


def next_run_told(first, second):
    return [one for one in explain(second, previous=first).notices if "the next would need" in one]


def test_a_cell_that_leaves_more_behind_each_time_is_told_when_the_next_run_will_not_fit():
    assert next_run_told(fitted_from(50, 90, 150), fitted_from(90, 130, 190)) == [
        "Each run of this cell leaves about 40.0 MiB more on GPU:0: the next would need 230 of 200 MiB."
    ]


def test_what_still_fits_or_was_left_once_only_is_not_foretold():
    assert next_run_told(fitted_from(10, 50, 110), fitted_from(50, 90, 150)) == []
    assert next_run_told(fitted_from(90, 91, 190), fitted_from(90, 130, 190)) == []
    assert next_run_told(None, fitted_from(90, 130, 190)) == []


def test_batches_at_which_a_caught_failure_happened_are_named():
    requests = (FailedRequest("GPU_0_bfc", 64 * MIB, "Tile"), FailedRequest("GPU_0_bfc", 32 * MIB, "Conv2D"))
    facts = Facts(full_at=(BatchSeen("fit", 128, "arrays"), BatchSeen("fit", 64, "arrays")))
    run = Recording(Cell("x"), failed_requests=requests, facts=facts)
    told = explain(run).notices
    assert told[0].startswith(
        "Memory ran out on GPU:0 at batches of 128 and 64, and the error stayed in your code, a library or a thread: 2 req"
    )


def test_a_failure_after_steps_that_fitted_says_what_was_different():
    step = StepFacts(batch=16, data=((16, 900), (16,)), length=900)
    known = {"epochs_done": 0, "steps_done": 10, "batches": (BatchSeen("fit", 16, "tf.data"),)}
    assert (
        "10 steps before it fitted; the samples of this batch are 900 long."
        in explain(oom(step=step, **known)).diagnosis.text
    )
    uneven = replace(step, length=None, data=((7, 900), (7,)))
    assert "this batch has 7 samples instead of 16." in explain(oom(step=uneven, **known)).diagnosis.text
    first = {**known, "steps_done": 0}
    assert "before it fitted" not in explain(oom(step=step, **first)).diagnosis.text


def test_leftovers_are_told_beside_another_cause_and_with_what_would_still_be_missing():
    left = NamedValue("cache", 30 * MIB, "tf.Tensor", "GPU:0")
    text = explain(oom(TEXT.replace("64,1024", "64,10240,20"), values=(left,))).diagnosis.text
    assert "Earlier runs left 30.0 MiB in cache; without that" in text
    assert "would still be missing." in text


def test_what_a_cell_left_that_no_name_holds_is_said_where_it_matters():
    told = "No name holds 40.0 MiB of what this cell left on GPU:0: `%tfmem free` collects what nothing needs."
    assert told in explain(fitted_from(10, 50, 60)).notices
    assert explain(fitted_from(10, 20, 60)).notices == ()
    values = (NamedValue("z", 40 * MIB, "tf.Tensor", "GPU:0", "cell"),)
    held = replace(fitted_from(10, 50, 60), facts=Facts(values=values))
    assert explain(held).notices == ()
    slots = ModelFacts("model", weight_bytes=MIB, earlier_bytes=MIB, optimizer_bytes=39 * MIB, device="GPU:0")
    assert explain(replace(fitted_from(10, 50, 60), facts=Facts(models=(slots,)))).notices == ()


def test_a_cell_that_caught_a_failure_is_offered_no_deployment():
    model = ModelFacts("model", ("Dense",), weight_bytes=MIB, steps=3, steps_before=0, copyable=True, quantizable=MIB)
    facts = Facts("2.21.0", "3.15.1", True, models=(model,))
    run = Recording(Cell("model.fit(x, y)"), facts=facts)
    assert explain(run).new_cells
    caught = replace(run, failed_requests=(FailedRequest("GPU_0_bfc", 64 * MIB, "Tile"),))
    assert explain(caught).new_cells == ()
