"""What ``%tfmem plan`` says before anything ran, against what then happens in the same process.

``python -m tests.benchmarks.plan [NAME ...]`` prints a row for each model: the expected range and the measured peak, at
the batch, its half and its quarter, on a CPU whose allocator counts like a GPU's.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.benchmarks.memory_models import HEAD
from tests.benchmarks.ratios import Ratio, compared, print_table
from tests.kernel import bfc
from tests.script import found_by

MEASURE = """
import gc, json, sys, time
from tf_mem_magic.diagnose.planning.values import Place
from tf_mem_magic.diagnose.planning.plan import make_plan, peak_at
from tf_mem_magic.trace.ahead import observe_ahead
given = json.load(sys.stdin)
batches = [given["batch"] // 4, given["batch"] // 2, given["batch"]]
memory = lambda: tf.config.experimental.get_memory_info("CPU:0")
x, y = make(2)
before = memory()["current"]
began = time.monotonic()
ahead = observe_ahead("model", model, (("x", x), ("y", y)), batches[-1])
plan = make_plan(ahead, (Place("here", 1 << 40, cpu=True, here=True),))
found = {"seconds": time.monotonic() - began, "left": memory()["current"] - before}
found["expected"] = {n: peak_at(ahead, n, cpu=True) for n in batches}
found["peaks"] = {}
for n in batches:
    for _ in range(2):
        x, y = make(n)
        gc.collect()
        tf.config.experimental.reset_memory_stats("CPU:0")
        model.fit(x, y, batch_size=n, epochs=1, verbose=0, shuffle=False)
        found["peaks"][n] = max(found["peaks"].get(n, 0), memory()["peak"] - before + ahead.made)
print("FOUND" + json.dumps(found))
"""


def measure(code: str, data: str, batch: int) -> dict[str, Any]:
    """Plan one model, train it, and give what was expected and what was measured."""
    script = f"{HEAD}\n{code}\nmake = lambda n: ({data})\n"
    return found_by(script + MEASURE, {"batch": batch}, bfc(4000))


def row(name: str, code: str, data: str, batch: int) -> tuple[tuple[str, ...], list[Ratio]]:
    """Give the table's row of a model, and of each batch the middle, low and high end by the measured peak."""
    found = measure(code, data, batch)
    told, ratios = compared(found["expected"], found["peaks"])
    return (name, told, f"{found['seconds']:.1f} s"), ratios


def main(names: list[str]) -> int:
    """Print the table."""
    print_table(("model", "batch: measured [expected] MiB, middle by measured", "planned in"), names, row)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
