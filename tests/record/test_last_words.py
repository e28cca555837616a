"""What is written in case the kernel dies: seldom, and little where nothing has changed."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from tf_mem_magic.core.recording import Cell
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.record import last_words
from tf_mem_magic.record.last_words import LastWords
from tf_mem_magic.record.store.file import open_store, read_store

CELL = Cell("N = 5\nf(N)")


class Sources:
    def devices(self):
        return ()


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path))
    opened = open_store(CELL)
    yield opened
    opened.finish("ok")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(last_words.time, "monotonic", lambda: now[0])
    return now


def words_of(store, namespace):
    words = LastWords(store, CELL, namespace, Sources())
    words.begin(threading.get_ident(), snapshot(namespace), ("import x",))
    return words


def test_before_the_first_line_the_cells_before_and_the_versions_are_there(store):
    words_of(store, {"N": 5})
    facts = read_store(store.path).facts
    assert (True, ("import x",)) == (facts.partial, facts.earlier_cells)


def test_the_innermost_line_of_the_users_own_code_is_written(store):
    namespace = {"__name__": "__main__"}
    words = words_of(store, namespace)
    namespace["poll"] = words.poll
    exec(compile("def f(n):\n    poll()\n\nf(3)", "<ipython-input-1-abc>", "exec"), namespace)
    frames = [f for f in read_store(store.path).errors[0].frames if f.in_cell]
    assert [("<module>", 4), ("f", 2)] == [(f.function, f.line) for f in frames]


def test_facts_are_read_at_growing_intervals(store, clock, monkeypatch):
    looked = []
    monkeypatch.setattr(last_words, "gather_facts", lambda *a: looked.append(clock[0]) or last_words.known_at_once())
    monkeypatch.setattr(last_words.time, "thread_time", lambda: 0.0)
    words = words_of(store, {})
    for _ in range(600):
        words.poll()
        clock[0] += 0.1
    gaps = [b - a for a, b in pairwise(looked)]
    assert 10 <= len(looked) <= 20
    assert all(b >= a - 0.11 for a, b in pairwise(gaps))
    assert 5.0 <= gaps[-1] <= 5.2


def test_facts_that_take_long_are_read_seldom(store, clock, monkeypatch):
    looked, spent = [], [0.0]

    def slow(*arguments):
        looked.append(clock[0])
        spent[0] += 1.0
        return last_words.known_at_once()

    monkeypatch.setattr(last_words, "gather_facts", slow)
    monkeypatch.setattr(last_words.time, "thread_time", lambda: spent[0])
    words = words_of(store, {})
    for _ in range(1_000):
        words.poll()
        clock[0] += 0.1
    assert 2 == len(looked)


def test_a_long_cell_is_not_parsed_before_it_has_run_for_long(store, clock, monkeypatch):
    looked = []
    monkeypatch.setattr(last_words, "gather_facts", lambda *a: looked.append(clock[0]) or last_words.known_at_once())
    words = LastWords(store, Cell("x = 1\n" * 10_000), {}, Sources())
    words.begin(threading.get_ident(), snapshot({}), ())
    words.poll()
    clock[0] += 1.0
    words.poll()
    assert [] == looked
    clock[0] += 1.0
    words.poll()
    assert 1 == len(looked)


def test_what_has_not_changed_is_not_written_again(store, clock, monkeypatch):
    written = []
    monkeypatch.setattr(store, "set_calls", written.append)
    words = words_of(store, {})
    for _ in range(10):
        words.poll()
    assert 1 == len(written)
