"""Training that lies in functions of earlier cells, in a real kernel: changed by a copy in the cell, and set back."""

from __future__ import annotations

import re

import pytest

from tests.kernel import Kernel, bfc

pytestmark = [pytest.mark.kernel, pytest.mark.tf]

SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
from keras import layers
from tf_mem_magic.session.in_process import undo_remedy
x = np.zeros((16384, 64), "float32"); y = np.zeros((16384, 1), "float32")
BATCH = 16384"""
BUILD = """def build(units=512):
    stack = [keras.Input((64,))] + [layers.Dense(units, activation="relu") for _ in range(4)] + [layers.Dense(1)]
    model = keras.Sequential(stack)
    model.compile("adam", "mse", jit_compile=False)
    return model"""
TRAIN = """def train():
    # all at once
    model = build()
    h = model.fit(x, y, batch_size=16384, epochs=1, verbose=0)
    return len(h.history["loss"])"""
STEP = """net = build()
optimizer = keras.optimizers.Adam()
sizes = []
@tf.function
def step(batch):
    noise = tf.zeros([BATCH, 1])
    sizes.append(noise.shape[0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((net(batch, training=True) - noise) ** 2)
    optimizer.apply_gradients(zip(tape.gradient(loss, net.trainable_variables), net.trainable_variables))"""
LOOP = """def run(data):
    for batch in data:
        step(batch)"""


@pytest.fixture(scope="module")
def kernel():
    with Kernel(bfc(150)) as running:
        for source in (SETUP, BUILD, TRAIN):
            assert running.run(source).status == "ok"
        yield running


def test_a_fit_in_an_earlier_function_is_made_to_fit_by_a_copy_and_set_back(kernel):
    cell = "%%tfmem -o first\nn = train()"
    assert kernel.run(cell).status == "error"
    parts = kernel.value("[(p.kind, p.names) for p in first.diagnosis.breakdown]")
    assert ("weights", ("model",)) in parts
    assert ("optimizer", ("model",)) in parts
    kernel.run("before, second = first, first.rerun('smaller-batch')")
    assert kernel.value("(second.status, second.comparison.checks, n)") == ("ok", (("batch", 8192, 8192),), 1)
    assert "batch_size=8192" in kernel.value("__import__('inspect').getsource(train)")
    told = "undo_remedy(get_ipython(), next(p for p in before.outcome.offered if p.key == 'smaller-batch').undo)"
    assert kernel.value(told) == "What the remedy set is taken back. "
    assert kernel.value("__import__('inspect').getsource(train)").rstrip() == TRAIN
    assert kernel.run(cell).status == "error"
    assert kernel.value("[(b.method, b.batch) for b in first.recording.facts.batches]") == [("fit", 16384)]


def test_without_a_click_too(kernel):
    got = kernel.run("%%tfmem --on-oom auto --keep any -o first\nprint(train())")
    assert (got.status, got.out, got.errors) == ("ok", "1\n", [])
    # How small depends on the peak of this very run.
    assert re.search(r"(?:of|Batch) (?:8192|4096): it fits", got.report_text)


def test_a_step_that_was_traced_with_a_name_of_an_earlier_cell_is_traced_anew(kernel):
    kernel.run("dataset = tf.data.Dataset.from_tensor_slices(x).batch(BATCH)")
    assert [kernel.run(source).status for source in (STEP, LOOP)] == ["ok", "ok"]
    assert kernel.run("%%tfmem -o first\nrun(dataset)").status == "error"
    kernel.run("before, second = first, first.rerun('smaller-batch')")
    status, first, last, batch = kernel.value("(second.status, sizes[0], sizes[-1], BATCH)")
    assert ("ok", 16384, batch) == (status, first, last)
    assert batch in {8192, 4096}  # whole batches, as before: the step makes its noise for whole ones
    assert kernel.value("second.recording.cell.source.count('def step')") == 1
    told = "undo_remedy(get_ipython(), next(p for p in before.outcome.offered if p.key == 'smaller-batch').undo)"
    assert kernel.value(told) == "What the remedy set is taken back. "
    assert kernel.value("BATCH") == 16384
    kernel.run("sizes.clear(); run(dataset.unbatch().batch(64).take(1))")
    assert kernel.value("sizes") == [16384]
