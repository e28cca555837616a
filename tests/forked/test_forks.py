"""Forked processes are what started ones are."""

import os
import signal
import subprocess
import sys

import pytest

from tests.forked import forks
from tests.kernel import ROOT, Kernel, bfc

SEEN = """
import json, os, sys, tempfile
told = sys.stdin.read()
print("on stderr", file=sys.stderr)
print("main" if __name__ == "__main__" else __name__, told, sys.argv, sys.path[0] == "", os.getcwd(), os.environ["MINE"],
      tempfile.gettempdir(), os.getpgid(0) == os.getpid() if {group} else True)
import atexit
atexit.register(print, "at exit")
sys.exit(3)
"""
FITS = """
import tensorflow as tf
try:
    print(tf.zeros((16, 1 << 20)).shape)
except tf.errors.ResourceExhaustedError:
    print("out of memory")
"""


def environment(**more):
    return {**os.environ, **forks.AT_IMPORT, "PYTHONPATH": str(ROOT), **more}


@pytest.mark.tf
def test_a_fork_shows_a_script_what_a_process_shows_it(tmp_path):
    seen = environment(MINE="mine", TMPDIR=str(tmp_path))
    forked = forks.run(SEEN.format(group=True), "told", seen, tmp_path, fresh=False)
    started = forks.run(SEEN.format(group=False), "told", seen, tmp_path, fresh=True)
    assert (started.returncode, started.stdout) == (forked.returncode, forked.stdout)
    assert started.stderr == forked.stderr


@pytest.mark.tf
@pytest.mark.parametrize(
    ("code", "status"), [("1 / 0", 1), ("import os; os.abort()", -signal.SIGABRT), ("import os; os._exit(7)", 7)]
)
def test_it_ends_as_a_process_ends(code, status):
    done = forks.run(code, "", environment(), ROOT, fresh=False)
    assert status == done.returncode
    assert ("ZeroDivisionError" in done.stderr) == (status == 1)


@pytest.mark.tf
def test_each_has_the_memory_that_it_was_given():
    told = {mib: forks.run(FITS, "", environment(**bfc(mib)), ROOT, fresh=False).stdout for mib in (32, 128)}
    assert {32: "out of memory\n", 128: "(16, 1048576)\n"} == told


@pytest.mark.tf
def test_whoever_waits_too_short_is_told_and_may_kill_it():
    process = forks.start(["-c", "import time; time.sleep(600)"], environment(), str(ROOT))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert None is process.poll()
    process.kill()
    assert -signal.SIGKILL == process.wait(60)


@pytest.mark.parametrize(
    ("more", "suits"),
    [
        ({}, True),
        (bfc(100), True),
        ({"PYTHONPATH": "/elsewhere"}, False),
        ({"TF_CPP_MIN_LOG_LEVEL": "1"}, False),
        ({"LD_PRELOAD": "library.so"}, False),
        ({"TF_ENABLE_ONEDNN_OPTS": "1"}, False),
    ],
)
def test_what_is_read_at_the_start_takes_a_process_of_its_own(more, suits):
    assert suits == forks.suits(environment(**more))


@pytest.mark.kernel
@pytest.mark.tf
@pytest.mark.parametrize("fresh", [False, True])
def test_a_kernel_has_tensorflow_from_the_start_or_not(fresh):
    with Kernel(bfc(100), fresh=fresh) as kernel:
        assert (not fresh) == kernel.value("'tensorflow' in __import__('sys').modules")
        waits = kernel.run("print('now', flush=True)\nwhile True: pass", interrupt_on="now")
        assert "KeyboardInterrupt" in "".join(waits.errors)
        assert "100 MiB" == kernel.run("import os; print(os.environ['TF_CPU_BFC_MEM_LIMIT_IN_MB'], 'MiB')").out.strip()
        assert sys.executable == kernel.value("__import__('sys').executable")
