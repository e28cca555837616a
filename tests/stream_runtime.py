"""Run cells as they are and as ``stream-data`` changes them, with real TensorFlow, in one process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.script import found_by

ROOT = Path(__file__).parents[1]

SCRIPT = """
import json, os, sys
import keras, numpy as np, tensorflow as tf
from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import Context, Declined
from tf_mem_magic.core.recording import Cell, Recording
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.stream_data.remedy import propose
from tf_mem_magic.facts.before import snapshot
from tf_mem_magic.facts.gather import gather_facts

def plain(value):
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "numpy"):
        value = value.numpy()
    value = np.asarray(value)
    return [str(value.dtype), value.astype(str).tolist() if value.dtype.kind in "OSU" else value.tolist()]

def run(setup, cell):
    space = {}
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    exec(setup, space)
    before = snapshot(space)
    keras.utils.set_random_seed(11)
    exec(compile(read_cell(cell).python, "cell", "exec"), space)
    return space, before

found = {}
for name, (setup, cell) in json.load(sys.stdin).items():
    space, before = run(setup, cell)
    facts = gather_facts(space, before, cell, earlier_cells=(setup,))
    one = Cell(cell)
    (answer,) = propose(Context(one, Recording(one, status="oom", facts=facts), Diagnosis("host", cause="host")))
    if isinstance(answer, Declined):
        found[name] = {"reason": answer.reason}
        continue
    changed, _ = run(setup, answer.source)
    found[name] = {
        "source": answer.source,
        "preserves": answer.preserves,
        "before": plain(space["result"]),
        "after": plain(changed["result"]),
    }
print("FOUND" + json.dumps(found))
"""


def run_cells(cells: dict[str, tuple[str, str]], folder: Path) -> dict[str, dict]:
    """Run each ``(earlier cell, cell)`` before and after the edit; both leave what they saw in ``result``."""
    return found_by(SCRIPT, cells, folder=folder)


MEASURED = """
import json, sys, time
import keras, numpy as np, tensorflow as tf

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

setup, cell = json.load(open(sys.argv[1]))
space = {}
exec(setup, space)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before, start = peak(), time.perf_counter()
exec(cell, space)
print("FOUND" + json.dumps({"grown": peak() - before, "seconds": time.perf_counter() - start, "data": space["DATA"]}))
"""


def measure(setup: str, cell: str, folder: Path) -> dict[str, float]:
    """Run a cell in a process of its own; give by how many bytes its peak of resident memory grew, and ``DATA``."""
    given = folder / "cell.json"
    given.write_text(json.dumps([setup, cell]))
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(given)], env=env, cwd=folder, capture_output=True, text=True, timeout=280
    )
    assert "FOUND" in done.stdout, done.stderr[-4000:]
    return json.loads(done.stdout.partition("FOUND")[2])
