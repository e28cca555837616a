"""Before and after: numbers, checks, and the sentence."""

from dataclasses import replace

import pytest

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen, Facts
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Estimate, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Recording, Series
from tf_mem_magic.diagnose.comparison import compare

GIB = 2**30
LIMIT = int(14.7 * GIB)
PROPOSAL = Proposal(
    key="smaller-batch",
    title="Batch 128",
    source="new",
    original="old",
    preserves="same model, other gradients",
    estimate=Estimate(7 * GIB, int(8.1 * GIB), "measured"),
    expects=(("batch", 128),),
)


def outcome(status, peak, batch=None, diagnosis=None, errors=(), basis="counter"):
    series = Series("allocator:GPU:0", (1.0,), (peak,), peak, basis, LIMIT)
    host = Series("host:rss", (1.0,), (99 * GIB,), 99 * GIB)
    batches = (BatchSeen("fit", batch, "arrays"),) if batch else ()
    recording = Recording(Cell("old"), 68.0, (host, series), status, errors, facts=Facts(batches=batches))
    return Outcome(recording, diagnosis)


NEEDED = Diagnosis("GPU:0", requested=3 * GIB // 2, in_use=14 * GIB, limit=LIMIT)
BEFORE = outcome("oom", 14 * GIB, 256, NEEDED)
FITS = outcome("ok", int(7.6 * GIB), 128)


def test_a_rerun_that_fits_is_told_with_both_numbers_and_what_was_expected():
    expected = "Batch 128: it fits. Peak 7.6 GiB (expected 7.0–8.1 GiB), was over 14.7 GiB."
    assert expected == compare(BEFORE, FITS, PROPOSAL).text


def test_without_an_estimate_nothing_is_said_to_have_been_expected():
    found = compare(BEFORE, FITS, replace(PROPOSAL, estimate=None))
    assert ("", "Batch 128: it fits. Peak 7.6 GiB, was over 14.7 GiB.") == (found.expected, found.text)


def test_the_series_compared_is_that_of_the_device_that_ran_out():
    found = compare(BEFORE, FITS, PROPOSAL)
    assert ("allocator:GPU:0", "allocator:GPU:0") == (found.before.name, found.after.name)


def test_the_batch_that_was_seen_stands_beside_the_promised_one():
    assert (("batch", 128, 128),) == compare(BEFORE, FITS, PROPOSAL).checks


def test_the_batch_of_predict_is_looked_for_where_predict_was_seen():
    after = replace(FITS.recording, facts=Facts(batches=(BatchSeen("predict", 128, "arrays"),)))
    found = compare(BEFORE, replace(FITS, recording=after), replace(PROPOSAL, expects=(("batch of predict", 128),)))
    assert (("batch of predict", 128, 128),) == found.checks


def test_a_batch_that_nobody_saw_is_none_and_not_called_a_failure():
    found = compare(BEFORE, outcome("ok", 7 * GIB), PROPOSAL)
    assert ((("batch", 128, None),), False) == (found.checks, "take effect" in found.text)


def test_a_change_that_did_not_take_effect_is_told():
    found = compare(BEFORE, outcome("ok", 7 * GIB, 256), PROPOSAL)
    assert found.text.endswith("The batch seen was 256, not 128: the change did not take effect.")


def test_a_rerun_that_still_does_not_fit_tells_what_was_missing_before_and_now():
    now = outcome("oom", 14 * GIB, 128, replace(NEEDED, requested=GIB))
    expected = (
        "Batch 128: it still does not fit. It needed 1.0 GiB more with 14.0 of 14.7 GiB in use; "
        "before, 1.5 GiB more with 14.0 GiB in use."
    )
    assert expected == compare(BEFORE, now, PROPOSAL).text


def test_a_rerun_that_met_enough_free_memory_is_told_what_was_free():
    now = outcome("oom", 14 * GIB, 128, replace(NEEDED, requested=GIB, in_use=13 * GIB))
    expected = "It needed 1.0 GiB more with 1.7 of 14.7 GiB free, probably in smaller pieces; before"
    assert expected in compare(BEFORE, now, PROPOSAL).text


def test_a_rerun_without_a_lower_peak_is_said_not_to_have_helped():
    found = compare(outcome("ok", 8 * GIB), outcome("ok", int(7.9 * GIB)), replace(PROPOSAL, estimate=None, expects=()))
    assert "Batch 128: it ran. Peak 7.9 GiB, was 8.0 GiB. It did not help." == found.text


def test_a_rerun_with_a_lower_peak_is_told_by_both():
    found = compare(outcome("ok", 8 * GIB), outcome("ok", 4 * GIB), replace(PROPOSAL, estimate=None, expects=()))
    assert "Batch 128: it ran. Peak 4.0 GiB, was 8.0 GiB." == found.text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("error", "Batch 128: the rerun stopped with ValueError, which is not about memory."),
        ("interrupted", "Batch 128: the rerun was interrupted after 1:08."),
        ("killed", "Batch 128: the kernel died in the rerun."),
    ],
)
def test_a_rerun_that_did_not_end_says_why(status, words):
    errors = (ErrorText("ValueError", "x"),) if status == "error" else ()
    assert compare(BEFORE, outcome(status, GIB, errors=errors), PROPOSAL).text.startswith(words)


def test_a_sampled_peak_is_a_lower_bound():
    assert "Peak ≥ 7.0 GiB" in compare(BEFORE, outcome("ok", 7 * GIB, basis="sampled"), PROPOSAL).text


def test_the_source_to_go_back_to_is_kept():
    assert "old" == compare(BEFORE, FITS, PROPOSAL).original


def test_the_persons_own_change_is_compared_too():
    found = compare(BEFORE, FITS, None)
    assert ("", "The changed cell: it fits. Peak 7.6 GiB, was over 14.7 GiB.") == (found.key, found.text)
