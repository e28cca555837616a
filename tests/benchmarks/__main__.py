"""Run the benchmarks named on the command line, all without a name, and print one Markdown table, row by row."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping

from tests.benchmarks import empty_cell, explaining, loading, recorder, reporting, training
from tests.benchmarks.table import Row, heading, line, machine

ALL: dict[str, Callable[[Mapping[str, str]], Iterator[Row]]] = {
    "explaining": explaining.measure,
    "loading": loading.measure,
    "empty-cell": empty_cell.measure,
    "training": training.measure,
    "reporting": reporting.measure,
    "recorder": recorder.measure,
}


def main() -> int:
    """Measure, print each row as it is known, and give the exit status: 1 where a target is missed or one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[[], *ALL], help=f"which to run: {', '.join(ALL)}")
    names = parser.parse_args().name or list(ALL)
    begin, wrong = machine(), 0
    print(heading(), flush=True)
    with tempfile.TemporaryDirectory(prefix="tfmem-benchmarks-") as cache:
        for name in names:
            print(f"measuring: {name} …", file=sys.stderr)
            for row in rows_of(name, {"TFMEM_CACHE": cache}):
                print(line(row), flush=True)
                wrong += row.met is False
    print(f"\nAt the start: {begin}\nAt the end: {machine()}")
    return int(wrong > 0)


def rows_of(name: str, environment: Mapping[str, str]) -> Iterator[Row]:
    """Measure one benchmark; where it breaks, its last row says so, and the others still run."""
    try:
        yield from ALL[name](environment)
    except Exception as error:
        traceback.print_exc()
        words = str(error).splitlines()[0][:120] if str(error) else ""
        yield Row(
            f"{name}: broke off", "—", "—", "—", f"{type(error).__name__} {words}".replace("|", "/"), "runs", False
        )


if __name__ == "__main__":
    raise SystemExit(main())
