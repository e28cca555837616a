"""What is drawn of a run, and on which scale."""

from __future__ import annotations

import dataclasses

import pytest

from tests import gallery
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.core.units import GIB, MIB
from tf_mem_magic.report.picture.chart import COLUMNS, chart_of


def failed(in_use: float, requested: float, limit: float = 15.0, largest: float | None = None) -> Outcome:
    base = gallery.out_of_memory()
    sizes = {"in_use": int(in_use * GIB), "requested": int(requested * GIB), "limit": int(limit * GIB)}
    dump = dataclasses.replace(base.recording.dumps[0], largest_free=None if largest is None else int(largest * GIB))
    recording = dataclasses.replace(base.recording, dumps=(dump,))
    return dataclasses.replace(base, recording=recording, diagnosis=dataclasses.replace(base.diagnosis, **sizes))


def test_the_failed_request_stands_on_what_was_in_use():
    cap = chart_of(failed(14.2, 1.5)).cap
    assert (round(cap.base / GIB, 1), round(cap.end / GIB, 1), cap.label) == (14.2, 15.7, "✗ needed")


@pytest.mark.parametrize("in_use", [5, 10, 13.4])
@pytest.mark.parametrize("largest", [None, 0.5, 1.4])
def test_a_request_never_ends_below_the_limit_that_it_did_not_fit_under(in_use, largest):
    chart = chart_of(failed(in_use, 1.5, largest=largest))
    assert chart.cap.end > chart.limit >= chart.cap.base


def test_a_request_that_alone_is_more_than_the_device_has_is_drawn_to_scale():
    chart = chart_of(failed(1, 60))
    assert (chart.top, chart.limit) == (61 * GIB, 15 * GIB)


def test_a_larger_one_that_would_fit_alone_does_not_flatten_the_curve():
    assert chart_of(failed(14, 14)).top < 1.3 * 15 * GIB


def test_before_and_after_are_two_curves_on_the_same_axes():
    chart = chart_of(gallery.fits_now())
    now, then = chart.curves
    assert [(c.name, c.mark, len(c.columns)) for c in (now, then)] == [
        ("after", "✓", COLUMNS),
        ("before", "✗", COLUMNS),
    ]
    assert sum(value is not None for value in then.columns) == pytest.approx(COLUMNS * 12.3 / 68, abs=2)


def test_a_limit_far_above_is_named_and_not_drawn():
    chart = chart_of(gallery.long_run())
    assert (chart.limit, chart.limit_label) == (None, "↑ limit 80.0 GiB")


def test_nothing_measured_draws_nothing():
    series = Series("allocator:CPU:0", (), (), 12 * MIB, "counter")
    assert chart_of(Outcome(Recording(Cell(""), 0.001, (series,)))) is None
