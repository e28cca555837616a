"""Peaks of nested windows over a counter that forgets when it is reset."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tf_mem_magic.sources._windows import Windows

EVENTS = st.lists(
    st.one_of(
        st.integers(0, 1000),
        st.sampled_from(["begin", "end", "read"]),
    ),
    max_size=60,
)


class Counter:
    """The smallest counter with a current value and a peak since its reset."""

    def __init__(self) -> None:
        self.current = self.peak = 0

    def set(self, value: int) -> None:
        self.current = value
        self.peak = max(self.peak, value)

    def reset(self) -> None:
        self.peak = self.current

    def peaks(self) -> dict[str, int]:
        return {"a": self.peak}


@given(EVENTS)
def test_each_window_gives_the_true_maximum_within_it(events):
    counter, windows, truth, expected, actual = Counter(), Windows(), [], [], []
    for event in events:
        if event == "begin":
            windows = windows.begin(counter.peaks())
            counter.reset()
            truth.append(counter.current)
        elif event == "end" and truth:
            windows, found = windows.end(counter.peaks())
            actual.append(found["a"])
            highest = truth.pop()
            expected.append((highest, "counter"))
            if truth:
                truth[-1] = max(truth[-1], highest)
        elif event == "read":
            windows = windows.see(counter.peaks())
        elif isinstance(event, int):
            counter.set(event)
            truth = [*truth[:-1], max(truth[-1], event)] if truth else truth
    assert expected == actual


@given(EVENTS)
def test_with_no_window_open_the_end_gives_the_peak_since_counting_began(events):
    counter, windows, depth, highest = Counter(), Windows(), 0, 0
    for event in events:
        if event == "begin":
            windows, depth = windows.begin(counter.peaks()), depth + 1
            counter.reset()
        elif event == "end" and depth:
            windows, depth = windows.end(counter.peaks())[0], depth - 1
        elif isinstance(event, int):
            counter.set(event)
            highest = max(highest, event)
    for _ in range(depth):
        windows, _ = windows.end(counter.peaks())
    assert {"a": (highest, "counter")} == windows.end(counter.peaks())[1]


@given(st.lists(st.one_of(st.integers(0, 1000), st.sampled_from(["read", "foreign reset"])), max_size=40))
def test_a_counter_that_others_reset_never_makes_a_peak_too_high(events):
    counter, highest = Counter(), 0
    windows = Windows().begin(counter.peaks())
    for event in events:
        if event == "read":
            windows = windows.see(counter.peaks())
        elif event == "foreign reset":
            counter.reset()
        else:
            counter.set(event)
            highest = max(highest, event)
    assert windows.end(counter.peaks())[1]["a"][0] <= highest


def test_a_peak_after_a_foreign_reset_is_kept_as_a_lower_bound():
    windows = Windows().begin({"a": 5}).see({"a": 90}).see({"a": 10})
    assert {"a": (90, "sampled")} == windows.end({"a": 20})[1]


def test_a_foreign_reset_inside_an_inner_window_makes_the_outer_one_a_lower_bound_too():
    windows = Windows().begin({"a": 5, "b": 1}).begin({"a": 5, "b": 1}).see({"a": 90, "b": 2})
    inner, _ = windows.see({"a": 10, "b": 2}).end({"a": 10, "b": 2})
    assert {"a": (90, "sampled"), "b": (2, "counter")} == inner.end({"a": 10, "b": 2})[1]


def test_our_own_reset_is_not_taken_for_a_foreign_one():
    windows, _ = Windows().begin({"a": 900}).begin({"a": 30}).end({"a": 10})
    assert {"a": (30, "counter")} == windows.end({"a": 10})[1]


def test_a_series_that_appears_late_has_its_peak():
    windows = Windows().begin({}).see({"a": 3})
    assert {"a": (7, "counter")} == windows.end({"a": 7})[1]


def test_ending_more_often_than_beginning_is_harmless():
    windows, _ = Windows().end({"a": 4})
    windows, _ = windows.end({"a": 6})
    assert {"a": (6, "counter")} == windows.end({"a": 6})[1]
