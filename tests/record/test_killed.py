"""What a kernel that is killed leaves behind: at once, soon, in the middle of a training."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.kernel import ROOT, Kernel, KernelDiedError
from tf_mem_magic.api import load
from tf_mem_magic.record.store.runs import stored_runs
from tf_mem_magic.report.text import render_text

pytestmark = [pytest.mark.kernel, pytest.mark.oldest]

AT_ONCE = "%%tfmem\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
SOON = """%%tfmem -q
import os, signal, threading, time
def count():
    n = 0
    while True:
        n += 1
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
count()"""
SETUP = """
import os, signal, threading
import numpy as np, tensorflow as tf, keras
BATCH = 64
x, y = np.zeros((4096, 8), "float32"), np.zeros((4096, 1), "float32")
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
model.compile("adam", "mse")
class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1: threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
"""
FIT = "%%tfmem\n\nmodel.fit(x, y, batch_size=BATCH, epochs=100_000, verbose=0, callbacks=[Kill()])"


def killed(cache, *cells, **environment):
    with Kernel({"TFMEM_CACHE": str(cache), "JPY_SESSION_NAME": "mine.ipynb", **environment}) as kernel:
        kernel.run("%load_ext tf_mem_magic\nN = 3")
        for cell in cells[:-1]:
            ran = kernel.run(cell)
            assert "ok" == ran.status, ran.errors
        with pytest.raises(KernelDiedError):
            kernel.run(cells[-1])
    (run,) = [run for run in stored_runs(cache / "recordings") if run.killed]
    return load(run.path)


def test_a_kernel_that_is_killed_at_once_leaves_its_cell_and_says_what_is_not_known(tmp_path):
    report = killed(tmp_path, AT_ONCE)
    assert ("killed", AT_ONCE) == (report.status, report.recording.cell.source)
    assert "%load_ext tf_mem_magic\nN = 3" in report.recording.facts.earlier_cells
    assert report.recording.get("host:rss").values
    assert report.recording.facts.partial
    assert () == report.proposals
    assert "is not known" in render_text(report.outcome)


def test_a_kernel_that_is_killed_in_a_busy_loop_leaves_the_line_it_ran(tmp_path):
    report = killed(tmp_path, SOON)
    last = report.recording.errors[0].frames[-1]
    assert ("count", True, True) == (last.function, last.in_cell, last.is_user)
    assert "in count, called from line 8" in render_text(report.outcome)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def report(cache):
    return killed(cache, SETUP, FIT, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")


@pytest.mark.tf
def test_the_line_and_how_far_it_got_are_known(report):
    (frame,) = report.recording.errors[0].frames
    assert frame.in_cell
    # The second in IPython 7 and 8.0: of the statement in Python 3.10, of the whole cell (0) since 3.11.
    assert frame.function in {"<module>", "<cell line: 3>", "<cell line: 0>"}
    assert "Line 3 of your cell: model.fit(" in " ".join(report.outcome.notices)


@pytest.mark.tf
def test_the_facts_are_those_of_a_cell_that_failed(report):
    facts = report.recording.facts
    model = facts.model("model")
    assert (False, 64, [64]) == (facts.partial, facts.scalar("BATCH"), [b.batch for b in facts.batches][-1:])
    assert (("InputLayer", "Dense"), "Adam", 4 * (8 * 16 + 16 + 16 + 1)) == (
        model.layers,
        model.optimizer,
        model.weight_bytes,
    )
    assert {"x", "y"} <= {value.name for value in facts.values}
    assert facts.earlier_cells[-1].strip() == SETUP.strip()


@pytest.mark.tf
def test_remedies_are_offered(report):
    assert "smaller-batch" in {p.key for p in report.outcome.offered}
    assert "does not use Keras" not in render_text(report.outcome)


@pytest.mark.tf
def test_the_next_kernel_tells_of_it_once(report, cache):
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "import tf_mem_magic\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_cell('%load_ext tf_mem_magic')\n"
        "print('LAST', tf_mem_magic.last_report() and tf_mem_magic.last_report().status)\n"
        "shell.run_cell('%tfmem last')\n"
    )
    environment = {**os.environ, "TFMEM_CACHE": str(cache), "JPY_SESSION_NAME": "mine.ipynb"}
    command = [sys.executable, "-c", code]
    first, second = (
        subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert "died while a watched cell ran" in first
    assert "LAST killed" in first
    assert "The kernel died" in first
    assert "LAST None" in second
