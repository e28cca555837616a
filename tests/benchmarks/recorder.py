"""The recorder's memory: after a minute of samples, and after ten hours of them fed in as fast as they go."""

from __future__ import annotations

import gc
import json
import math
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.benchmarks.table import Row

INTERVAL = 0.01
SERIES = ("allocator:GPU:0", "device:GPU:0", "host:rss")
MINUTE, TEN_HOURS = 60.0, 36_000.0
MOST_FILE = 2 << 20
MOST_GROWTH = 1 << 20
TICK = 0.22


def measure(environment: Mapping[str, str]) -> Iterator[Row]:
    """Record in a process of its own, so that its memory is the recorder's alone."""
    command = [sys.executable, "-m", "tests.benchmarks.recorder"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    growth = found["rss"][1] - found["rss"][0]
    sizes, blocks = found["file"], found["blocks"]
    kib = 1024
    yield from [
        Row(
            "recorder: resident memory, 1 minute → 10 hours of samples every 10 ms, 3 series",
            "—",
            "—",
            "—",
            f"{found['rss'][0] / kib:.0f} → {found['rss'][1] / kib:.0f} KiB ({growth / kib:+.0f} KiB)",
            f"constant (≤ {MOST_GROWTH / kib:.0f} KiB)",
            growth <= MOST_GROWTH,
        ),
        Row(
            "recorder: its file, and the blocks it takes on disk",
            "—",
            "—",
            "—",
            f"{sizes[0] / kib:.0f} → {sizes[1] / kib:.0f} KiB; {blocks[0] / kib:.0f} → {blocks[1] / kib:.0f} KiB",
            f"constant, ≤ {MOST_FILE / kib:.0f} KiB",
            sizes[0] == sizes[1] <= MOST_FILE and blocks[0] == blocks[1],
        ),
        Row(
            "recorder: adding one sample",
            "—",
            "—",
            "—",
            f"{1e6 * found['seconds_per_sample']:.2f} µs",
        ),
    ]


def record_ten_hours() -> None:
    """Feed ten hours of samples through what the sampler keeps of a run; print what it took as JSON."""
    from tf_mem_magic.core.recording import Cell
    from tf_mem_magic.record.sampler import _Track
    from tf_mem_magic.record.store.file import open_store

    store = open_store(Cell("model.fit(x, y)"))
    assert store.path is not None, store.notice
    tracks = [_Track(store.timeline(name)) for name in SERIES]
    found = [(0.0, 0, 0)]
    at = 0.0
    began = time.perf_counter()
    samples = 0
    for end in (MINUTE, TEN_HOURS):
        next_tick = at
        while at < end:
            # A tick's worth of samples; then, to save time after every tenth only, what the live strip takes of them.
            for _ in range(round(TICK / INTERVAL)):
                at += INTERVAL
                value = int(1e9 * (2 + math.sin(at)))
                for track in tracks:
                    track.add(at, value)
                samples += len(tracks)
            if at >= next_tick:
                store.set_seconds(at)
                [track.live.points() for track in tracks]
                next_tick = at + 10 * TICK
        found.append((resident(), *file_size(store.path)))
    seconds = time.perf_counter() - began
    store.finish("ok")
    rss, size, blocks = zip(*found[1:])
    print(json.dumps({"rss": rss, "file": size, "blocks": blocks, "seconds_per_sample": seconds / samples}))


def resident() -> int:
    """Give the resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def file_size(path: Path) -> tuple[int, int]:
    """Give a file's size and the bytes that it takes on disk."""
    found = path.stat()
    return found.st_size, 512 * found.st_blocks


if __name__ == "__main__":
    record_ten_hours()
