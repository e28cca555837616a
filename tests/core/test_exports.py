"""Curves for other tools."""

import csv
import dataclasses
import importlib.util
import json

import pytest

from tf_mem_magic.core.recording import Cell, Recording, Series
from tf_mem_magic.core.step import TracedSteps

RECORDING = Recording(
    Cell("model.fit(x)"),
    2.5,
    (Series("allocator:GPU:0", (0.0, 1.0), (10, 30), 40), Series("host:rss", (0.5,), (7,), 7)),
    "oom",
)


def test_the_csv_file_has_a_line_for_every_sample(tmp_path):
    rows = list(csv.reader(RECORDING.to_csv(tmp_path / "samples.csv").open(encoding="utf-8")))
    assert rows[0] == ["series", "seconds", "bytes"]
    assert rows[1:] == [["allocator:GPU:0", "0.0", "10"], ["allocator:GPU:0", "1.0", "30"], ["host:rss", "0.5", "7"]]


def test_the_trace_has_counters_in_microseconds_and_the_failure_at_its_end(tmp_path):
    events = json.loads(RECORDING.to_perfetto(tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    counters = [(e["name"], e["ts"], e["args"]["bytes"]) for e in events if e["ph"] == "C"]
    assert counters == [("allocator:GPU:0", 0, 10), ("allocator:GPU:0", 1_000_000, 30), ("host:rss", 500_000, 7)]
    assert [(e["name"], e["ts"]) for e in events if e["ph"] == "i"] == [("out of memory", 2_500_000)]
    assert [e["dur"] for e in events if e["ph"] == "X"] == [2_500_000]


def test_traced_steps_are_a_stacked_counter_and_slices(tmp_path):
    steps = TracedSteps(
        "GPU:0", 1.0, 0.5, 2, (0.0, 0.2), times=(0.0, 0.3), course=(("weights", (5, 5)), ("gradients", (0, 7)))
    )
    path = dataclasses.replace(RECORDING, traced=steps).to_perfetto(tmp_path / "trace.json")
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    assert [(e["ts"], e["args"]) for e in events if e["ph"] == "C" and e["name"] == "steps on GPU:0"] == [
        (1_000_000, {"weights": 5, "gradients": 0}),
        (1_300_000, {"weights": 5, "gradients": 7}),
    ]
    assert [(e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"][1:] == [
        ("traced step 1", 1_000_000, 200_000),
        ("traced step 2", 1_200_000, 300_000),
    ]


def test_the_table_has_the_samples_or_says_what_is_missing():
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(ImportError, match="needs pandas"):
            RECORDING.to_dataframe()
        return
    table = RECORDING.to_dataframe()
    assert (list(table.columns), list(table["bytes"])) == (["series", "seconds", "bytes"], [10, 30, 7])
