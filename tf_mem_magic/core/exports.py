"""A recording's curves for other tools: a table, a CSV file, a trace that Perfetto and Chrome open."""

from __future__ import annotations

import csv
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_mem_magic.core.recording import Recording

COLUMNS = ("series", "seconds", "bytes")


def samples(recording: Recording) -> Iterator[tuple[str, float, int]]:
    """Yield every sample as ``(series, seconds since the cell's start, bytes)``."""
    for series in recording.series:
        for time, value in zip(series.times, series.values):
            yield series.name, time, value


def to_dataframe(recording: Recording) -> Any:
    """Give the samples as a pandas ``DataFrame`` with the columns ``series``, ``seconds`` and ``bytes``.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install pandas (to_csv does without)") from error
    return pandas.DataFrame(list(samples(recording)), columns=list(COLUMNS))


def to_csv(recording: Recording, path: str | os.PathLike[str]) -> Path:
    """Write the samples as CSV with a line of headings; gives the file's path."""
    target = Path(path).expanduser()
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(samples(recording))
    return target


def to_perfetto(recording: Recording, path: str | os.PathLike[str]) -> Path:
    """Write the curves as a Chrome trace (JSON), which https://ui.perfetto.dev and ``chrome://tracing`` open.

    Each series is a counter in bytes, the cell a slice, and running out of memory an instant at its end. Traced steps
    are one counter, stacked by kind, and a slice each. Times are microseconds since the cell's start. Gives the file's
    path.
    """
    target = Path(path).expanduser()
    target.write_text(json.dumps({"traceEvents": list(_events(recording)), "displayTimeUnit": "ms"}), encoding="utf-8")
    return target


def _events(recording: Recording) -> Iterator[dict[str, Any]]:
    where = {"pid": 1, "tid": 1}
    yield {"ph": "M", "name": "process_name", "args": {"name": "tf_mem_magic"}, **where}
    yield {"ph": "X", "name": "cell", "ts": 0, "dur": _micro(recording.seconds), "cat": recording.status, **where}
    for name, time, value in samples(recording):
        yield {"ph": "C", "name": name, "ts": _micro(time), "args": {"bytes": value}, **where}
    steps = recording.traced
    if steps is not None:
        for i, time in enumerate(steps.times):
            held = {kind: values[i] for kind, values in steps.course}
            yield {
                "ph": "C",
                "name": f"steps on {steps.device}",
                "ts": _micro(steps.began + time),
                "args": held,
                **where,
            }
        for number, (start, end) in enumerate(zip(steps.starts, (*steps.starts[1:], steps.seconds)), 1):
            span = {"ts": _micro(steps.began + start), "dur": _micro(end - start)}
            yield {"ph": "X", "name": f"traced step {number}", **span, "pid": 1, "tid": 2}
    if recording.status in ("oom", "killed"):
        words = "out of memory" if recording.status == "oom" else "the kernel died"
        yield {"ph": "i", "name": words, "ts": _micro(recording.seconds), "s": "g", **where}


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
