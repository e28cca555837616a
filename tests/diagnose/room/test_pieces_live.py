"""A pool in pieces, for real: the first failure of a small convolution network, and its change in a fresh kernel."""

import json

import pytest

from tests.kernel import Kernel, bfc, surviving

pytestmark = pytest.mark.kernel

LIMIT = 49
MAKE = """
%load_ext tf_mem_magic
import json
import numpy as np
import keras
from keras import layers
keras.utils.set_random_seed(0)
net = keras.Sequential([
    keras.Input((28, 28, 1)),
    layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2),
    layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2),
    layers.Flatten(), layers.Dense(10),
])
net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
x, y = np.ones((384, 28, 28, 1), "float32"), np.zeros((384,), "int32")
"""
CELL = "%%tfmem -o ran --no-live\nnet.fit(x, y, batch_size=128, epochs=1, verbose=0)"
TOLD = (
    "first = next(p for p in ran.proposals if p.key == 'smaller-batch')\n"
    "print(json.dumps([first.takes_effect, first.source, dict(first.environment), first.estimate.high, "
    "[c.label for c in first.choices]]))"
)


def fails():
    with Kernel(bfc(LIMIT)) as kernel:
        assert kernel.run(MAKE).status == "ok"
        assert "ResourceExhausted" in kernel.run(CELL).errors[-1]
        return json.loads(kernel.run(TOLD).out)


def test_the_first_failure_offers_a_fresh_kernel_and_what_it_expects_there_is_what_is_measured():
    """In its own kernel each batch fails again: two buffers of 17 MiB, and regions of at most 16."""
    takes_effect, source, environment, high, choices = surviving(fails)
    assert takes_effect == "restart"
    assert "Without a restart" in choices
    with Kernel(bfc(LIMIT) | environment) as kernel:
        assert kernel.run(MAKE).status == "ok"
        assert kernel.run(source).status == "ok"
        measured = kernel.value("ran.recording.main.peak")
    assert high >= measured
    assert measured > 32 << 20  # a buffer in a chunk of a whole region
