"""Which cells are somebody else's parameters: by papermill's own line, or by a tag in the notebook's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.kernel import ROOT
from tf_mem_magic.session.parameters_cell import (
    begins_as_parameters,
    changed_parameters,
    is_parameters_cell,
    notebook_files,
    tags_in_files,
)


def write(path, *cells):
    """Write a notebook of (source, tags) pairs."""
    made = [{"cell_type": "code", "source": source, "metadata": {"tags": tags}} for source, tags in cells]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": made, "nbformat": 4}), encoding="utf-8")


def shell(tags=()):
    return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: {"metadata": {"tags": list(tags)}}))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# Parameters\nbatch = 3", True),
        ("%%tfmem\n# parameters\nbatch = 3", True),
        ("# injected-parameters\nbatch = 3", True),
        ("batch = 3  # Parameters", False),
        ("", False),
    ],
)
def test_cells_that_papermill_wrote_are_known_by_their_first_line(source, expected):
    assert begins_as_parameters(source) is expected


@pytest.mark.parametrize(("tag", "expected"), [("parameters", True), ("injected-parameters", True), ("other", False)])
def test_a_tag_that_the_page_tells_says_so_too(tmp_path, monkeypatch, tag, expected):
    monkeypatch.chdir(tmp_path)
    assert is_parameters_cell("batch = 3", shell([tag])) is expected


@pytest.mark.parametrize("source", ["batch = 3\nfit(batch)", ["batch = 3\n", "fit(batch)\n"]])
@pytest.mark.parametrize("where", ["train.ipynb", "notebooks/train.ipynb"])
def test_a_tag_is_read_from_the_notebook_beside_the_kernel(tmp_path, monkeypatch, source, where):
    write(tmp_path / where, ("import keras", []), (source, ["wide", "parameters"]))
    monkeypatch.chdir(tmp_path)
    assert tags_in_files("batch = 3\nfit(batch)") == {"wide", "parameters"}
    assert is_parameters_cell("batch = 3\nfit(batch)", shell())
    assert not is_parameters_cell("batch = 3\nfit(2 * batch)", shell())
    assert not is_parameters_cell("import keras", shell())


def test_what_is_no_notebook_is_passed_over(tmp_path, monkeypatch):
    for name, text in {"a": "", "b": "[1]", "c": '{"cells": 3}', "d": '{"cells": [{}]}', "e": "\udcff"}.items():
        (tmp_path / f"{name}.ipynb").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "folder.ipynb").mkdir()
    write(tmp_path / "z.ipynb", ("batch = 3", ["parameters"]))
    monkeypatch.chdir(tmp_path)
    assert tags_in_files("batch = 3") == {"parameters"}


def test_the_notebook_that_a_command_line_above_names_comes_before_others(tmp_path):
    write(tmp_path / "far" / "deep.ipynb")
    write(tmp_path / "here" / "a.ipynb")
    child = (
        "from tf_mem_magic.session.parameters_cell import notebook_files; print([p.name for p in notebook_files()][:2])"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], cwd='here', check=True)"
    done = subprocess.run(
        [sys.executable, "-c", parent, "far/deep.ipynb"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['deep.ipynb', 'a.ipynb']\n"


def test_each_notebook_is_looked_at_once(tmp_path, monkeypatch):
    write(tmp_path / "a.ipynb")
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in notebook_files() if path.parent == tmp_path] == ["a.ipynb"]


CELL, TRIED = "%%tfmem\nBATCH = 256\nfit(BATCH)", "%%tfmem\nBATCH = 128\nfit(BATCH)"


def test_a_parameter_that_later_cells_read_is_said_to_have_changed(tmp_path, monkeypatch):
    write(tmp_path / "train.ipynb", (CELL, []), ("model.predict(x, batch_size=BATCH)", []))
    monkeypatch.chdir(tmp_path)
    assert ("`BATCH` was 256 and is 128 now, and cells after this one read it.",) == changed_parameters(CELL, TRIED)


def test_one_that_nothing_reads_later_is_not_worth_a_word(tmp_path, monkeypatch):
    write(tmp_path / "train.ipynb", ("BATCHES = 3", []), (CELL, []), ("print(BATCH_SIZE)", []))
    monkeypatch.chdir(tmp_path)
    assert () == changed_parameters(CELL, TRIED)


def test_where_the_notebook_is_not_known_it_is_said_in_general(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ("`BATCH` was 256 and is 128 now, also for cells after this one.",) == changed_parameters(CELL, TRIED)


@pytest.mark.parametrize("source", [CELL, "%%tfmem\nBATCH = 256\nfit(128)", "%%bash\nls", "(", ""])
def test_what_changes_no_parameter_says_nothing(source):
    assert () == changed_parameters(CELL, source)
