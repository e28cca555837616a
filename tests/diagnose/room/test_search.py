"""The largest batch that is expected to fit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.diagnose.test_chunks import FULL, WEIGHT, run
from tests.diagnose.test_expected import BATCH, MIB, failed
from tests.memory.steps import KIB
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.recording import Dump
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.diagnose.room.search import batch_sizes, hardly_depends, largest_batch, largest_within


@pytest.mark.parametrize("limit", [6, 10, 14])
def test_the_largest_batch_that_fits_is_a_round_number_and_the_next_does_not_fit(limit):
    recording, diagnosis = failed(limit=limit * MIB)
    found = largest_batch(recording, diagnosis, BATCH, BATCH)
    assert found & (found - 1) == 0 or (found // 3) & (found // 3 - 1) == 0
    assert expected(recording, diagnosis, Effect(batch=(BATCH, found))).high <= limit * MIB
    assert expected(recording, diagnosis, Effect(batch=(BATCH, found * 3 // 2))).high > limit * MIB


def test_where_none_is_sure_to_fit_the_largest_that_rather_fits_than_not_is_named():
    recording, diagnosis = failed(batch=16)  # weights and their gradients are most of it
    one, quarter = (expected(recording, diagnosis, Effect(batch=(16, n))) for n in (1, 4))
    limit = (quarter.low + quarter.high) // 2 + 1
    assert quarter.low < limit < one.high
    diagnosis = replace(diagnosis, limit=limit)
    found = largest_batch(recording, diagnosis, 16, 16)
    told, above = (expected(recording, diagnosis, Effect(batch=(16, n))) for n in (found, found * 2))
    assert found >= 4
    assert (told.low + told.high) / 2 <= limit < (above.low + above.high) / 2


def test_what_only_may_fit_is_no_smaller_than_an_eighth():
    recording, diagnosis = failed(batch=16)
    one = expected(recording, diagnosis, Effect(batch=(16, 1)))
    diagnosis = replace(diagnosis, limit=(one.low + one.high) // 2 + 1)
    assert largest_batch(recording, diagnosis, 16, 16) == 0
    assert largest_batch(recording, diagnosis, 16, 8) == 1


def test_a_peak_that_hardly_depends_on_the_batch_is_told_with_its_number():
    recording, diagnosis = failed()
    assert hardly_depends(recording, diagnosis, BATCH) is None
    recording, diagnosis = failed(batch=16)
    least, one = hardly_depends(recording, diagnosis, 16), expected(recording, diagnosis, Effect(batch=(16, 1)))
    assert least == (one.low + one.high) // 2
    assert least > 8 * WEIGHT


def test_where_the_weights_alone_do_not_fit_no_batch_does():
    recording, diagnosis = failed(limit=8 * WEIGHT)
    assert largest_batch(recording, diagnosis, BATCH, BATCH) == 0


def test_without_an_estimate_no_batch_is_named():
    recording = replace(run(FULL, packed=""), dumps=(Dump("GPU_0_bfc", "structured", 4 * MIB, 900 * KIB),))
    assert largest_batch(recording, diagnose(recording), 8, 8) is None


SIZES = batch_sizes(4096)


@given(st.lists(st.integers(0, 50), min_size=len(SIZES), max_size=len(SIZES)), st.integers(0, 1500), st.booleans())
def test_whatever_sizes_need_it_is_the_one_that_asking_all_of_them_tells(rises, limit, asks_half):
    needs = dict(zip(SIZES, (sum(rises[: n + 1]) for n in range(len(SIZES)))))
    found = largest_within(limit, SIZES, needs.__getitem__, (2048,) if asks_half else ())
    assert found == max((one for one, need in needs.items() if need <= limit), default=0)


@pytest.mark.parametrize("base", [0, 400, 5000])
@pytest.mark.parametrize("bend", [0.97, 1.0, 1.03])
def test_where_needs_lie_near_a_line_two_or_three_sizes_are_asked(base, bend):
    """A binary search asks four or five of these."""

    def needed(one):
        asked.append(one)
        return base + 10 * one**bend

    for largest in SIZES[6:-1]:
        asked = []
        assert largest_within(int(base + 10 * largest**bend) + 1, SIZES, needed, (2048, 4096)) == largest
        assert len(set(asked) - {2048, 4096}) <= 3


def test_needs_that_are_not_known_are_not_within_any_limit():
    assert largest_within(100, SIZES, lambda one: float("inf") if one > 8 else one, (4096,)) == 8
    assert largest_within(100, SIZES, lambda one: float("inf"), (4096, 2048)) == 0
    assert largest_within(100, [], lambda one: one) == 0


def test_where_a_smaller_batch_takes_little_one_sample_is_not_asked_for():
    recording, diagnosis = failed()
    assert hardly_depends(recording, diagnosis, BATCH, BATCH // 8) is None
    recording, diagnosis = failed(batch=16)
    assert hardly_depends(recording, diagnosis, 16, 4) == hardly_depends(recording, diagnosis, 16) > 8 * WEIGHT
