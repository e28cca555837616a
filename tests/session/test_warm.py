"""What is done for a report while the allocator waits: its imports, and what must be read of the notebook."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.notebook.test_work import CELL, MODELS, counted, failed
from tests.test_costs import python
from tf_mem_magic.core import troubles
from tf_mem_magic.explain import explain
from tf_mem_magic.report.picture.live import Live
from tf_mem_magic.session.run import CellRun
from tf_mem_magic.session.warm import WarmUp


def test_a_waiting_allocator_starts_the_warm_up():
    begun, shown = [], []
    run = SimpleNamespace(
        _presenter=SimpleNamespace(tick=shown.append), _warm_up=SimpleNamespace(begin=lambda: begun.append(1))
    )
    CellRun._tick(run, Live(1.0))
    CellRun._tick(run, Live(1.0, waiting="GPU:0"))
    assert ([1], 2) == (begun, len(shown))


def test_it_imports_what_the_report_needs_and_says_nothing(tmp_path):
    code = (
        "import sys, threading\n"
        "from tf_mem_magic.core.recording import Cell, Recording\n"
        "from tf_mem_magic.session.warm import WarmUp\n"
        "warm = WarmUp(lambda: Recording(Cell('pass'), 0.0, (), 'oom'))\n"
        "warm.begin(); warm.begin()\n"
        "waits = [t for t in threading.enumerate() if t.name == 'tfmem-warm']\n"
        "assert len(waits) <= 1\n"
        "[t.join() for t in waits]\n"
        "print(sorted(sys.modules))"
    )
    wanted = {
        "matplotlib.backends.backend_agg",
        "tf_mem_magic.report.picture.figure",
        "tf_mem_magic.remedies.smaller_batch.remedy",
        "tf_mem_magic.report.html",
        "tf_mem_magic.release.release",
    }
    assert wanted <= python(code, tmp_path)


def test_after_it_the_cells_before_are_read(monkeypatch):
    recording = failed(CELL.format("warm"), tuple(MODELS.format(f"warm_{n}") for n in range(200)))
    alone = failed(CELL.format("not warm"))
    with counted(monkeypatch) as without:
        explain(alone)
    warm = WarmUp(lambda: replace(recording, errors=(), series=()))
    warm.begin()
    warm.wait()
    with counted(monkeypatch) as after:
        explain(recording)
    assert after["parses"] <= without["parses"]
    assert after["visits"] <= without["visits"]


def test_what_cannot_be_told_yet_is_left_to_the_report():
    def broken():
        raise LookupError("the names come and go")

    before = troubles.mark()
    warm = WarmUp(broken)
    warm.begin()
    warm.wait()
    assert "the names come and go" in " ".join(troubles.since(before))


def test_without_a_thread_to_be_had_it_is_no_error(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    warm = WarmUp(lambda: pytest.fail("nothing may be asked"))
    warm.begin()
    warm.wait()
