"""``rematerialize`` on a real out-of-memory error: no more blocks than needed, and the peak that was expected."""

from __future__ import annotations

import json

import pytest

from tests.kernel import Kernel, bfc

pytestmark = [pytest.mark.kernel, pytest.mark.tf, pytest.mark.timeout(600)]

SETUP = """%load_ext tf_mem_magic
import json, keras, numpy as np, tensorflow as tf, tf_mem_magic as t
x = np.random.default_rng(0).normal(size=(128, 64, 64)).astype("float32"); y = np.zeros((128, 1), "float32")
"""
CELL = """%%tfmem
class Block(keras.layers.Layer):
    def __init__(self, width=64):
        super().__init__()
        self.attend = keras.layers.MultiHeadAttention(4, width // 4)
        self.first = keras.layers.LayerNormalization(); self.second = keras.layers.LayerNormalization()
        self.wide = keras.layers.Dense(4 * width, "gelu"); self.narrow = keras.layers.Dense(width)
    def call(self, x):
        x = self.first(x + self.attend(x, x))
        return self.second(x + self.narrow(self.wide(x)))
h = inputs = keras.Input((64, 64))
for _ in range(6):
    h = Block()(h)
model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(h)))
model.compile("adam", "mse", jit_compile=False)
model.fit(x, y, batch_size=64, verbose=0)
"""
RERUN = """report = t.last_report()
offer = next(p for p in report.proposals if p.key == "rematerialize")
after = report.rerun("rematerialize")
print("FOUND" + json.dumps({
    "before": report.status, "after": after.status, "source": offer.source, "title": offer.title,
    "estimate": offer.estimate and [offer.estimate.low, offer.estimate.high], "limit": after.comparison.limit,
    "peak": after.comparison.after.peak, "choices": [c.label for c in offer.choices],
    "groups": [list(group) for group in offer.effect.recompute],
}))
"""


@pytest.fixture(scope="module")
def found():
    with Kernel(bfc(150)) as kernel:
        assert [] == kernel.run(SETUP).errors
        assert "ResourceExhaustedError" in "".join(kernel.run(CELL).errors)
        ran = kernel.run(RERUN)
        assert [] == ran.errors
        return json.loads(ran.out.partition("FOUND")[2])


def test_fewer_than_all_blocks_are_enough_and_the_rerun_fits(found):
    count = len(found["groups"])
    assert ("oom", "ok") == (found["before"], found["after"])
    assert 1 <= count < 6
    assert f"@apply.rematerialize(first={count}, of=6)" in found["source"]
    assert ["All 6"] == found["choices"]


def test_the_peak_is_the_one_that_was_expected(found):
    low, high = found["estimate"]
    assert low <= found["peak"] <= high <= found["limit"]
