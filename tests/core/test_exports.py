"""Curves for other tools."""

import csv
import importlib.util
import json

import pytest

from tf_mem_magic.core.recording import Cell, Recording, Series

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


def test_the_table_has_the_samples_or_says_what_is_missing():
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(ImportError, match="needs pandas"):
            RECORDING.to_dataframe()
        return
    table = RECORDING.to_dataframe()
    assert (list(table.columns), list(table["bytes"])) == (["series", "seconds", "bytes"], [10, 30, 7])
