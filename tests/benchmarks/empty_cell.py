"""An empty cell, plain and tagged, in one kernel: what every watched cell costs at least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.benchmarks.loading import timed
from tests.benchmarks.pairs import Pairs, take_pairs
from tests.benchmarks.table import Row, paired_row, single_row
from tests.kernel import Kernel, bfc

MOST_MS = 20
MOST_LONG_MS = 100
LONG = "\n".join(f"value_{n % 50} = {n}" for n in range(10_000))
WAKE_TENSORFLOW = "import tensorflow as tf, keras; _ = tf.constant(1.0) + 1"
MANY_NAMES = """
import numpy as np
for n in range(500):
    globals()[f"array_{n}"] = np.ones(n)
    globals()[f"table_{n}"] = {"a": [1, 2, 3], "b": "text"}
vocabulary = {str(n): n for n in range(100_000)}
history = [float(n) for n in range(100_000)]
model = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(8) for _ in range(40))])
"""


def measure(environment: Mapping[str, str], count: int = 40) -> Iterator[Row]:
    """Compare empty cells without and with TensorFlow, with many names, and in always-on mode."""
    with Kernel({**environment, **bfc(1024)}, allow_stdin=True) as kernel:
        kernel.run("%load_ext tf_mem_magic")
        first = timed(kernel, "%%tfmem\npass")
        yield single_row("first tagged cell of a kernel (imports the recorder and the report)", (first,))
        yield paired_row("empty cell, TensorFlow not imported", tagged_pairs(kernel, count), MOST_MS)
        assert kernel.run(WAKE_TENSORFLOW).status == "ok"
        yield paired_row("empty cell, TensorFlow initialised", tagged_pairs(kernel, count), MOST_MS)
        yield paired_row("empty cell, always-on mode", always_on_pairs(kernel, count), MOST_MS)
        assert kernel.run(MANY_NAMES).status == "ok"
        many = "empty cell, 1000 names, long lists and dicts, a model of 40 layers"
        yield paired_row(many, tagged_pairs(kernel, count), MOST_MS)
        pairs = take_pairs(5, lambda: timed(kernel, LONG), lambda: timed(kernel, f"%%tfmem\n{LONG}"))
        yield paired_row("a cell of 10,000 lines that succeeds", pairs, MOST_LONG_MS)


def tagged_pairs(kernel: Kernel, count: int) -> Pairs:
    """Alternate plain and tagged empty cells, after one of each."""
    timed(kernel, "pass"), timed(kernel, "%%tfmem\npass")
    return take_pairs(count, lambda: timed(kernel, "pass"), lambda: timed(kernel, "%%tfmem\npass"))


def always_on_pairs(kernel: Kernel, count: int) -> Pairs:
    """Alternate untagged empty cells with always-on mode off and on."""

    def after(command: str) -> float:
        timed(kernel, command)
        return timed(kernel, "pass")

    return take_pairs(count, lambda: after("%tfmem off"), lambda: after("%tfmem on"))
