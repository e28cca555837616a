"""Saving never loses a report, loading never hangs: what cannot be written or read is said in one sentence."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace

import pytest

from tf_mem_magic.api import load
from tf_mem_magic.core.facts import Facts, NamedValue, ScalarFact
from tf_mem_magic.core.jsonio import UnreadableFileError, decode, encode
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording, Series
from tf_mem_magic.core.writable import LONGEST_TEXT, writable
from tf_mem_magic.explain import explain

PLAIN = Recording(
    Cell("%%tfmem\nmodel.fit(x)"),
    2.0,
    (Series("host:rss", (0.0, 0.5, 1.0), (5 << 20, 7 << 20, 6 << 20), 7 << 20, "sampled", 1 << 30, "device-total"),),
    "error",
    (ErrorText("ValueError", "no", (Frame("<ipython-input-1-a>", 1, "<module>", True, True),)),),
    before=(("host:rss", 5 << 20),),
)


def outcome(**facts):
    return Outcome(replace(PLAIN, facts=Facts(**facts)), notices=("A notice.",))


def back(value):
    return decode(encode(value), Outcome)


def test_what_can_be_written_is_read_back_as_it_was():
    value = explain(PLAIN)
    assert value == back(value)
    assert (value, ()) == writable(value)


ODD = {
    "huge": 10**5000, "negative": -(10**30), "65 bits": 2**63, "nan": float("nan"), "inf": float("inf"),
    "bytes": b"x", "object": object(), "dict": {1: 2}, "complex": complex(1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_scalar_that_cannot_be_written_is_left_out_and_named(name):
    value = ODD[name]
    read = back(outcome(scalars=(ScalarFact("a", 1), ScalarFact("odd", value), ScalarFact("b", 2))))
    assert {"a": 1, "b": 2} == {one.name: one.value for one in read.recording.facts.scalars}
    assert "A notice." == read.notices[0]
    assert "recording.facts.scalars.value" in read.notices[1]


def test_text_with_lone_surrogates_is_written_without_them():
    broken = ErrorText("Error", "not \ud800 written: é")
    read = back(Outcome(replace(PLAIN, errors=(broken,), cell=Cell("x = '\udfff'"))))
    assert ("not ? written: é", "x = '?'") == (read.recording.errors[0].message, read.recording.cell.source)
    assert "characters of recording.errors.message" in read.notices[-1]


def test_a_text_of_many_megabytes_is_cut():
    read = back(Outcome(replace(PLAIN, stderr="x" * (LONGEST_TEXT + 10))))
    assert LONGEST_TEXT + 1 == len(read.recording.stderr)
    assert "the end of recording.stderr" in read.notices[-1]


def test_a_field_falls_back_to_its_default_and_an_entry_without_one_goes_whole():
    values = (
        NamedValue("a", 5, "list"),
        NamedValue("b", 10**30, "list"),
        NamedValue("c", 6, "list", shape=(10**30, 2)),
    )
    read = back(
        Outcome(replace(PLAIN, seconds=float("nan"), facts=Facts(values=values), before=(("a", 2**70), ("b", 3))))
    )
    assert (["a"], 0.0) == ([v.name for v in read.recording.facts.values], read.recording.seconds)
    assert (("b", 3),) == read.recording.before


def test_a_series_with_a_number_that_cannot_be_written_goes_whole():
    series = (*PLAIN.series, Series("device:GPU:0", (0.0, float("nan")), (1, 2)))
    assert ["host:rss"] == [one.name for one in back(Outcome(replace(PLAIN, series=series))).recording.series]


@pytest.fixture
def saved(tmp_path):
    def write(data):
        path = tmp_path / "report.json"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"null", b"[]", b"3", b'"text"', b"[" * 100_000, b'{"recording":' * 100_000, b"1" * 10_000, b"\xff\xfe",
        b'{"recording": {"cell": {"source": "\\ud800"}}}', b'{"recording": {"cell": {"source": 5}}}', b"1e999", b"\0" * 4096,
        b'{"recording": {"cell": {"source": "x"}, "schema": 99}}', b'{"recording": {"cell": {"source": "x"}, "status": "odd"}}',
        b'{"recording": {"cell": {"source": "x"}, "series": [{"name": "host:rss", "times": [0.0, 1.0], "values": [1]}]}}',
        b'{"recording": {"cell": {"source": "x"}, "series": [{"name": "host:rss", "times": [1.0, 0.0], "values": [1, 2]}]}}',
        b'{"recording": {"cell": {"source": "x"}, "seconds": -5.0}}',
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_ours_is_refused_in_one_sentence(saved, data):
    with pytest.raises(UnreadableFileError) as refused:
        load(saved(data))
    assert 300 > len(str(refused.value))
    assert "\n" not in str(refused.value)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UnreadableFileError, match="no plain file"):
            load(path)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.json")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def _mutated(value, chance):
    """Change one thing somewhere in a JSON value."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(sorted(value))
        return {**value, key: _mutated(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        return [*value[:at], _mutated(value[at], chance), *value[at + 1 :]]
    return chance.choice(
        [None, -1, 0, 2**62, -(2**62), 0.5, -0.5, 1e300, "", "x" * 5000, "\n", [], {}, [value], [value] * 3]
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_file_that_contradicts_itself_is_refused_or_shown(saved, seed):
    from tf_mem_magic.report.bundle import whole_bundle
    from tf_mem_magic.report.text import render_text

    chance = random.Random(seed)
    whole = json.loads(encode(explain(replace(PLAIN, status="oom", errors=(OOM,)))))
    for _ in range(25):
        path = saved(json.dumps(_mutated(whole, chance)).encode())
        try:
            report = load(path)
        except UnreadableFileError:
            continue
        render_text(report.outcome)
        whole_bundle(report.outcome)


OOM = ErrorText(
    "ResourceExhaustedError",
    "OOM when allocating tensor with shape[1024,64] and type float on /job:localhost/replica:0/task:0/device:CPU:0 "
    "by allocator cpu",
    (Frame("<ipython-input-1-a>", 1, "<module>", True, True),),
)


@pytest.mark.parametrize("field", ["peak", "limit"])
def test_a_series_of_fewer_than_no_bytes_is_refused(saved, field):
    series = Series("host:rss", (0.0,), (1,), **{"peak": 1, field: -1})
    with pytest.raises(UnreadableFileError, match="fewer than 0 bytes"):
        load(saved(encode(explain(replace(PLAIN, series=(series,))))))
