"""What explaining costs: with earlier cells, with a long cell, with many names. Processor time of this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median

from tests.benchmarks.table import Row, milliseconds
from tf_mem_magic.core.facts import BatchSeen, Facts, ModelFacts, NamedValue
from tf_mem_magic.core.recording import Cell, ErrorText, Frame, Recording, Series
from tf_mem_magic.explain import explain

MIB = 1 << 20
EARLIER = (100, 400)
MOST_RATIO = 2.0
MOST_MS = 300
MOST_LONG_MS = 1000
ROUNDS = 5

MESSAGE = (
    "OOM when allocating tensor with shape[4096,1024] and type float on "
    "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc"
)
EARLIER_CELL = """# step {n} of the notebook
import numpy as np
rows_{n} = np.arange(1000 + {n})
table_{n} = {{"first": rows_{n}[:10], "rest": rows_{n}[10:]}}
def scaled_{n}(values, factor=2.0):
    total = 0.0
    for value in values:
        if value > {n}:
            total += value * factor
    return total
class Holder_{n}:
    size = {n}
    def grow(self, by):
        return Holder_{n}.size + by
result_{n} = scaled_{n}(rows_{n}) + Holder_{n}().grow(3)
print(result_{n})"""
"""Sixteen lines, with a function, a class and names that later cells could use."""

KERAS_CELL = """# experiment {n}
import keras, numpy as np
inputs_{n} = keras.Input((32,))
def build_{n}(width=64, depth=3):
    h = inputs_{n}
    for _ in range(depth):
        h = keras.layers.Dense(width, "relu")(h)
    return keras.Model(inputs_{n}, keras.layers.Dense(1)(h))
class Scaled_{n}(keras.layers.Layer):
    def call(self, x):
        return x * {n}
net_{n} = build_{n}()
net_{n}.compile(optimizer="adam", loss="mse", metrics=["mae"])
history_{n} = net_{n}.fit(x, y, batch_size=32, epochs=2, verbose=0)
error_{n} = float(np.abs(net_{n}.predict(x) - y).mean())
print("experiment", {n}, "error", error_{n})"""
"""Sixteen lines about models, which remedies must look at."""

TRAINING = """%%tfmem
model = keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(1024, "relu") for _ in range(4)), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(x, y, batch_size=4096, epochs=3)"""


def measure(environment: Mapping[str, str]) -> Iterator[Row]:
    """Explain a cell that ran out of memory; nothing of the environment plays a part."""
    seconds_of(failed(TRAINING))  # imports the remedies
    none = seconds_of(failed(TRAINING))
    for kind, block in (("data", EARLIER_CELL), ("models", KERAS_CELL)):
        for count in EARLIER:
            cells = tuple(block.format(n=n) for n in range(count))
            first = process_seconds(failed(TRAINING, cells))
            what = f"{count} earlier cells of 16 lines about {kind}"
            yield ratio_row(f"explain, {what}, none of them read before", first, none, MOST_MS)
            other = median(process_seconds(failed(TRAINING + f"  # {n}", cells)) for n in range(ROUNDS))
            alone = median(process_seconds(failed(TRAINING + f"  # alone {n}")) for n in range(ROUNDS))
            yield ratio_row(f"explain, {what}, another cell than before", other, alone, MOST_MS, MOST_RATIO)
            again = seconds_of(failed(TRAINING, cells))
            yield ratio_row(f"explain, {what}, the same cell again", again, none, MOST_MS, MOST_RATIO)
    yield ratio_row("explain, a cell of 50 KB: plain lines", seconds_of(failed(long_cell())), none, MOST_LONG_MS)
    yield ratio_row("explain, a cell of 50 KB: one list", seconds_of(failed(long_list())), none, MOST_LONG_MS)
    values = tuple(NamedValue(f"array_{n}", MIB, "numpy.ndarray", "host") for n in range(2000))
    yield ratio_row("explain, 2000 names that hold arrays", seconds_of(failed(TRAINING, values=values)), none, MOST_MS)
    bound = "\n".join(f"name_{n} = {n} + name_{max(n - 1, 0)}" for n in range(1000))
    yield ratio_row(
        "explain, 1000 names bound in the cell", seconds_of(failed(before_training(bound))), none, MOST_LONG_MS
    )


def failed(source: str, earlier: tuple[str, ...] = (), values: tuple[NamedValue, ...] = ()) -> Recording:
    """Give the recording of a cell whose last line ran out of memory."""
    line = source.count("\n") + 1
    frame = Frame("cell.py", line, "<module>", True, True)
    error = ErrorText("ResourceExhaustedError", MESSAGE, (frame,),
                      ("tensorflow.python.framework.errors_impl.ResourceExhaustedError",))  # fmt: skip
    series = Series("allocator:GPU:0", (0.0, 1.0), (MIB, 90 * MIB), 95 * MIB, "counter", 100 * MIB, "configured")
    facts = Facts(
        tensorflow="2.21.0",
        keras="3.15.1",
        initialised=True,
        models=(ModelFacts("model", ("Dense",), "Adam", weight_bytes=13 * MIB, device="GPU:0"),),
        batches=(BatchSeen("fit", 4096, "arrays"),),
        values=values,
        earlier_cells=("import keras, numpy as np, tensorflow as tf", *earlier),
    )
    return Recording(Cell(source), 1.0, (series,), "oom", (error,), facts=facts)


def before_training(lines: str) -> str:
    """Put lines in front of the cell that trains."""
    tag, _, training = TRAINING.partition("\n")
    return f"{tag}\n{lines}\n{training}"


def long_cell() -> str:
    """Give a cell of 50 KB of plain lines that trains at its end."""
    lines = [f"part_{n} = np.dot(left[{n}], right[{n}]) + offset_{n % 7}" for n in range(1000)]
    return before_training("\n".join(lines))


def long_list() -> str:
    """Give a cell that writes 50 KB of numbers down and trains at its end."""
    return before_training("numbers = [" + ", ".join(str(n) for n in range(8700)) + "]")


def seconds_of(recording: Recording) -> float:
    """Explain the recording several times; give the median of the processor time."""
    found: list[float] = []
    while len(found) < ROUNDS and sum(found) <= 5:
        found.append(process_seconds(recording))
    return median(found)


def process_seconds(recording: Recording) -> float:
    """Explain the recording once; give the processor time."""
    began = time.process_time()
    outcome = explain(recording)
    seconds = time.process_time() - began
    assert outcome.offered, "a cell for which nothing is offered measures nothing"
    return seconds


def ratio_row(name: str, seconds: float, none: float, most_ms: float, most_ratio: float | None = None) -> Row:
    """Give the row for one explanation, beside the one of the short cell without earlier ones."""
    limits = [f"≤ {most_ms:g} ms", *([] if most_ratio is None else [f"≤ × {most_ratio:g}"])]
    met = 1000 * seconds <= most_ms and (most_ratio is None or seconds <= most_ratio * none)
    return Row(
        name,
        milliseconds(none),
        milliseconds(seconds),
        f"{seconds / none:.2f}",
        milliseconds(seconds - none),
        ", ".join(limits),
        met,
    )
