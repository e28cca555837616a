"""A model of an earlier run that only a History keeps: named, offered to be let go of, and really gone."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc

pytestmark = [pytest.mark.kernel, pytest.mark.oldest, pytest.mark.tf, pytest.mark.timeout(900)]

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
from keras import layers
x = np.zeros((8192, 256), "float32")
def build():
    model = keras.Sequential([keras.Input((256,)), *(layers.Dense(512, "relu") for _ in range(8)), layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    return model"""
CELL = "%%tfmem -o rep\nmodel = build()\nhistory = model.fit(x, x[:, :1], batch_size={}, verbose=0)"
VALUE = "next((v.bytes, v.kind, v.origin) for v in rep.recording.facts.values if v.name == 'history')"


@pytest.fixture(scope="module")
def kernel():
    with Kernel(bfc(200)) as running:
        assert running.run(SETUP).status == "ok"
        assert running.run(CELL.format(256)).status == "ok"
        running.run(CELL.format(8192))
        assert running.value("rep.status") == "oom"
        yield running


def test_the_history_is_named_as_what_keeps_the_model(kernel):
    size, kind, origin = kernel.value(VALUE)
    assert (kind, origin) == ("History and its model", "earlier")
    parameters = 256 * 512 + 7 * 512 * 512 + 8 * 512 + 512 + 1
    assert 3 * 4 * parameters <= size <= 3 * 4 * parameters + 64


def test_it_is_offered_to_be_let_go_of_although_the_cell_sets_the_name_anew(kernel):
    declined = "[d.settings for d in rep.outcome.declined if d.key == 'free-leftovers' and d.settings]"
    kernel.run(f"free = [p for p in (*rep.outcome.offered, *{declined}) if p.key == 'free-leftovers']")
    assert "history" in kernel.value("[pick.name for pick in free[0].picks]")
    assert 'apply.free("history")' in kernel.value("free[0].source")


def test_the_models_memory_comes_back(kernel):
    held = kernel.value("tf.config.experimental.get_memory_info('CPU:0')['current']")
    kernel.run("get_ipython().run_cell('%tfmem free model')")
    said = kernel.run("%tfmem free history").out
    assert "came back" in said
    left = kernel.value("tf.config.experimental.get_memory_info('CPU:0')['current']")
    assert left <= held - kernel.value(VALUE)[0]
