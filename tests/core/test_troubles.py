"""The log of contained errors."""

from __future__ import annotations

import pytest

from tf_mem_magic.core import troubles


class Mute(Exception):
    """An error that has no text to give."""

    def __str__(self):
        raise RuntimeError("no")


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_is_remembered_with_its_place():
    place = troubles.mark()
    troubles.note("the facts are missing", raised(ValueError("bad")))
    (sentence,) = troubles.since(place)
    assert sentence.startswith("tf_mem_magic: the facts are missing (ValueError: bad; at test_troubles.py:")


@pytest.mark.parametrize("error", [Mute(), ValueError("\udcff"), ValueError("a\nb" * 10_000), KeyboardInterrupt()])
def test_whatever_the_error_its_line_can_be_printed(error):
    place = troubles.mark()
    troubles.note("odd", raised(error))
    (sentence,) = troubles.since(place)
    assert "\n" not in sentence
    assert len(sentence.encode()) < 2000
    assert type(error).__name__ in sentence


def test_the_same_error_again_and_again_is_one_line():
    place = troubles.mark()
    for _ in range(5):
        troubles.note("again", "the same")
    assert ("tf_mem_magic: again (the same).",) == troubles.since(place)


def test_only_the_newest_are_kept():
    place = troubles.mark()
    for number in range(troubles.KEPT + 10):
        troubles.note("many", str(number))
    assert troubles.KEPT == len(troubles.since(place))
