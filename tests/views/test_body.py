"""The panel's body after a rerun: other changes in place of one that failed, and more room where it fitted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.panel_demo import outcome, proposal, reran
from tests.report.test_html import Closed
from tests.views.test_panel import CELL, CHANGED, Driven
from tf_mem_magic.core.jsonio import decode
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.explain import explain
from tf_mem_magic.report.html.page import choices_html, head_html, render_html, rest_html
from tf_mem_magic.report.text import render_text
from tf_mem_magic.report.view import view_of

OTHER = "batch = 256  # another way"
INSTEAD = proposal("mixed-precision", "Mixed precision", OTHER, CELL, instead_of=CHANGED)
ON_TOP = proposal("smaller-batch", "Batch 64", "batch = 64", CHANGED)


@pytest.fixture
def shown():
    made = []

    def show(what):
        made.append(Driven(what))
        made[-1].panel._source = CHANGED  # the cell as the rerun ran it
        return made[-1]

    yield show
    for each in made:
        each.panel.close()


def fitted():
    return replace(reran(CHANGED, CELL), further=(ON_TOP, INSTEAD))


def asked(driven):
    return {name: driven.sent[-1][name] for name in ("op", "source", "original")}


def test_a_change_in_place_of_another_replaces_the_cell_as_it_is_now(shown):
    driven = shown(replace(outcome(CHANGED, INSTEAD, status="error"), comparison=reran(CHANGED, CELL).comparison))
    assert "Try another change in its place" in driven.text()
    driven.buttons()["Mixed precision"].click()
    assert asked(driven) == {"op": "run", "source": OTHER, "original": CHANGED}


def test_what_could_be_changed_after_a_rerun_that_fitted_is_folded_in_one_line(shown):
    driven = shown(fitted())
    toggles = [w.description for w in driven.widgets() if type(w).__name__ == "ToggleButton"]
    assert toggles == ["More room, or another change: 2 choices", "change", "change"]
    said = driven.text()
    assert said.index("On top of this change, for more room") < said.index("In place of this change")


@pytest.mark.parametrize(("title", "source"), [("Batch 64", "batch = 64"), ("Mixed precision", OTHER)])
def test_a_click_there_runs_that_change(shown, title, source):
    driven = shown(fitted())
    driven.buttons()[title].click()
    assert asked(driven) == {"op": "run", "source": source, "original": CHANGED}


def test_nothing_of_it_has_the_accent_or_is_announced(shown):
    driven = shown(fitted())
    assert [b.description for b in driven.buttons().values() if b.button_style] == []
    assert "offered below" not in view_of(fitted()).announcement


def test_it_stays_readable_in_the_saved_notebook():
    frozen = choices_html(view_of(fitted()))
    assert "On top of this change, for more room" in frozen
    assert "+batch = 64" in frozen


SITUATIONS = sorted((Path(__file__).resolve().parents[1] / "data" / "situations").glob("*.json"))
UNSEEN = re.compile(
    r'<style.*?</style>|<span class="tfmem-unseen">.*?</span>|<pre [^>]*user-select:all">.*?</pre>', re.S
)


def words(page: str) -> list[str]:
    """Give what is read of a page before anything is opened; code to copy is not."""
    return [word for word in Closed(f"<div>{UNSEEN.sub('', page)}</div>").words.split() if re.search(r"\w", word)]


def unfolded(widget) -> list[str]:
    """Give the words on a widget and in it, without what is folded."""
    if "tfmem-folded" in widget._dom_classes:
        return []
    said = words(widget.value) if type(widget).__name__ == "HTML" else getattr(widget, "description", "").split()
    return [*said, *(word for child in getattr(widget, "children", ()) for word in unfolded(child))]


@pytest.mark.parametrize("path", SITUATIONS, ids=lambda path: path.stem)
def test_of_a_real_failure_too_at_most_ninety_words_are_seen_in_the_panel_and_on_the_page(shown, path):
    found = explain(decode(path.read_bytes(), Recording))
    view, driven = view_of(found), shown(found)
    panel = [*words(head_html(view)), *unfolded(driven.panel._choices), *words(rest_html(view))]
    for told in (panel, words(render_html(found))):
        assert len(told) <= 90, " ".join(told)
    assert "combine" not in panel


@pytest.mark.parametrize("path", SITUATIONS, ids=lambda path: path.stem)
def test_what_is_folded_for_brevity_is_still_told_in_the_page_and_as_text(path):
    found = explain(decode(path.read_bytes(), Recording))
    page = " ".join(re.sub("<[^>]*>", " ", render_html(found)).split())
    text = " ".join(render_text(found, 10_000).split())
    for sentence in view_of(found).why:
        assert sentence in text
        assert sentence.partition(" ")[0].strip("`") in page.partition(" why ")[2]
    assert all(choice.button.split()[0] in page for choice in view_of(found).choices)
