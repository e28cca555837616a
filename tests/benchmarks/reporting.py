"""From the exception to the words, the buttons and the figure, and how long letting go takes after that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

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
from tf_mem_magic.release import errors as release
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
raises = {"errors": tf.errors, "message": (
    "OOM when allocating tensor with shape[32768,1024] and type float on "
    "/job:localhost/replica:0/task:0/device:CPU:0 by allocator bfc_cpu_allocator_for_gpu"
)}
exec(compile('''def train_step(self, data):
    raise errors.ResourceExhaustedError(None, None, message)
''', keras.__file__, "exec"), raises)
keras.Model.train_step = raises["train_step"]
"""
"""Makes the same cell fail in its first step, with TensorFlow's own error but without its ten seconds of waiting.

Keras's own step raises it, so that the model stays one of Keras, and the remedies have something to offer.
"""


@dataclass(frozen=True, slots=True)
class Moments:
    """When things were there, in seconds after the exception: IPython's traceback, words, buttons, figure, release.

    None where something never was there.
    """

    traceback: float | None
    words: float | None
    buttons: float | None
    figure: float | None
    released: float | None


def measure(environment: Mapping[str, str], count: int = 5) -> Iterator[Row]:
    """Run out of memory for real: the first time in a kernel, and again; then once without the allocator's wait."""
    first, cold = [], []
    for number in range(3):
        with open_kernel(environment) as kernel:
            first.append(moments(kernel, CELL))
            if number == 0:
                later = [moments(kernel, CELL) for _ in range(count)]
                yield from rows("out of memory, again in the same kernel", later, TEXT_MS, FIGURE_MS)
    yield from rows("first out of memory of a kernel", first, TEXT_MS, FIGURE_MS)
    for _ in range(3):
        with open_kernel(environment) as kernel:
            kernel.run(WITHOUT_WAIT)
            cold.append(moments(kernel, CELL))
    yield from rows("first, and raised at once so that there is no wait to import in", cold, None, None)


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
    words = next((at for at, data in reports if "Out of memory" in data.get("text/plain", "")), None)
    figure = next((at for at, data in reports if "image/png" in data), None)
    buttons = max((at for (kind, content), at in sent if makes_button(kind, content)), default=None)
    raised, left, released = kernel.value("(raised, left[-1], (released or [None])[-1])")
    after = [None if at is None else at - raised for at in (left, words, buttons, figure)]
    return Moments(*after, released)


def makes_button(kind: str, content: dict[str, object]) -> bool:
    """Tell whether a message makes a button."""
    return kind == "comm_open" and "ButtonModel" in json.dumps(content.get("data"), default=str)


def rows(name: str, found: list[Moments], text_ms: float | None, figure_ms: float | None) -> Iterator[Row]:
    """Give the rows for one kind of failure; what was not there every time misses its target."""
    for what, part, most_ms in (
        ("exception → IPython's own traceback", "traceback", None),
        ("exception → text", "words", text_ms),
        ("exception → buttons", "buttons", text_ms),
        ("exception → figure", "figure", figure_ms),
        ("release and gc, after the report", "released", None),
    ):
        seconds = [getattr(one, part) for one in found]
        there = tuple(one for one in seconds if one is not None)
        row = single_row(f"{name}: {what}", there or (float("nan"),), most_ms)
        if len(there) < len(seconds):
            row = replace(row, cost=f"there in {len(there)} of {len(seconds)} runs", met=False)
        yield row
