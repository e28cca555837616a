"""The course of traced steps as columns."""

from tests import gallery
from tf_mem_magic.core.step import TracedSteps
from tf_mem_magic.report.picture.stack import Column, columns_of


def steps(times, *course, seconds=4.0, starts=(0.0,)):
    return TracedSteps(seconds=seconds, times=times, course=course, starts=starts)


def test_a_column_is_the_highest_moment_of_its_span_from_the_bottom_up():
    made = steps((0.0, 0.5, 3.9), ("activations", (1, 5, 2)), ("weights", (3, 3, 3)))
    assert columns_of(made, 2)[0] == Column((("weights", 3), ("activations", 5)), begins=True)


def test_a_span_without_a_moment_holds_what_was_there_last():
    made = steps((0.0, 0.5, 3.9), ("activations", (5, 1, 2)))
    assert [dict(c.bytes)["activations"] for c in columns_of(made, 4)] == [5, 1, 1, 2]


def test_columns_are_marked_where_a_step_begins():
    traced = gallery.traced().recording.traced
    assert [i for i, column in enumerate(columns_of(traced, 10)) if column.begins] == [0, 3, 6]


def test_without_a_course_there_are_no_columns():
    assert columns_of(TracedSteps(), 10) == ()
