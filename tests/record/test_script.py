"""``record()`` in a script of its own that runs out of memory: what its stderr tells, and when."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.kernel import ROOT, bfc
from tests.needs import lacking

pytestmark = [pytest.mark.tf, pytest.mark.timeout(300)]

SCRIPT = """\
import atexit

import keras
import numpy as np

from tf_mem_magic import last_report, record


@atexit.register
def tell():
    report = last_report()
    print("last", report.status, report.diagnosis.line, "smaller-batch" in [p.key for p in report.proposals])


x, y = np.zeros((20000, 64), "float32"), np.zeros((20000, 1), "float32")
hidden = [keras.layers.Dense(512, activation="relu") for _ in range(4)]
net = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(1)])
net.compile("adam", "mse", jit_compile=False)
with record("training"):
    net.fit(x, y, batch_size=12288, epochs=1, verbose=0)
print("not reached")
"""

IN_A_FUNCTION = """\
import keras
import numpy as np

from tf_mem_magic import record


def build():
    hidden = [keras.layers.Dense(512, activation="relu") for _ in range(4)]
    net = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(1)])
    net.compile("adam", "mse", jit_compile=False)
    return net


def main(epochs):
    x, y = np.zeros((20000, 64), "float32"), np.zeros((20000, 1), "float32")
    net = build()
    with record("training"):
        net.fit(x, y, batch_size=12288, epochs=epochs, verbose=0)


if __name__ == "__main__":
    main(1)
"""


def run(folder, script):
    """Run a script in a process that runs out of memory."""
    (folder / "train.py").write_text(script)
    env = dict(os.environ, PYTHONPATH=str(ROOT), TFMEM_CACHE=str(folder / "cache"), **bfc(128))
    command = [sys.executable, "train.py"]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The script after its run, and its folder."""
    folder = tmp_path_factory.mktemp("script")
    return folder, run(folder, SCRIPT)


def test_stderr_tells_before_the_error_passes_on(done):
    _, ran = done
    assert (1, False) == (ran.returncode, "not reached" in ran.stdout)
    assert -1 < ran.stderr.find("Out of memory on CPU:0") < ran.stderr.find("Traceback (most recent call last)")
    assert "ResourceExhaustedError" in ran.stderr.partition("Traceback (most recent call last)")[2]


def test_the_report_is_the_last_one(done):
    _, ran = done
    line = SCRIPT.splitlines().index("    net.fit(x, y, batch_size=12288, epochs=1, verbose=0)") + 1
    assert f"last oom {line} True" == ran.stdout.strip()


def patches(stderr: str) -> list[str]:
    """Give the patches that the report shows, each as text that ends with its last line."""
    told = stderr.partition("Traceback (most recent call last)")[0]
    return [f"--- train.py{part.partition(chr(10) * 2)[0].rstrip()}\n" for part in told.split("--- train.py")[1:]]


def test_the_scripts_own_fit_gets_a_patch(done):
    _, ran = done
    line = "    net.fit(x, y, batch_size=12288, epochs=1, verbose=0)"
    assert any(f"\n-{line}\n+    net.fit(x, y, batch_size=" in patch for patch in patches(ran.stderr)), ran.stderr
    assert "no call of fit" not in ran.stderr


def test_a_block_in_a_function_is_reported_and_patched_too(tmp_path):
    ran = run(tmp_path, IN_A_FUNCTION)
    line = IN_A_FUNCTION.splitlines().index("        net.fit(x, y, batch_size=12288, epochs=epochs, verbose=0)") + 1
    assert -1 < ran.stderr.find(f"train.py:{line} in main:") < ran.stderr.find("Traceback (most recent call last)")
    changed = "\n+        net.fit(x, y, batch_size=6144, epochs=epochs, verbose=0)"
    assert any(changed in patch for patch in patches(ran.stderr)), ran.stderr
    assert "no call of fit" not in ran.stderr


def test_every_patch_can_be_applied(done):
    folder, ran = done
    if shutil.which("patch") is None:
        lacking("no patch is installed")
    for patch in patches(ran.stderr):
        command = ["patch", "-o", "changed.py", "train.py"]
        applied = subprocess.run(command, input=patch, cwd=folder, capture_output=True, text=True)
        assert 0 == applied.returncode, patch + applied.stdout
        changed = (folder / "changed.py").read_text()
        assert SCRIPT != changed
        compile(changed, "changed.py", "exec")
