"""What a report shows, decided once."""

from __future__ import annotations

import dataclasses

import pytest

from tests import gallery
from tf_mem_magic.core.recording import ChunkGroup, Dump, MissingSource
from tf_mem_magic.core.units import MIB
from tf_mem_magic.report.html.page import render_html
from tf_mem_magic.report.text import render_text
from tf_mem_magic.report.view import view_of


def test_three_changes_are_seen_and_the_others_are_behind_a_count():
    many = tuple(dataclasses.replace(gallery.proposals()[0], key=f"k{i}") for i in range(5))
    view = view_of(dataclasses.replace(gallery.out_of_memory(), offered=many))
    assert ([c.number for c in view.shown], [c.number for c in view.more]) == ([1, 2, 3], [4, 5])


def test_every_number_takes_what_it_stands_at():
    outcome = dataclasses.replace(gallery.fits_now(), further=gallery.proposals()[:2])
    assert [(c.number, c.proposal.key) for c in view_of(outcome).numbered] == [
        (1, "smaller-batch"),
        (2, "mixed-precision"),
    ]


@pytest.mark.parametrize("name", gallery.OUTCOMES)
def test_page_and_text_say_the_same_headline_and_sentences(name):
    outcome = gallery.OUTCOMES[name]()
    view, page = view_of(outcome), render_html(outcome)
    text = " ".join(render_text(outcome, 100_000).split())
    told = [view.headline, *(said.text for said in view.said if not view.is_quiet)]
    assert [words for words in told if " ".join(words.split()) not in text] == []
    assert [said.code for said in view.said if said.code and said.code.replace('"', "&quot;") not in page] == []


def test_a_machine_without_a_card_has_no_note_that_its_driver_is_missing():
    outcome = gallery.interrupted()
    assert view_of(outcome).notes == ()
    on_a_card = dataclasses.replace(
        gallery.other_error().recording, missing=(MissingSource("nvml", "NVML: no driver"),)
    )
    assert view_of(dataclasses.replace(outcome, recording=on_a_card)).notes == ("nvml: NVML: no driver",)


def test_a_dump_lists_what_is_worth_a_row():
    base = gallery.out_of_memory()
    groups = (ChunkGroup("big", 500 * MIB, None, 2), *(ChunkGroup(f"small{i}", 900, None, 1) for i in range(8)))
    dump = Dump("CPU_bfc", "structured", 600 * MIB, 510 * MIB, groups=groups)
    sizes = {"in_use": 510 * MIB, "limit": 600 * MIB, "requested": 128 * MIB}
    recording = dataclasses.replace(base.recording, dumps=(dump,), series=())
    outcome = dataclasses.replace(base, recording=recording, diagnosis=dataclasses.replace(base.diagnosis, **sizes))
    (table,) = view_of(outcome).dumps
    assert (table.rows, table.more) == ((("500 MiB", "2", "big"),), "and 8 smaller")


def test_what_an_out_of_memory_left_behind_is_not_in_its_headline():
    outcome = dataclasses.replace(gallery.out_of_memory(), leftovers=(("model", 50 * MIB),))
    assert (view_of(outcome).left, view_of(outcome).leftovers) == ("", (("model", "50.0 MiB"),))


def test_the_announcement_is_one_sentence_and_the_number_of_changes():
    said = view_of(gallery.out_of_memory()).announcement
    assert said == "Out of memory on GPU:0 after 12.3 s, in the first step of epoch 1. 3 changes are offered below."
