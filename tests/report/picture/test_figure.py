"""The figure, and the palette it is drawn with."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests import gallery
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.core.units import GIB, MIB
from tf_mem_magic.report.picture import palette
from tf_mem_magic.report.picture.figure import draw, draw_png

ALL = {**gallery.OUTCOMES, "hostile": gallery.hostile}
COLOURS = {*palette.SERIES.values(), *palette.PARTS.values(), palette.LIMIT, palette.FAILED, palette.TEXT}


def words(figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(one: str, other: str) -> float:
    """Give the contrast ratio of WCAG 2."""
    light = [sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear(c))) for c in (one, other)]
    return (max(light) + 0.05) / (min(light) + 0.05)


SIGHT = {
    "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red cones": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "no green cones": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
}
"""How colours are seen, as matrices on linear RGB: Machado, Oliveira, Fernandes, IEEE TVCG 15(6), 2009."""


def lab(colour: str, sight: str) -> tuple[float, float, float]:
    """Give a colour as seen, in CIE L*a*b* (D65)."""
    r, g, b = (min(1.0, max(0.0, sum(m * p for m, p in zip(row, linear(colour))))) for row in SIGHT[sight])
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.0888,
    )
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return (116 * y - 16, 500 * (x - y), 200 * (y - z))


@pytest.mark.parametrize("colour", sorted(COLOURS))
@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_a_colour_is_readable_on_light_and_dark_pages(colour, page):
    assert contrast(colour, page) >= 3.0


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("group", [palette.SERIES, palette.PARTS], ids=["series", "parts"])
def test_categories_are_told_apart_by_the_colour_blind(group, sight):
    pairs = itertools.combinations(sorted(group.values()), 2)
    assert [(a, b) for a, b in pairs if math.dist(lab(a, sight), lab(b, sight)) < 15] == []


def test_one_colour_never_stands_for_two_categories():
    others = [colour for kind, colour in palette.PARTS.items() if kind != "other"]
    assert set(others) & set(palette.SERIES.values()) == set()


@pytest.mark.parametrize("name", ALL)
def test_every_outcome_can_be_drawn_small_and_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = draw_png(ALL[name](), titled=True)
    assert (png[:8], len(png) < 60_000) == (b"\x89PNG\r\n\x1a\n", True)


def test_the_picture_has_twice_the_pixels_it_is_shown_with_and_no_background():
    import io

    from matplotlib.image import imread

    image = imread(io.BytesIO(draw_png(gallery.other_error())))
    assert (image.shape[1] >= 1300, image[0, 0, 3]) == (True, 0.0)


def test_the_failed_request_is_a_hatched_cap_of_its_size():
    (cap,) = draw(gallery.out_of_memory()).axes[0].patches
    assert (cap.get_hatch() is not None, round(cap.get_y(), 1), round(cap.get_height(), 1)) == (True, 14.2, 1.5)


def test_a_request_that_alone_is_more_than_the_device_has_is_drawn_to_scale():
    outcome = gallery.out_of_memory()
    figure = draw(dataclasses.replace(outcome, diagnosis=dataclasses.replace(outcome.diagnosis, requested=900 * GIB)))
    assert figure.axes[0].get_ylim()[1] > 900


def test_the_limit_is_a_dashed_line():
    lines = draw(gallery.out_of_memory()).axes[0].lines
    assert [round(line.get_ydata()[0], 1) for line in lines if line.is_dashed()] == [14.7]


def test_a_limit_far_above_is_named_and_not_drawn():
    assert "↑ limit 80.0 GiB" in words(draw(gallery.long_run()))


def test_a_peak_that_no_sample_reached_is_drawn_at_its_height():
    series = Series("allocator:GPU:0", (0.0, 1.0), (GIB, 2 * GIB), 8 * GIB, "counter")
    axes = draw(Outcome(Recording(Cell(""), 1.0, (series,)))).axes[0]
    dotted = [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == ":"]
    assert (dotted, "between samples" in words(axes.figure)) == ([[8.0, 8.0]], True)


def test_a_cell_without_samples_shows_its_counter():
    assert "peak 12.0 MiB\nno samples" in words(draw(gallery.tiny()))


def test_a_single_sample_is_a_dot():
    series = Series("host:rss", (0.001,), (5 * MIB,), 5 * MIB)
    axes = draw(Outcome(Recording(Cell(""), 0.002, (series,)))).axes[0]
    assert [line.get_marker() for line in axes.lines if len(line.get_xdata()) == 1] == ["o", "v"]


def test_a_sampled_peak_is_a_lower_bound():
    series = Series("device:GPU:0", (0.0, 1.0), (GIB, 2 * GIB), 2 * GIB, "sampled")
    assert "peak ≥ 2.0 GiB" in words(draw(Outcome(Recording(Cell(""), 1.0, (series,)))))


def test_nothing_measured_is_said():
    assert words(draw(Outcome(Recording(Cell(""), 1.0)))).count("memory was not measured") == 1


def test_before_and_after_share_their_scale():
    (axes,) = draw(gallery.fits_now()).axes
    assert (len(axes.collections), axes.get_xlim()[1] >= 68, axes.get_ylim()[1] >= 14.7) == (2, True, True)


def test_devices_have_a_row_each_on_one_time_axis():
    rows = draw(gallery.other_process()).axes
    assert (len(rows), rows[0].get_xlim() == rows[1].get_xlim()) == (2, True)


def test_devices_beyond_the_third_are_counted():
    assert [text.get_text() for text in draw(gallery.long_run()).texts] == ["1 more not drawn"]


def test_host_memory_of_another_scale_has_a_row_only_where_it_is_tight():
    calm = gallery.interrupted()
    series = tuple(dataclasses.replace(s, limit=s.peak) if s.kind == "host" else s for s in calm.recording.series)
    tight = dataclasses.replace(calm, recording=dataclasses.replace(calm.recording, series=series))
    assert [len(draw(outcome).axes) for outcome in (calm, tight)] == [1, 2]


def test_ten_hours_are_drawn_with_few_points():
    assert max(len(line.get_xdata()) for line in draw(gallery.long_run()).axes[0].lines) <= 1402


def test_drawing_leaves_the_users_matplotlib_alone():
    code = """
import sys, matplotlib
settings = lambda: list(dict.items(matplotlib.rcParams))  # looking up "backend" itself would choose one
before = settings()
from tests import gallery
from tf_mem_magic.report.picture.figure import draw_png
draw_png(gallery.fits_now())
draw_png(gallery.out_of_memory())
print("matplotlib.pyplot" in sys.modules, settings() == before)
"""
    tests = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.split() == ["False", "True"]


def test_a_users_style_does_not_reach_the_picture():
    import matplotlib

    plain = draw_png(gallery.out_of_memory())
    style = {
        "axes.facecolor": "red",
        "axes.grid": True,
        "font.size": 30,
        "text.usetex": True,
        "savefig.bbox": "tight",
        "lines.linestyle": "--",
        "xtick.direction": "in",
    }
    with matplotlib.rc_context(style):
        styled = draw_png(gallery.out_of_memory())
    assert plain == styled
