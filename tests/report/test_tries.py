"""What was tried without a click, in text and as plain values."""

from __future__ import annotations

import json
from dataclasses import replace

from tests import gallery
from tf_mem_magic.core.jsonio import decode, encode
from tf_mem_magic.core.outcome import Outcome, Try
from tf_mem_magic.report.bundle import tried_bundle
from tf_mem_magic.report.text import render_text
from tf_mem_magic.report.tries import tries_text, words_of

TRIES = (
    Try("smaller-batch", "Batch 128", "fit(128)\nmore()", "oom", "ResourceExhaustedError", 3 << 30),
    Try("mixed-precision", "Mixed precision", "fit(256)", "error", "ValueError"),
)
TRIED = replace(gallery.out_of_memory(), tries=TRIES)


def test_each_try_is_told_with_how_it_ended():
    assert "Batch 128: ran out of memory, peak 3.0 GiB" == words_of(TRIES[0])
    assert "Mixed precision: stopped with ValueError" == words_of(TRIES[1])


def test_the_text_of_a_failure_has_each_source():
    text = render_text(TRIED)
    assert "  1. Batch 128: ran out of memory, peak 3.0 GiB\n     | fit(128)\n     | more()\n  2. Mixed" in text


def test_where_nothing_was_tried_nothing_is_said():
    assert "" == tries_text(gallery.out_of_memory())


def test_the_bundle_has_them_as_plain_values():
    record = json.loads(json.dumps(tried_bundle(TRIED)["application/json"]))
    assert ("oom", [], ["fit(128)\nmore()", "fit(256)"]) == (
        record["status"],
        record["changes"],
        [one["source"] for one in record["tries"]],
    )


def test_a_saved_report_has_them():
    assert TRIES == decode(encode(TRIED), Outcome).tries
