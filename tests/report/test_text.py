"""The report as plain text."""

from __future__ import annotations

import pytest

from tests import gallery
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.report.picture.curve import columns, thinned
from tf_mem_magic.report.printable import printable, visible
from tf_mem_magic.report.text import render_text


def chart_of(*values: int, limit: int | None = None, status="ok") -> list[str]:
    times = tuple(float(i) for i in range(len(values)))
    series = Series("host:rss", times, values, max(values), "counter", limit)
    text = render_text(Outcome(Recording(Cell(""), float(len(values)), (series,), status)), 40)
    return [line for line in text.splitlines() if set("▁▂▃▄▅▆▇█") & set(line)]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", gallery.OUTCOMES)
def test_no_line_is_wider_than_the_terminal(name, width):
    lines = render_text(gallery.OUTCOMES[name](), width).splitlines()
    prose = [line for line in lines if not line.lstrip().startswith(("+", "-"))]
    assert [line for line in prose if len(line) > width] == []


@pytest.mark.parametrize("name", [*gallery.OUTCOMES, "hostile"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "no such encoding"])
def test_every_report_can_be_printed_in_every_encoding(name, encoding):
    text = render_text({**gallery.OUTCOMES, "hostile": gallery.hostile}[name](), encoding=encoding)
    assert text.encode("ascii" if encoding.startswith("no") else encoding)


def test_signs_become_words_where_the_terminal_has_only_ascii():
    assert render_text(gallery.fits_now(), encoding="ascii").startswith("[ok] Batch 128: it fits\n")


def test_nothing_in_a_report_steers_the_terminal():
    assert [c for c in render_text(gallery.hostile()) if c != "\n" and (ord(c) < 32 or c == "\u202e")] == []


def test_control_characters_become_visible_and_line_ends_stay():
    assert visible("a\x1b[31mb\n\tc\u202ed") == "a\ufffd[31mb\n\tc\ufffdd"


def test_words_of_the_users_language_stay_where_they_can_be_written():
    assert printable("Größe", "latin-1") == "Größe"


def test_the_chart_rises_with_the_values():
    assert chart_of(*range(1, 37))[-1].strip()[:4] == "▁▁▂▃"


def test_the_chart_is_drawn_under_the_limit():
    assert chart_of(*[50] * 36, limit=100) == ["  " + "▄" * 36, "  " + "█" * 36]


def test_a_limit_far_above_does_not_flatten_the_chart():
    assert len(chart_of(*[50] * 36, limit=1000)) == 3


def test_a_failed_run_ends_the_chart_with_a_cross():
    assert chart_of(*[50] * 36, status="error")[-1].endswith(" ✗")


def test_a_span_without_samples_keeps_the_value_before_it():
    assert columns((0.0, 1.0, 7.9), (5, 9, 3), 8.0, 8) == (5, 9, 9, 9, 9, 9, 9, 3)


def test_a_span_shows_its_largest_value_and_hands_on_its_last():
    assert columns((0.0, 0.5, 3.5), (9, 2, 4), 4.0, 4) == (9, 2, 2, 4)


def test_spans_before_the_first_and_after_the_last_sample_are_empty():
    assert columns((1.0, 2.0), (5, 6), 4.0, 4) == (None, 5, 6, None)


def test_thinning_keeps_the_highest_and_the_lowest_value():
    values = [5] * 100_000
    values[31_234], values[77_777] = 9, 1
    _, kept = thinned(range(100_000), values, 500)
    assert (max(kept), min(kept), len(kept) <= 1002) == (9, 1, True)


def test_a_choice_is_one_line_with_its_number_what_to_expect_and_what_it_keeps():
    lines = render_text(gallery.out_of_memory(), 120).splitlines()
    told = "  1. Batch 128                             7.0–8.1 GiB ▓▓▓▓▓░░░░ fits · other gradients"
    assert told in lines


def test_the_report_says_how_to_take_a_choice():
    assert "Take one: %tfmem apply 1, or by its key: %tfmem apply smaller-batch" in render_text(gallery.out_of_memory())


def test_everything_shows_each_changes_key_its_name_and_its_changed_lines():
    text = render_text(gallery.out_of_memory(), everything=True)
    assert "     [smaller-batch]\n     - The activations grow with the batch.\n" in text
    assert "     -model.fit(x, y, batch_size=256, epochs=3)\n     +model.fit(x, y, batch_size=128, epochs=3)" in text


def test_what_is_not_offered_is_a_count_and_has_its_reasons_only_with_everything():
    brief, whole = (render_text(gallery.out_of_memory(), everything=each) for each in (False, True))
    reason = "  - Use another GPU: there is one GPU"
    assert ("3 not offered: %tfmem last --all" in brief, reason in brief, reason in whole) == (True, False, True)


def test_a_comparison_shows_before_and_after_one_above_the_other():
    lines = [line[:9] for line in render_text(gallery.fits_now()).splitlines()]
    assert lines.index("  after  ") == lines.index("  before ") + 1


def test_advice_stands_with_its_lines_to_copy_each_in_a_row_of_its_own():
    from tests.diagnose.test_situation import recording
    from tf_mem_magic.explain import explain

    told = render_text(explain(recording("pairwise")))
    assert "keep only what is reduced:\n    rows = range(0, len(emb), 128)\n    parts = [" in told
    one = render_text(explain(recording("one_hot_eager")))
    assert "numbers:" in one
    assert ".:" not in told + one
