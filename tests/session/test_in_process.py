"""Reruns in this process: each starts from the run that it is asked of, whatever other reruns came between."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf, tf_mem_magic as t
x = np.random.default_rng(1).random((4096, 256), "float32")
tf.zeros(1)
def facts(report):
    return [report.status, dict(report.recording.before)["allocator:CPU:0"], keras.config.dtype_policy().name]
"""
CELL = """%%tfmem
model = keras.Sequential([keras.Input((256,))] + [keras.layers.Dense(512, "relu") for _ in range(3)] + [keras.layers.Dense(512, "relu")])
model.compile("adam", "mse", jit_compile=False)
model.fit(x, x[:, :1], batch_size=4096, epochs=1, verbose=0)
"""
RERUN = """first = t.last_report()
found = [facts(first)]
for key in ("mixed-precision", "smaller-batch", "smaller-batch"):
    found.append(facts(first.rerun(key)))
"""


@pytest.fixture(scope="module")
def found():
    with Kernel(bfc(58)) as kernel:
        assert kernel.run(SETUP).status == "ok"
        assert kernel.run(CELL).status == "error"
        ran = kernel.run(RERUN)
        assert ran.status == "ok", ran.errors
        return kernel.value("found")


@pytest.mark.tf
@pytest.mark.kernel
@pytest.mark.oldest
@pytest.mark.timeout(300)
class TestLive:
    def test_what_another_rerun_set_is_taken_back_first(self, found):
        assert ["oom", "float32"] == found[0][::2]
        assert ["mixed_bfloat16", "float32", "float32"] == [policy for _, _, policy in found[1:]]

    def test_what_another_rerun_gave_is_let_go_of_first(self, found):
        assert "ok" == found[2][0]
        assert found[3][1] <= found[2][1] + 2**18
