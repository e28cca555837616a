"""A training cell of about ten seconds, plain and tagged: the processor time that watching it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from tests.benchmarks.loading import timed
from tests.benchmarks.pairs import Pairs, spread, take_pairs
from tests.benchmarks.table import Row
from tests.kernel import Kernel, bfc

SECONDS = 10
MOST_SHARE = 0.01

MODEL = """
import time, threading
import numpy as np, tensorflow as tf, keras
x = np.random.rand(4096, 64).astype("float32")
y = np.random.rand(4096, 1).astype("float32")
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(1)])
model.compile("adam", "mse")
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(64).repeat()
def train(steps):
    model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0)
def sampler_seconds():
    \"\"\"Processor seconds of the sampler's thread, as Linux counts them.\"\"\"
    for thread in threading.enumerate():
        if thread.name == "tfmem-sampler":
            with open(f"/proc/self/task/{thread.native_id}/schedstat") as file:
                return int(file.read().split()[0]) / 1e9
def seconds_of(steps):
    began = time.perf_counter()
    train(steps)
    return time.perf_counter() - began
train(50)
per_step = min(seconds_of(1000) for _ in range(5)) / 1000
"""


SAMPLES = "len(__import__('tf_mem_magic').last_report().recording.get('host:rss').times)"
"""Ten seconds at ten milliseconds are fewer samples than a timeline has points for, so this counts all of them."""


class Trainer:
    """Runs the same training in one kernel and keeps what it measured."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        assert kernel.run("%load_ext tf_mem_magic").status == "ok"
        ran = kernel.run(MODEL)
        assert ran.status == "ok", ran.errors
        self._steps = int(SECONDS / kernel.value("per_step"))
        self.walls: list[float] = []
        self.shares: list[float] = []
        self.rates: list[float] = []

    def run(self, tag: str) -> float:
        """Train once and give the process's processor seconds, the wall time going to ``walls``."""
        self._kernel.run("used = time.process_time()")
        self.walls.append(timed(self._kernel, f"{tag}train({self._steps}); sampler = sampler_seconds()"))
        used = self._kernel.value("time.process_time() - used")
        if tag:
            self.shares.append(self._kernel.value("sampler") / self.walls[-1])
            self.rates.append(self._kernel.value(SAMPLES) / self.walls[-1])
        return used


def measure(environment: Mapping[str, str], count: int = 5) -> Iterator[Row]:
    """Compare at the default interval and at one millisecond, with the live panel on."""
    with Kernel({**environment, **bfc(1024)}, allow_stdin=True) as kernel:
        trainer = Trainer(kernel)
        trainer.run("%%tfmem\n")
        for interval, most in (("0.01", MOST_SHARE), ("0.001", None)):
            trainer.shares.clear()
            trainer.rates.clear()
            walls: dict[str, list[float]] = {"plain": [], "tagged": []}

            def once(kind: str, tag: str, walls: dict[str, list[float]] = walls) -> float:
                used = trainer.run(tag)
                walls[kind].append(trainer.walls[-1])
                return used

            tag = f"%%tfmem -i {interval}\n"
            used = take_pairs(
                count, lambda once=once: once("plain", ""), lambda once=once, tag=tag: once("tagged", tag)
            )
            name = f"training cell, {1000 * float(interval):g} ms sampling"
            yield thread_row(name, tuple(trainer.shares), most)
            yield rate_row(name, tuple(trainer.rates), 1 / float(interval))
            yield whole_row(f"{name}: processor time of the process", used)
            yield whole_row(f"{name}: wall time", Pairs(tuple(walls["plain"]), tuple(walls["tagged"])))


def thread_row(name: str, shares: tuple[float, ...], most: float | None) -> Row:
    """Give the row for the sampler thread's share of one core."""
    low, high = spread(shares)
    return Row(
        f"{name}: processor time of the sampler's thread",
        "—",
        "—",
        "—",
        f"{100 * median(shares):.2f} % of a core ({100 * low:.2f} to {100 * high:.2f} %)",
        "—" if most is None else f"≤ {100 * most:g} %",
        None if most is None else median(shares) <= most,
    )


def rate_row(name: str, rates: tuple[float, ...], asked: float) -> Row:
    """Give the row for the samples really taken: where they would cost more than their share they are fewer."""
    low, high = spread(rates)
    cost = f"{median(rates):.0f} a second ({low:.0f} to {high:.0f})"
    return Row(f"{name}: samples taken", "—", "—", "—", cost, f"asked: {asked:.0f}, as the share of a core allows")


def whole_row(name: str, pairs: Pairs) -> Row:
    """Give the row for seconds of whole runs; the noise of a shared machine shows in the spread."""
    low, high = spread(pairs.ratios)
    return Row(
        name,
        f"{median(pairs.plain):.2f} s",
        f"{median(pairs.tagged):.2f} s",
        f"{pairs.ratio:.3f}",
        f"{100 * (pairs.ratio - 1):+.1f} % ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} %)",
    )
