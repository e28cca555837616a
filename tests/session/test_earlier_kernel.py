"""What an earlier kernel of this notebook left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tf_mem_magic import api
from tf_mem_magic.session.earlier_kernel import found
from tf_mem_magic.session.session import Session

ROOT = Path(__file__).resolve().parents[2]
DIES = """
import os, signal
from tf_mem_magic.core.recording import Cell
from tf_mem_magic.record.store.file import open_store
store = open_store(Cell("boom()"))
store.note("GPU:0 is full: its allocator is waiting.")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def die(tmp_path, monkeypatch):
    """Let a process of a notebook die while it records."""
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JPY_SESSION_NAME", "mine.ipynb")
    monkeypatch.setattr(api, "_last", None)

    def run(notebook: str) -> None:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), JPY_SESSION_NAME=notebook)
        assert -signal.SIGKILL == subprocess.run([sys.executable, "-c", DIES], env=environment, check=False).returncode

    return run


def test_the_death_of_this_notebooks_kernel_is_told_once(die):
    die("mine.ipynb")
    session = Session(None)
    (sentence,) = found(session)
    assert "The last kernel of this notebook died while a watched cell ran" in sentence
    assert ("killed", "boom()") == (api.last_report().status, api.last_report().recording.cell.source)
    assert "GPU:0 is full: its allocator is waiting." == api.last_report().outcome.notices[0]
    assert [] == list(found(session))


def test_a_death_that_could_not_be_shown_is_told_again(die):
    die("mine.ipynb")
    for _ in range(2):
        assert "died while a watched cell ran" in next(found(Session(None)))
    assert 1 == len(list(found(Session(None))))
    assert [] == list(found(Session(None)))


def test_a_recording_that_cannot_be_read_is_passed_over(die, tmp_path):
    die("mine.ipynb")
    (path,) = (tmp_path / "cache" / "recordings").glob("*.tfmem")
    path.write_bytes(path.read_bytes()[:5000] + b"\xee" * (path.stat().st_size - 5000))
    session = Session(None)
    assert ([], None) == (list(found(session)), api.last_report())


def test_another_notebooks_death_is_not_told_here(die):
    die("theirs.ipynb")
    session = Session(None)
    assert ([], None) == (list(found(session)), api.last_report())


def test_nothing_is_told_where_nothing_was_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("TFMEM_CACHE", str(tmp_path / "cache"))
    assert [] == list(found(Session(None)))
