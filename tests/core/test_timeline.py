from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_mem_magic.core.timeline import LIVE_BUCKETS, Timeline, bytes_needed

SMALL = 8

sample_lists = st.lists(
    st.tuples(st.floats(0, 100, allow_nan=False), st.integers(0, 2**62)), min_size=1, max_size=200
).map(lambda steps: list(zip(accumulate(step for step, _ in steps), (value for _, value in steps))))


def filled(samples, buckets=SMALL, buffer=None):
    timeline = Timeline(buffer, buckets)
    for at, value in samples:
        timeline.add(at, value)
    return timeline


@given(sample_lists)
def test_every_point_is_a_sample(samples):
    times, values = filled(samples).points()
    assert set(zip(times, values)) <= set(samples)


@given(sample_lists)
def test_times_ascend(samples):
    times, _ = filled(samples).points()
    assert list(times) == sorted(times)


@given(sample_lists)
def test_the_smallest_and_the_largest_sample_survive(samples):
    _, values = filled(samples).points()
    assert (min(v for _, v in samples), max(v for _, v in samples)) == (min(values), max(values))


@given(sample_lists)
def test_the_newest_sample_comes_last(samples):
    times, values = filled(samples).points()
    assert samples[-1] == (times[-1], values[-1])


@given(sample_lists)
def test_points_are_bounded(samples):
    assert len(filled(samples).points()[0]) <= 2 * SMALL + 1


@given(sample_lists)
def test_a_timeline_read_from_its_bytes_gives_the_same_points(samples):
    buffer = memoryview(bytearray(bytes_needed(SMALL)))
    timeline = filled(samples, buffer=buffer)
    assert timeline.points() == Timeline(memoryview(bytes(buffer)), SMALL).points()


@given(st.lists(st.integers(0, 2**62), min_size=SMALL, max_size=SMALL), st.integers(0, SMALL // 2))
def test_a_timeline_killed_while_merging_still_gives_real_points_in_order(values, merged):
    samples = [(float(n), value) for n, value in enumerate(values)]
    whole = memoryview(bytearray(bytes_needed(SMALL)))
    filled(samples, buffer=whole)
    after = memoryview(bytearray(whole))
    timeline = Timeline(after, SMALL)
    timeline._merge()
    head, bucket = 8 * 8, 4 * 8
    torn = bytes(whole[:head]) + bytes(after[head : head + merged * bucket]) + bytes(whole[head + merged * bucket :])
    times, seen = Timeline(memoryview(torn), SMALL).points()
    assert list(times) == sorted(times)
    assert set(zip(times, seen)) <= set(samples)
    assert max(values) == max(seen)


def test_few_samples_are_kept_as_they_are():
    assert ((0.0, 0.1, 0.2), (5, 3, 9)) == filled([(0.0, 5), (0.1, 3), (0.2, 9)]).points()


def test_a_timeline_without_samples_has_no_points():
    assert ((), ()) == Timeline(buckets=SMALL).points()


def test_a_clock_that_goes_back_stands_still():
    assert ((1.0, 1.0), (5, 6)) == filled([(1.0, 5), (0.5, 6)]).points()


def test_bytes_are_exact_beyond_what_a_float_can_hold():
    assert (2**53 + 1,) == filled([(0.0, 2**53 + 1)]).points()[1]


def test_ten_hours_at_ten_milliseconds_stay_bounded_and_keep_their_extremes():
    timeline = Timeline()
    spike, dip = 1_234_567, 2_345_678
    for n in range(3_600_000):
        timeline.add(n * 0.01, 7 if n == dip else 10**10 + 1 if n == spike else 10**9 + n % 1000)
    times, values = timeline.points()
    assert 3_600_000 == len(timeline)
    assert 1000 < len(times) <= 4097
    assert list(times) == sorted(times)
    assert (10**10 + 1, spike * 0.01) == max(zip(values, times))
    assert (7, dip * 0.01) == min(zip(values, times))
    # The whole run is covered evenly: no stretch is longer than a few buckets.
    assert max(b - a for a, b in pairwise(times)) < 36_000 / 1024 * 3


def test_a_long_silence_does_not_take_the_room_of_what_follows():
    timeline = Timeline(buckets=SMALL)
    timeline.add(0.0, 1)
    for n in range(200):
        timeline.add(1000 + n * 0.01, n)
    assert 199 == max(timeline.points()[1])


def test_the_live_timeline_gives_at_most_three_hundred_points():
    timeline = filled([(n * 0.01, n * 7919 % 10007) for n in range(50_000)], LIVE_BUCKETS)
    assert len(timeline.points()[0]) <= 300


def test_a_buffer_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="needs"):
        Timeline(memoryview(bytearray(10)), SMALL)


def test_a_damaged_buffer_is_refused():
    with pytest.raises(ValueError, match="damaged"):
        Timeline(memoryview(b"\xff" * bytes_needed(SMALL)), SMALL)


def test_times_that_no_clock_gives_are_refused():
    buffer = memoryview(bytearray(bytes_needed(SMALL)))
    filled([(0.0, 1), (1.0, 2)], buffer=buffer)
    buffer.cast("d")[8] = float("nan")
    with pytest.raises(ValueError, match="damaged"):
        Timeline(buffer, SMALL).points()
