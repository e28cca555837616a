from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_mem_magic.core import units


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "—"),
        (0, "0 B"),
        (512, "512 B"),
        (1536, "1.5 KiB"),
        (100 * 2**20, "100 MiB"),
        (512.4 * 2**20, "512 MiB"),
        (99.96 * 2**20, "100 MiB"),
        (1023 * 2**20, "1.0 GiB"),
        (8.1 * 2**30, "8.1 GiB"),
        (-3 * 2**20, "-3.0 MiB"),
        (1020 * 2**30, "1.0 TiB"),
    ],
)
def test_sizes_are_told_in_binary_units(value, expected):
    assert units.size(value) == expected


@given(st.integers(0, 999 * 2**40), st.integers(0, 999 * 2**40))
def test_a_size_has_three_digits_at_most_in_whichever_unit_is_asked_for(value, other):
    for words in (units.size(value), units.size(value, units.brief_unit([other])), units.size_range(other, value)):
        assert all(sum(map(str.isdigit, number)) <= 3 for number in words.split(" ")[0].split("–")), words


@given(st.floats(0, 59.9))
def test_a_duration_below_a_minute_has_three_digits_at_most(seconds):
    for words in (units.duration(seconds), units.milliseconds(seconds)):
        assert sum(map(str.isdigit, words)) <= 3, words


def test_a_range_has_one_unit():
    assert units.size_range(700 * 2**20, 8.1 * 2**30) == "0.7–8.1 GiB"


def test_a_range_of_one_value_is_one_number():
    assert units.size_range(2**30, 2**30) == "1.0 GiB"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.41, "0.41 s"), (12.34, "12.3 s"), (68, "1:08"), (7384, "2:03:04"), (59.96, "60.0 s")],
)
def test_durations_are_told_as_a_clock_would(seconds, expected):
    assert units.duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.002134, "2.13 ms"), (0.02134, "21.3 ms"), (0.2134, "213 ms"), (2.134, "2.13 s")]
)
def test_short_durations_are_told_in_milliseconds(seconds, expected):
    assert units.milliseconds(seconds) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512MiB", 512 * 2**20), ("1.5 GB", 3 * 2**29), ("800m", 800 * 2**20), ("1024", 1024), (" 2 g ", 2**31)],
)
def test_sizes_are_read_as_people_write_them(text, expected):
    assert units.parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "many", "0", "-1GiB", "5 parsecs", "1e99GiB", "nan", "inf"])
def test_a_text_that_is_no_size_is_refused_in_one_sentence(text):
    with pytest.raises(ValueError, match="size") as caught:
        units.parse_size(text)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 2**62))
def test_every_whole_number_of_bytes_is_read_back(value):
    assert units.parse_size(str(value)) == value


class LSTM:
    pass


class UNet:
    pass


@pytest.mark.parametrize(
    ("value", "words"),
    [(1, "an int"), ([], "a list"), ({}, "a dict"), (object(), "an object"), (LSTM(), "an LSTM"), (UNet(), "a UNet")],
)
def test_a_kind_has_the_article_that_one_says(value, words):
    assert units.named_kind(value) == words
