"""Run the benchmarks named on the command line, all without a name, and print one Markdown table."""

from __future__ import annotations

import argparse
import sys
import tempfile

from tests.benchmarks import empty_cell, loading, recorder, reporting, training
from tests.benchmarks.table import machine, markdown

ALL = {
    "loading": loading.measure,
    "empty-cell": empty_cell.measure,
    "training": training.measure,
    "reporting": reporting.measure,
    "recorder": recorder.measure,
}


def main() -> int:
    """Measure, print, and give the exit status: 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[[], *ALL], help=f"which to run: {', '.join(ALL)}")
    names = parser.parse_args().name or list(ALL)
    rows, begin = [], machine()
    with tempfile.TemporaryDirectory(prefix="tfmem-benchmarks-") as cache:
        for name in names:
            print(f"measuring: {name} …", file=sys.stderr)
            rows += ALL[name]({"TFMEM_CACHE": cache})
    print(markdown(rows))
    print(f"\nAt the start: {begin}\nAt the end: {machine()}")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
