"""The memory model against real failures: the share that is explained, and estimates against measured peaks.

``python -m tests.benchmarks.memory_model [NAME ...]`` prints a row for each model. A first process measures the peak at
the batch, its half and its quarter; a second one runs out of memory at the batch, with 0.8 of what it needs.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.benchmarks.memory_models import HEAD
from tests.benchmarks.ratios import MIB, Ratio, compared, print_table
from tests.kernel import bfc
from tests.script import found_by

SHARE = 0.8

MEASURE = """
import gc, json, sys
given = json.load(sys.stdin)
memory = lambda: tf.config.experimental.get_memory_info("CPU:0")
def fit(n):
    x, y = make(n)
    gc.collect()
    tf.config.experimental.reset_memory_stats("CPU:0")
    model.fit(x, y, batch_size=n, epochs=1, verbose=0, shuffle=False)
    return memory()["peak"]
fit(2)
gc.collect()
found = {"base": memory()["current"]}
found["peaks"] = {n: max(fit(n), fit(n)) for n in (given["batch"] // 4, given["batch"] // 2, given["batch"])}
print("FOUND" + json.dumps(found))
"""
FAIL = """
import json, sys
from tf_mem_magic.api import record
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.diagnose.expected import expected
given = json.load(sys.stdin)
batch = given["batch"]
x, y = make(4)
model.fit(x, y, batch_size=2, epochs=1, verbose=0)
x, y = make(batch)
try:
    with record() as running:
        model.fit(x, y, batch_size=batch, epochs=1, verbose=0, shuffle=False)
except tf.errors.ResourceExhaustedError:
    pass
report = running.report
found = {"status": report.status}
if report.diagnosis is not None:
    step = report.recording.facts.step
    found["parts"] = {part.kind: part.bytes for part in report.diagnosis.breakdown}
    found["in use"], found["op"], found["seconds"] = report.diagnosis.in_use, report.diagnosis.op, step.seconds
    found["why not"] = step.why_not
    ask = lambda n: expected(report.recording, report.diagnosis, Effect(batch=(batch, n)))
    found["estimates"] = {n: (e.low, e.high) for n in (batch // 4, batch // 2, batch) if (e := ask(n)) is not None}
print("FOUND" + json.dumps(found))
"""


def measure(code: str, data: str, batch: int) -> dict[str, Any]:
    """Measure one model, let it run out of memory, and give what both processes found."""
    script = f"{HEAD}\n{code}\nmake = lambda n: ({data})\n"
    measured = found_by(script + MEASURE, {"batch": batch}, bfc(3000))
    peak = measured["peaks"][str(batch)]
    limit = int((measured["base"] + SHARE * (peak - measured["base"])) / MIB)
    failed = found_by(script + FAIL, {"batch": batch}, bfc(max(limit, 16)))
    return {**measured, **failed, "limit": limit}


def row(name: str, code: str, data: str, batch: int) -> tuple[tuple[str, ...], list[Ratio]]:
    """Give the table's row of a model, and of each estimate its middle, low and high end by the measured peak."""
    found = measure(code, data, batch)
    if "parts" not in found:
        return (name, f"{found.get('limit')}", found["status"]), []
    other = found["parts"].get("other", 0) / found["in use"]
    if not found["estimates"]:
        return (name, f"{found['limit']}", found["op"], f"{1 - other:.1%}", found["why not"]), []
    told, ratios = compared(found["estimates"], found["peaks"])
    return (name, f"{found['limit']}", found["op"], f"{1 - other:.1%}", told, f"{found['seconds']:.1f} s"), ratios


def main(names: list[str]) -> int:
    """Print the table."""
    print_table(("model", "limit, MiB", "failed in", "explained", "peak measured [expected]", "read in"), names, row)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
