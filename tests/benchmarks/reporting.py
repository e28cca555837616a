"""From the exception to the words, the buttons and the figure, and how long letting go takes after that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks.table import Row, single_row
from tests.kernel import Kernel, bfc

TEXT_MS = 500
FIGURE_MS = 1000

SETUP = """
import time
import numpy as np, tensorflow as tf, keras
left = []
get_ipython().events.register("post_run_cell", lambda result: left.append(time.time()))
"""
"""Registered before the extension is loaded, so that it tells when IPython has shown its traceback."""

WATCH_RELEASE = """
from tf_mem_magic.release import release
_release = release.release_exception
released = []
def timed_release(*arguments, **keywords):
    began = time.perf_counter()
    try:
        return _release(*arguments, **keywords)
    finally:
        released.append(time.perf_counter() - began)
release.release_exception = timed_release
"""

CELL = """
x = np.zeros((32768, 64), "float32"); y = np.zeros((32768, 1), "float32")
layers = [keras.layers.Dense(1024, activation="relu") for _ in range(4)] + [keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((64,)), *layers])
model.compile("sgd", "mse")
try:
    model.fit(x, y, batch_size=32768, epochs=1, verbose=0)
except Exception:
    raised = time.time()
    raise
"""

WITHOUT_WAIT = """
class AtOnce(keras.Model):
    def train_step(self, data):
        raise tf.errors.ResourceExhaustedError(None, None, MESSAGE)
keras.Sequential = lambda layers: AtOnce()
MESSAGE = (
    "OOM when allocating tensor with shape[32768,1024] and type float on "
    "/job:localhost/replica:0/task:0/device:CPU:0 by allocator bfc_cpu_allocator_for_gpu"
)
"""
"""Makes the same cell fail in its first step, with TensorFlow's own error but without its ten seconds of waiting."""


@dataclass(frozen=True, slots=True)
class Moments:
    """When things were there, in seconds after the exception: IPython's traceback, words, buttons, figure, release."""

    traceback: float
    words: float
    buttons: float
    figure: float
    released: float


def measure(environment: Mapping[str, str], count: int = 5) -> list[Row]:
    """Run out of memory for real: the first time in a kernel, and again; then once without the allocator's wait."""
    first, later, cold = [], [], []
    for number in range(3):
        with open_kernel(environment) as kernel:
            first.append(moments(kernel, CELL))
            if number == 0:
                later = [moments(kernel, CELL) for _ in range(count)]
        with open_kernel(environment) as kernel:
            kernel.run(WITHOUT_WAIT)
            cold.append(moments(kernel, CELL))
    return [
        *rows("out of memory, again in the same kernel", later, TEXT_MS, FIGURE_MS),
        *rows("first out of memory of a kernel", first, TEXT_MS, FIGURE_MS),
        *rows("first, and raised at once so that there is no wait to import in", cold, None, None),
    ]


def open_kernel(environment: Mapping[str, str]) -> Kernel:
    """Start a kernel in which a page with a person is assumed, so that a panel with buttons appears."""
    kernel = Kernel({**environment, **bfc(512)}, allow_stdin=True)
    for code in (SETUP, "_ = tf.constant(1.0) + 1", "%load_ext tf_mem_magic", WATCH_RELEASE):
        ran = kernel.run(code)
        assert ran.status == "ok", ran.errors
    return kernel


def moments(kernel: Kernel, cell: str) -> Moments:
    """Run the tagged cell, which fails, and read the kernel's own clock."""
    ran = kernel.run("%%tfmem\n" + cell)
    assert ran.status == "error", ran.report_text
    assert "Out of memory" in ran.report_text, ran.errors
    sent = list(zip(ran.messages, ran.sent))
    reports = [(at, content["data"]) for (kind, content), at in sent if kind == "update_display_data"]
    words = next(at for at, data in reports if "Out of memory" in data.get("text/plain", ""))
    figure = next(at for at, data in reports if "data:image/png" in data.get("text/html", ""))
    buttons = max(at for (kind, content), at in sent if kind.startswith("comm_") and makes_button(kind, content))
    raised, left, released = kernel.value("(raised, left[-1], released[-1])")
    return Moments(left - raised, words - raised, buttons - raised, figure - raised, released)


def makes_button(kind: str, content: dict[str, object]) -> bool:
    """Tell whether a message makes a button."""
    return kind == "comm_open" and "ButtonModel" in json.dumps(content.get("data"), default=str)


def rows(name: str, found: list[Moments], text_ms: float | None, figure_ms: float | None) -> list[Row]:
    """Give the rows for one kind of failure."""
    return [
        single_row(f"{name}: exception → IPython's own traceback", tuple(m.traceback for m in found)),
        single_row(f"{name}: exception → text", tuple(m.words for m in found), text_ms),
        single_row(f"{name}: exception → buttons", tuple(m.buttons for m in found), text_ms),
        single_row(f"{name}: exception → figure", tuple(m.figure for m in found), figure_ms),
        single_row(f"{name}: release and gc, after the report", tuple(m.released for m in found)),
    ]
