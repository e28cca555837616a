"""What a report says of the steps that ``--trace`` watched."""

from __future__ import annotations

import dataclasses

import pytest

from tests import gallery
from tf_mem_magic.api import Report, load
from tf_mem_magic.core.step import Holder, TracedSteps
from tf_mem_magic.core.units import MIB
from tf_mem_magic.memory.events import MOST_HOLDERS
from tf_mem_magic.report.html.page import render_html
from tf_mem_magic.report.text import render_text
from tf_mem_magic.report.traced import steps_view


def told(**more):
    """The traced outcome with other numbers."""
    outcome = gallery.traced()
    steps = dataclasses.replace(outcome.recording.traced, **more)
    return dataclasses.replace(outcome, recording=dataclasses.replace(outcome.recording, traced=steps))


def test_a_run_that_was_not_traced_has_no_such_part():
    assert steps_view(gallery.went_well()) is None
    assert "traced" not in render_text(gallery.went_well()).lower()


def test_the_heading_says_how_many_steps_how_long_and_their_peak():
    heading = "Traced from 14.2 s: 3 steps in 1.05 s, peak 13.4 GiB in use on GPU:0 after 0.15 s"
    assert steps_view(gallery.traced()).heading == heading
    assert heading in " ".join(render_text(gallery.traced()).split())


def test_without_whole_steps_the_heading_does_not_count_any():
    assert steps_view(told(steps=0)).heading.startswith("Traced from 14.2 s: what ran for 1.05 s, peak")


def test_the_parts_are_all_of_the_peak():
    shares = steps_view(gallery.traced()).shares
    assert sum(share.fraction for share in shares) == pytest.approx(1)
    assert [share.label for share in shares][:2] == ["activations", "optimizer"]


def test_the_three_largest_layers_are_named_with_all_that_is_theirs():
    layers = "Largest layers at the peak: `conv2d_4` 4.3 GiB, `conv2d_3` 3.0 GiB, `batch_normalization_4` 1.5 GiB."
    assert steps_view(gallery.traced()).layers == layers


def test_the_table_is_by_layer_and_kind():
    assert steps_view(gallery.traced()).rows[0] == ("3.0 GiB", "22 %", "conv2d_4", "activations")
    assert "conv2d_4: activations" in render_text(gallery.traced(), everything=True)


def test_how_many_rows_are_left_out_is_told_as_far_as_the_recording_knows():
    few = told(peak=1000, holders=tuple(Holder(f"a{i}", "activations", 40) for i in range(20)))
    many = told(peak=1000, holders=tuple(Holder(f"a{i}", "activations", 40) for i in range(MOST_HOLDERS)))
    assert (steps_view(few).more, steps_view(many).more) == ("and 6 smaller", "and smaller ones")


def test_growth_from_step_to_step_is_said_where_every_step_grew():
    grown = told(in_use=tuple(i * 40 * MIB for i in range(4)))
    assert "Each step leaves 40.0 MiB more in use than it found." in steps_view(grown).notes
    ahead = told(in_use=tuple(i * 40 * MIB for i in range(4)), data=tuple(i * 40 * MIB for i in range(4)))
    assert [note for note in steps_view(ahead).notes if "Each step" in note] == []
    fell = told(in_use=(0, 40 * MIB, 30 * MIB, 80 * MIB))
    assert [note for note in steps_view(fell).notes if "Each step" in note] == []


def test_frees_of_what_was_there_before_are_counted():
    sentence = "2 pieces (4.0 MiB) freed meanwhile had been allocated before the trace began."
    assert steps_view(gallery.traced()).notes == (sentence,)


def test_why_nothing_was_traced_is_all_that_is_said():
    outcome = gallery.traced()
    steps = TracedSteps(why_not="another profiler was running, which was left alone")
    outcome = dataclasses.replace(outcome, recording=dataclasses.replace(outcome.recording, traced=steps))
    said = "No steps were traced: another profiler was running, which was left alone."
    assert said in " ".join(render_text(outcome).split())
    page = render_html(outcome)
    assert said in page
    assert "<summary" not in page.partition(said)[0].rpartition("</details>")[2]


def test_the_page_draws_the_steps_stacked_with_a_line_where_each_begins():
    page = render_html(gallery.traced())
    picture = page.partition(">traced steps<")[2]
    assert picture.count("border-left:1px dashed") == 2
    assert "<td" in picture
    assert len(page) - len(render_html(gallery.went_well())) < 16_000


def test_a_saved_report_keeps_the_traced_steps(tmp_path):
    report = Report(gallery.traced())
    assert load(report.save(tmp_path / "r.json")) == report


def test_the_figure_has_the_steps_below_the_timeline():
    pytest.importorskip("matplotlib")
    with_steps, without = Report(gallery.traced()).figure(), Report(gallery.went_well()).figure()
    assert len(with_steps.axes) == len(without.axes) + 1
    steps = next(axes for axes in with_steps.axes if any(t.get_text() == "traced steps" for t in axes.texts))
    assert len(steps.collections) == len(gallery.traced().recording.traced.course)
