"""The peak to expect at another batch size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_mem_magic.core.diagnosis import Diagnosis, Part
from tf_mem_magic.core.proposals import Point
from tf_mem_magic.diagnose.estimate import REPEAT, estimate_peak, half_or_less, largest_power_of_two

MIB = 2**20


def done(batch, mib):
    return Point(batch, mib * MIB, True)


def failed(batch, mib):
    return Point(batch, mib * MIB, False)


@pytest.mark.parametrize(
    "points",
    [(), (done(4, 50),), (done(4, 50), done(4, 51)), (done(4, 50), failed(8, 200))],
    ids=["none", "one", "one batch twice", "one that ran out"],
)
def test_without_two_completed_batch_sizes_there_is_no_estimate(points):
    assert estimate_peak(points, 16) is None


def test_between_two_measured_batches_the_range_is_the_lines_usual_error_and_the_noise_of_its_points():
    found = estimate_peak((done(8, 100), done(32, 400)), 16)
    assert (178 * MIB, 222 * MIB) == (found.low, found.high)


def test_the_basis_names_the_measured_points():
    found = estimate_peak((done(8, 100), done(32, 400)), 16)
    assert "a straight line through 100 MiB measured at batch 8 and 400 MiB at batch 32" == found.basis


# Measured: batches 4 and 8, then what 64 really took, in MB (six models, by relative error).
@pytest.mark.parametrize("error", [-0.08, -0.02, 0.03, 0.08, 0.89])
def test_every_model_measured_at_eight_times_the_batch_lies_in_the_range(error):
    line = 100 + 25 * 60
    found = estimate_peak((done(4, 100), done(8, 200)), 64)
    assert found.low <= line * MIB * (1 + error) <= found.high


def test_farther_from_the_measured_batches_the_range_is_wider():
    points = (done(4, 100), done(8, 200))
    near, far = (estimate_peak(points, batch) for batch in (16, 64))
    assert near.high / near.low < far.high / far.low


def test_a_run_that_ran_out_of_memory_is_a_lower_bound_for_its_batch():
    found = estimate_peak((done(4, 100), done(8, 110), failed(16, 500)), 16)
    assert 500 * MIB == found.low


def test_a_larger_batch_that_completed_is_an_upper_bound():
    found = estimate_peak((done(8, 300), done(16, 310)), 15)
    assert found.high == int(310 * (1 + REPEAT) * MIB)


def test_a_falling_line_is_taken_as_level():
    found = estimate_peak((done(8, 110), done(16, 100)), 32)
    assert 110 * MIB <= found.high


points = st.lists(st.builds(Point, st.integers(1, 4096), st.integers(1, 2**40), st.booleans()), max_size=8)


@given(points, st.integers(1, 8192))
def test_a_range_is_never_upside_down_or_negative(found, batch):
    estimate = estimate_peak(found, batch)
    assert estimate is None or 0 <= estimate.low <= estimate.high


def test_the_largest_power_of_two_whose_whole_range_fits_is_given():
    assert 16 == largest_power_of_two((done(8, 100), done(32, 400)), 230 * MIB, below=32)


def test_a_batch_that_completed_fits_whatever_the_estimate_says():
    assert 32 == largest_power_of_two((done(8, 100), done(32, 400)), 401 * MIB, below=64)


def test_a_batch_that_ran_out_of_memory_is_never_given_again():
    points = (done(2, 10), done(4, 11), failed(16, 12))
    assert 8 == largest_power_of_two(points, 10_000 * MIB, below=128)


def test_without_measured_points_there_is_no_largest():
    assert largest_power_of_two((failed(256, 400),), 500 * MIB, below=256) is None


def test_nothing_is_below_one():
    assert largest_power_of_two((done(8, 100), done(32, 400)), 500 * MIB, below=1) is None


def ran_out(requested, *, shape=None, jit=False, stays=100, shrinks=0):
    parts = (Part("weights", stays * MIB, "counted"), Part("other", shrinks * MIB, "the rest"))
    in_use = (stays + shrinks) * MIB
    return Diagnosis("GPU:0", requested * MIB, shape, in_use=in_use, limit=1000 * MIB, breakdown=parts, jit=jit)


@pytest.mark.parametrize(
    ("diagnosis", "batch"),
    [
        (None, 128),
        (ran_out(300, shape=(256, 8), shrinks=800), 128),
        (ran_out(4000, shape=(256, 8)), 32),
        (ran_out(4000, shape=(1024, 8)), 32),
        (ran_out(4000, jit=True), 32),
        (ran_out(3600, shape=(256, 8)), 64),
        (ran_out(4000, shape=(1000, 8)), 128),
        (ran_out(4000), 128),
        (ran_out(4000, shape=(256, 8), stays=2000), 128),
        (ran_out(900 * 1024, shape=(256, 8)), 1),
    ],
    ids=[
        "nothing known",
        "half gets as far",
        "half and a quarter cannot hold what was asked for",
        "the batch is folded into the first dimension",
        "a program of XLA",
        "just enough",
        "an allocation that does not grow with the batch",
        "an allocation of unknown shape",
        "weights alone are too large",
        "never below one",
    ],
)
def test_half_the_batch_or_less_where_half_is_known_not_to_do(diagnosis, batch):
    assert batch == half_or_less(diagnosis, 256, 256)


def test_what_is_kept_for_something_else_is_no_room():
    assert [64, 32] == [half_or_less(ran_out(3600, shape=(256, 8)), 256, 256, kept * MIB) for kept in (0, 1)]


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 5000), st.booleans())
def test_half_or_less_is_never_more_than_half(batch, below, requested, jit):
    assert 0 <= half_or_less(ran_out(requested, shape=(batch,), jit=jit), batch, below) <= below // 2


def test_small_batches_that_all_need_the_same_tell_nothing_where_a_large_one_failed():
    flat = (done(256, 44), done(512, 44), failed(8192, 157))
    assert estimate_peak(flat, 4096) is None
    assert largest_power_of_two(flat, 160 * MIB, 8192) is None
    assert estimate_peak(flat, 512) is not None


def test_a_failure_that_the_line_explains_changes_nothing():
    line = (done(64, 100), done(128, 150))
    assert estimate_peak((*line, failed(1024, 240)), 256) == estimate_peak(line, 256)
