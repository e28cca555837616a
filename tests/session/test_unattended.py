"""Where nobody sits before the page: nbconvert, nbclient, a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.kernel import ANSI, ROOT, bfc

pytestmark = [pytest.mark.kernel, pytest.mark.oldest]


def write(path, cells):
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def execute(tmp_path, cells, env=None):
    write(tmp_path / "in.ipynb", cells)
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "out.ipynb", "in.ipynb"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), **(env or {}))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    saved = tmp_path / "out.ipynb"
    return done, json.loads(saved.read_text()) if saved.exists() else None


def test_an_executed_notebook_succeeds_and_holds_the_report_and_no_widget(tmp_path):
    done, notebook = execute(tmp_path, ["%load_ext tf_mem_magic", "%%tfmem\nprint('ran')\n6 * 7"])
    assert done.returncode == 0, done.stderr
    outputs = notebook["cells"][1]["outputs"]
    kinds = [(o["output_type"], sorted(o.get("data", {}))) for o in outputs]
    assert kinds == [
        ("display_data", ["text/html", "text/plain"]),
        ("stream", []),
        ("execute_result", ["text/plain"]),
    ]
    assert "peak" in "".join(outputs[0]["data"]["text/plain"])
    assert "widgets" not in notebook["metadata"]


def test_an_executed_notebook_fails_where_the_cell_fails(tmp_path):
    cells = ["%load_ext tf_mem_magic", "%%tfmem\n1 / 0", "open('reached', 'w').close()"]
    done, _ = execute(tmp_path, cells)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert not (tmp_path / "reached").exists()


@pytest.mark.tf
def test_an_executed_notebook_reports_an_out_of_memory_above_the_error_and_fails(tmp_path):
    cells = [
        "%load_ext tf_mem_magic\nimport tensorflow as tf",
        "%%tfmem --save report.json\nx = [tf.zeros((1024, 1024, 20)) for _ in range(8)]",
    ]
    write(tmp_path / "in.ipynb", cells)
    code = (
        "import nbformat, nbclient\n"
        "nb = nbformat.read('in.ipynb', 4)\n"
        "client = nbclient.NotebookClient(nb, timeout=240, kernel_name='python3')\n"
        "try:\n    client.execute()\nexcept nbclient.exceptions.CellExecutionError:\n    print('failed')\n"
        "nbformat.write(nb, 'out.ipynb')\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT), **bfc(200))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "failed\n"
    outputs = json.loads((tmp_path / "out.ipynb").read_text())["cells"][1]["outputs"]
    assert [o["output_type"] for o in outputs if o["output_type"] != "stream"] == ["display_data", "error"]
    assert "Out of memory on CPU:0" in "".join(outputs[0]["data"]["text/plain"])
    assert "image/png" in outputs[0]["data"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recording"]["status"] == "oom"


@pytest.fixture
def terminal(tmp_path):
    pexpect = pytest.importorskip("pexpect", reason="pexpect drives the terminal")
    environment = dict(os.environ, PYTHONPATH=str(ROOT), IPYTHONDIR=str(tmp_path), TERM="dumb")
    command = ["-m", "IPython", "--no-banner", "--simple-prompt", "--colors=NoColor", "--no-confirm-exit"]
    child = pexpect.spawn(sys.executable, command, env=environment, encoding="utf-8", timeout=90, dimensions=(50, 100))
    child.expect(r"In \[1\]: ")
    yield child
    child.close(force=True)


def test_a_terminal_runs_the_cell_and_prints_the_report_as_text(terminal):
    def enter(*lines):
        for line in lines:
            terminal.sendline(line)
        terminal.expect(r"\r\nIn \[\d+\]: $")
        return ANSI.sub("", terminal.before).replace("\r", "")

    enter("%load_ext tf_mem_magic")
    told = enter("%%tfmem", "import sys; print('err', file=sys.stderr)", "6 * 7", "", "")
    assert re.search(r"^Out\[\d+\]: 42$", told, re.M)
    assert re.search(r"^err$", told, re.M)
    assert re.search(r"✓ .*peak", told)
    failed = enter("%%tfmem", "1 / 0", "", "")
    assert len(re.findall(r"^ZeroDivisionError: division by zero$", failed, re.M)) == 1
    assert "✗ ZeroDivisionError" in failed
    doctor = enter("%tfmem doctor")
    assert "no page" in doctor
