"""The memory model against real failures: the share that is explained, and estimates against measured peaks.

``python -m tests.benchmarks.memory_model [NAME ...]`` prints a row for each model. A first process measures the peak at
the batch, its half and its quarter; a second one runs out of memory at the batch, with 0.8 of what it needs.
"""

from __future__ import annotations

import sys
from statistics import median
from typing import Any

from tests.benchmarks.memory_models import DEVELOPMENT, HEAD, HELD_OUT
from tests.kernel import bfc
from tests.script import found_by

MIB = 1 << 20
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


def row(name: str, found: dict[str, Any]) -> tuple[str, list[tuple[float, float, float]]]:
    """Give the table's row of a model, and of each estimate its middle, low and high end by the measured peak."""
    if "parts" not in found:
        return f"| {name} | {found.get('limit')} | {found['status']} | | | |", []
    other = found["parts"].get("other", 0) / found["in use"]
    ratios = []
    cells = []
    for batch, (low, high) in found["estimates"].items():
        peak = found["peaks"][batch]
        ratios.append(((low + high) / 2 / peak, low / peak, high / peak))
        cells.append(f"{batch}: {peak / MIB:.0f} [{low / MIB:.0f}, {high / MIB:.0f}] {ratios[-1][0] - 1:+.0%}")
    told = f"| {name} | {found['limit']} | {found['op']} | {1 - other:.1%} | {'; '.join(cells)} | {found['seconds']:.1f} s |"
    return told, ratios


def main(names: list[str]) -> int:
    """Print the table."""
    chosen = {n: m for n, m in {**DEVELOPMENT, **HELD_OUT}.items() if not names or n in names}
    print("| model | limit, MiB | failed in | explained | peak measured [expected] | read in |\n|" + "---|" * 6)
    ratios: list[tuple[float, float, float]] = []
    for name, (code, data, batch) in chosen.items():
        try:
            told, more = row(name, measure(code, data, batch))
        except Exception as error:
            told, more = f"| {name} | {type(error).__name__}: {str(error)[-200:]!r} | | | | |", []
        ratios += more
        print(told, flush=True)
    if ratios:
        off = sorted(abs(middle - 1) for middle, _, _ in ratios)
        above = sum(high < 1 for _, _, high in ratios) / len(ratios)
        within = sum(one <= 0.1 for one in off) / len(off)
        print(f"\n{len(ratios)} estimates: median error {median(off):.1%}, {within:.0%} within 10 %, ", end="")
        print(f"{above:.0%} of the measured peaks above the range")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
