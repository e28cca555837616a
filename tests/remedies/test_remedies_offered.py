"""Remedies that need more of a cell than its batch, on real out-of-memory errors: offered, rerun, and they fit."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc

pytestmark = [pytest.mark.kernel, pytest.mark.oldest, pytest.mark.tf, pytest.mark.timeout(900)]

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
from keras import layers
rng = np.random.default_rng(0)"""

OPTIMIZER = """%%tfmem -o rep
x = rng.random((64, 1024), "float32"); y = rng.random((64, 1), "float32")
model = keras.Sequential([keras.Input((1024,)), *(layers.Dense(1024, "relu") for _ in range(6)), layers.Dense(1)])
model.compile("adam", "mse", jit_compile=False)
model.fit(x, y, batch_size=16, epochs=2, verbose=0);"""

BLOCKS = """%%tfmem -o rep
class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(512, "gelu"); self.outer = layers.Dense(64); self.norm = layers.LayerNormalization()
    def call(self, x):
        return self.norm(x + self.outer(self.inner(x)))
x = rng.random((32, 128, 64), "float32"); y = rng.random((32, 128, 1), "float32")
h = inputs = keras.Input((128, 64))
for _ in range(6):
    h = Block()(h)
model = keras.Model(inputs, layers.Dense(1)(h))
model.compile("adam", "mse", jit_compile=False)
model.fit(x, y, batch_size=16, epochs=2, verbose=0);"""

EAGER = """%%tfmem -o rep
net = keras.Sequential([keras.Input((256,)), *(layers.Dense(256, "gelu") for _ in range(8)), layers.Dense(1)])
optimizer = keras.optimizers.SGD(0.1)
x = tf.constant(rng.random((8192, 256), "float32")); y = x[:, :1]
def train_step(a, b):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((net(a, training=True) - b) ** 2)
    gradients = tape.gradient(loss, net.trainable_variables)
    optimizer.apply_gradients(zip(gradients, net.trainable_variables))
    return loss
for _ in range(3):
    loss = train_step(x, y)"""

CASES = {"lighter-optimizer": (OPTIMIZER, 85), "rematerialize": (BLOCKS, 90), "graph-mode": (EAGER, 345)}


@pytest.mark.parametrize("key", CASES)
def test_it_is_offered_for_a_real_error_and_its_rerun_fits(key):
    cell, limit = CASES[key]
    with Kernel(bfc(limit)) as kernel:
        assert kernel.run(SETUP).status == "ok"
        ran = kernel.run(cell)
        assert kernel.value("rep.status") == "oom", ran.errors
        reasons = kernel.value("[(d.key, d.reason) for d in rep.outcome.declined]")
        assert key in kernel.value("[p.key for p in rep.outcome.offered]"), (reasons, ran.report_text)
        # Where in a step it fails, and in what pieces the free memory lies then, differs from run to run.
        assert kernel.value("rep.diagnosis.cause") in ("too-big", "fragmentation")
        again = kernel.run(f"new = rep.rerun({key!r})")
        assert kernel.value("new.status") == "ok", (again.errors, again.report_text)
        assert kernel.value("new.comparison.after.peak") <= limit << 20
