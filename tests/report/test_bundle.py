"""What a notebook carries of a report, and what others make of it: exports, and viewers that clean HTML."""

from __future__ import annotations

import base64
import dataclasses
import html
import re

import pytest

from tests import gallery
from tests.needs import need
from tf_mem_magic.core.proposals import Choice
from tf_mem_magic.core.recording import Cell
from tf_mem_magic.report.bundle import changed_cell_bundle, choices_bundle, head_bundle, rest_bundle, whole_bundle

nbformat = pytest.importorskip("nbformat")

GITHUB = (
    "h1 h2 h3 h4 h5 h6 br b i strong em a pre code img tt div ins del sup sub p picture ol ul table thead tbody tfoot "
    "blockquote dl dt dd kbd q samp var hr ruby rt rp li tr td th s strike summary details caption figure figcaption "
    "abbr bdo cite dfn mark small source span time wbr"
).split()
"""The elements that GitHub's cleaning keeps, by its documentation (html-pipeline's sanitization filter)."""

ATTRIBUTES = {
    "*": "align alt aria-describedby aria-hidden aria-label aria-labelledby border colspan dir headers height id lang "
    "name open role rowspan scope span summary tabindex title valign value width".split(),
    "a": ["href"],
    "img": ["src", "longdesc"],
}
"""The attributes that it keeps, of those that pages like ours could have: no style, no class, no data: address."""


def cleaned(page: str) -> str:
    """Give HTML as GitHub's viewer of notebooks shows it; with ``CI=true`` what cleans it must be there."""
    need("bleach")
    import bleach

    return bleach.clean(page, tags=GITHUB, attributes=ATTRIBUTES, protocols=["http", "https", "mailto"], strip=True)


def in_a_notebook(outcome) -> list[dict]:
    return [head_bundle(outcome), choices_bundle(outcome), rest_bundle(outcome)]


@pytest.mark.parametrize("name", gallery.OUTCOMES)
def test_a_report_takes_at_most_sixty_kilobytes_and_one_picture(name):
    bundles = in_a_notebook(gallery.OUTCOMES[name]())
    size = sum(len(part) for bundle in bundles for part in bundle.values())
    pictures = sum("image/png" in bundle for bundle in bundles) + sum("<img" in b["text/html"] for b in bundles)
    assert (size <= 60_000, pictures <= 1) == (True, True)


def long_cell(lines: int = 1500, ways: int = 3, choices: int = 8):
    """A cell of many lines, with as many changes as may be offered, each in several ways."""
    cell = "%%tfmem\n" + "".join(f"value_{i} = compute(value_{i - 1}, factor={i})\n" for i in range(lines))
    made = []
    for i in range(choices):
        source = cell.replace(f"factor={40 * i + 7})", f"factor={i} * 2)")
        extra = tuple(Choice(f"Way {n}", source.replace("factor=3)", f"factor={n} * 3)")) for n in range(ways))
        made.append(
            dataclasses.replace(gallery.proposals()[0], key=f"k{i}", source=source, original=cell, choices=extra)
        )
    base = gallery.out_of_memory()
    recording = dataclasses.replace(base.recording, cell=Cell(cell), stderr="x <> y\n" * 100_000)
    return dataclasses.replace(base, recording=recording, offered=tuple(made))


@pytest.mark.parametrize("kind", ["first", "rerun", "rewritten"])
def test_a_long_cell_is_not_repeated_for_every_choice(kind):
    outcome = long_cell()
    if kind == "rewritten":
        lines = "".join(f"other_{i} = {i}\n" for i in range(1500))
        offered = tuple(dataclasses.replace(p, source=lines) for p in outcome.offered)
        outcome = dataclasses.replace(outcome, offered=offered)
    if kind == "rerun":
        comparison = dataclasses.replace(gallery.did_not_help().comparison, original=outcome.recording.cell.source)
        outcome = dataclasses.replace(outcome, comparison=comparison)
    assert sum(len(part) for bundle in in_a_notebook(outcome) for part in bundle.values()) <= 60_000


def test_of_a_long_cell_the_changed_lines_stand_in_their_context_and_the_code_is_pointed_to_once():
    page = choices_bundle(long_cell(choices=2, ways=1))["text/html"]
    words = html.unescape(re.sub("<[^>]*>", "\n", page))
    assert [row for row in ("-value_7 = compute(value_6, factor=7)", "+value_7 = compute(value_6, factor=0 * 2)")
            if row not in words] == []  # fmt: skip
    assert ("value_5 = compute(value_4, factor=5)" in words, "value_90 =" in words) == (True, False)
    assert "+value_3 = compute(value_2, factor=0 * 3)" in words
    assert words.count("%tfmem apply") == 1


@pytest.mark.parametrize("name", ["out of memory", "fits after the rerun", "another process"])
def test_the_three_outputs_say_all_and_nothing_twice(name):
    outcome = gallery.OUTCOMES[name]()
    parts = "".join(bundle["text/html"] for bundle in in_a_notebook(outcome))
    words = [re.sub("<[^>]*>", " ", page).split() for page in (parts, whole_bundle(outcome)["text/html"])]
    assert words[0] == words[1]


@pytest.mark.parametrize("name", gallery.OUTCOMES)
def test_where_styles_are_dropped_every_word_is_still_there(name):
    page = whole_bundle(gallery.OUTCOMES[name]())["text/html"]
    told = [re.sub("<[^>]*>", " ", text).split() for text in (page, cleaned(page))]
    assert told[0] == told[1]


def test_github_shows_what_happened_what_can_be_done_and_the_timeline():
    head, choices, rest = (cleaned(bundle["text/html"]) for bundle in in_a_notebook(gallery.out_of_memory()))
    assert "Out of memory on GPU:0 after 12.3 s" in head
    assert [title in choices for title in ("<b>Batch 128</b>", "<b>16-bit compute</b>")] == [True, True]
    assert "7.0–8.1 GiB <b>fits</b>" in choices
    shown = re.findall("<pre>(.*?)</pre>", rest, re.S)[0].splitlines()
    assert (len(shown), "█" in shown[1]) == (4, True)
    assert shown[-1] == "in use on GPU:0, drawn from 0 to 15.7 GiB, over 12.3 s, limit 14.7 GiB"
    assert "style=" not in head + choices + rest


def test_where_styles_are_kept_the_timeline_of_characters_is_not_seen():
    rest = rest_bundle(gallery.out_of_memory())["text/html"]
    assert re.findall("<pre[^>]*>[^<]*█", rest) == re.findall('<pre style="display:none">[^<]*█', rest) != []


def test_an_exported_page_has_the_words_the_choices_and_one_chart():
    nbconvert = pytest.importorskip("nbconvert")
    outputs = [nbformat.v4.new_output("display_data", bundle) for bundle in in_a_notebook(gallery.out_of_memory())]
    cell = nbformat.v4.new_code_cell("model.fit()", outputs=outputs)
    page, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "Out of memory on GPU:0 after 12.3 s" in page
    assert (page.count("<b>Batch 128</b>"), page.count('aria-label="Timeline')) == (1, 1)
    assert "<img" not in page.split("<body")[1]


def test_in_a_pdf_the_chart_is_a_picture_and_the_words_are_text():
    nbconvert = pytest.importorskip("nbconvert")
    outputs = [nbformat.v4.new_output("display_data", bundle) for bundle in in_a_notebook(gallery.out_of_memory())]
    cell = nbformat.v4.new_code_cell("model.fit()", outputs=outputs)
    tex, resources = nbconvert.LatexExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (picture,) = resources["outputs"].values()
    assert (picture[:4], tex.count("includegraphics{") + tex.count("adjustimage")) == (b"\x89PNG", 1)
    assert "Out of memory on GPU:0 after 12.3 s" in tex
    assert "█████████████████████████████" not in tex


def test_the_picture_is_a_png_of_few_colours():
    picture = base64.b64decode(whole_bundle(gallery.out_of_memory())["image/png"])
    assert (picture[:4], len(picture) < 25_000) == (b"\x89PNG", True)


def test_a_cell_that_was_changed_without_a_click_is_told_with_its_code_also_as_json():
    outcome = gallery.fits_now()
    bundle = changed_cell_bundle(outcome, (("smaller-batch", "Batch 128"),))
    assert "batch_size=128" in bundle["text/html"]
    assert bundle["application/json"]["changes"] == [{"remedy": "smaller-batch", "title": "Batch 128"}]
