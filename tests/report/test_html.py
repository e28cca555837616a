"""The report as HTML, read back with a parser."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from tests import gallery
from tf_mem_magic.report.choices import KEEPS
from tf_mem_magic.report.html.markup import code_words, escaped, prose
from tf_mem_magic.report.html.page import head_html, render_html
from tf_mem_magic.report.view import view_of

VOID = {"img", "br"}
ALLOWED = set("section div span b code pre details summary table thead tbody tr th td ul li img abbr".split())
ALL = {**gallery.OUTCOMES, "hostile": gallery.hostile}


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words += data


class Closed(Page):
    """What is seen before anything is opened."""

    def handle_starttag(self, tag, attrs):
        super().handle_starttag("unseen" if ("style", "display:none") in attrs else tag, attrs)

    def handle_endtag(self, tag):
        super().handle_endtag("unseen" if self._open[-1] == "unseen" else tag)

    def handle_data(self, data):
        inside = self._open[self._open.index("details") :] if "details" in self._open else []
        if "unseen" not in self._open and (not inside or inside[1:2] == ["summary"]):
            self.words += f" {data}"


@pytest.mark.parametrize("name", ALL)
def test_only_quiet_tags_stand_in_a_report(name):
    assert set(Page(render_html(ALL[name]())).tags) - ALLOWED == set()


@pytest.mark.parametrize("name", ALL)
def test_no_attribute_can_run_anything(name):
    page = Page(render_html(ALL[name]()))
    harmless = {"style", "title", "alt", "src", "class", "role", "scope", "colspan", "aria-label", "aria-hidden"}
    assert {attribute for _, attribute, _ in page.attributes} - harmless == set()


@pytest.mark.parametrize("name", ALL)
def test_every_head_of_a_column_says_that_it_is_one(name):
    heads = re.findall(r"<th\b[^>]*>", render_html(ALL[name]()))
    assert [head for head in heads if ' scope="col"' not in head] == []


def test_choices_stand_under_heads_of_columns():
    assert render_html(gallery.out_of_memory()).count('<th scope="col"') >= 3


@pytest.mark.parametrize("name", gallery.OUTCOMES)
def test_before_anything_is_opened_there_are_at_most_ninety_words(name):
    words = [word for word in Closed(render_html(gallery.OUTCOMES[name]())).words.split() if re.search(r"\w", word)]
    assert len(words) <= 90, " ".join(words)


def test_hostile_text_is_shown_as_it_was_written():
    shown = gallery.HOSTILE.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert Page(render_html(gallery.hostile())).words.count(shown) > 20


def test_escaping_covers_quotes_and_control_characters():
    assert escaped("<a b='\"'>&\x00") == "&lt;a b=&#x27;&quot;&#x27;&gt;&amp;\ufffd"


@pytest.mark.parametrize("name", ["went well", "another error", "interrupted", "1 ms"])
def test_a_quiet_report_is_one_line_and_folds(name):
    html = render_html(ALL[name]())
    outside = re.sub(r"<details.*?</details>", "", html, flags=re.S)
    assert outside.count("<div") == 1


def test_the_picture_has_words_for_those_who_cannot_see_it():
    page = Page(render_html(gallery.out_of_memory()))
    told = [value for _, name, value in page.attributes if name == "aria-label"]
    assert [words for words in told if "a request for 1.5 GiB more failed" in words.lower().replace("gib", "GiB")]


def test_the_sign_of_the_outcome_has_a_word():
    page = Page(render_html(gallery.out_of_memory()))
    assert ("span", "aria-label", "out of memory") in page.attributes


def test_the_report_never_speaks_of_buttons():
    pages = [Page(render_html(make())).words.lower() for make in gallery.OUTCOMES.values()]
    assert [words for words in pages if "button" in words or "click" in words] == []


def test_a_proposal_shows_title_estimate_what_it_keeps_caveat_diff_and_the_whole_cell():
    words = Page(render_html(gallery.out_of_memory())).words
    proposal = gallery.proposals()[0]
    parts = (proposal.title, "7.0–8.1 GiB fits", KEEPS[proposal.preserves], *proposal.caveats, proposal.source)
    diff = ("-model.fit(x, y, batch_size=256, epochs=3)", "+model.fit(x, y, batch_size=128, epochs=3)")
    assert [part for part in (*parts, *diff, proposal.estimate.basis) if part not in words] == []


def test_nothing_says_that_nothing_is_known():
    pages = [Page(render_html(make())).words for make in gallery.OUTCOMES.values()]
    assert [words for words in pages if "not measured" in words or "no estimate" in words] == []


def test_what_stands_in_backticks_is_code_and_not_a_term():
    assert prose("`peak` is the peak") == f"{code_words('peak')} is the {prose('peak')}"


def test_a_remedy_that_was_not_offered_has_its_reason():
    words = Page(render_html(gallery.out_of_memory())).words
    assert [d.reason for d in gallery.DECLINED if d.reason not in words] == []


def test_what_the_panel_shows_is_not_told_above_it():
    above = Page(head_html(view_of(gallery.out_of_memory()))).words
    told = ["not offered", "This run already did", *(p.title for p in gallery.out_of_memory().offered)]
    assert [text for text in told if text in above] == []


def test_the_changes_come_before_the_chart_and_the_bar():
    page = render_html(gallery.out_of_memory())
    order = ("needed 1.5 GiB more", "<b>Batch 128", 'role="img" aria-label="Timeline', 'aria-label="What filled')
    places = [page.index(part) for part in order]
    assert places == sorted(places)


def test_a_term_is_explained_once():
    page = render_html(gallery.out_of_memory())
    titles = re.findall(r'<abbr title="([^"]*)"', page)
    assert sorted(titles) == sorted(set(titles)) != []


def test_a_long_dump_is_cut_and_says_so():
    outcome = gallery.out_of_memory()
    recording = dataclasses.replace(outcome.recording, stderr="x" * 5_000_000)
    html = render_html(dataclasses.replace(outcome, recording=recording))
    assert (len(html) < 60_000, "… 4.8 MiB more of this text are in the recording" in html) == (True, True)


def test_text_takes_the_pages_own_colour():
    html = render_html(gallery.out_of_memory())
    assert re.match(r'<section class="tfmem-report" aria-label="[^"]*" style="color:inherit;', html)
