"""``apply.rematerialize`` on real layers: bit by bit the same training in less memory, or the layer as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel import bfc

pytestmark = [pytest.mark.tf, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[1]

SCRIPT = """
import json, warnings
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply
L = keras.layers

class Attention(L.Layer):
    def __init__(self, width=32):
        super().__init__()
        self.attend = L.MultiHeadAttention(2, width // 2); self.first = L.LayerNormalization()
        self.wide = L.Dense(4 * width, "gelu"); self.narrow = L.Dense(width); self.second = L.LayerNormalization()
    def call(self, x, allowed=None, training=False):
        x = self.first(x + self.attend(x, x, attention_mask=allowed))
        return self.second(x + self.narrow(self.wide(x)))

class Convolution(L.Layer):
    def __init__(self):
        super().__init__(); self.parts = [L.Conv1D(32, 3, padding="same", activation="relu") for _ in range(4)]
    def call(self, x, allowed=None):
        for part in self.parts:
            x = part(x)
        return x

class Two(L.Layer):
    def __init__(self):
        super().__init__(); self.a = L.Dense(32, "gelu"); self.b = L.Dense(32, "gelu")
    def call(self, x, allowed=None, other=None):
        return self.b(self.a(x)) * other

def inner_is(make):
    class Block(L.Layer):
        def __init__(self):
            super().__init__(); self.inner = make(); self.dense = L.Dense(32)
        def call(self, x, allowed=None):
            return self.dense(self.inner(x))
    return Block

class Several(Convolution):
    def call(self, x, allowed=None):
        return [x, self.parts[0](x)]

class Own(L.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(32,), initializer="ones")
    def call(self, x, allowed=None):
        return keras.ops.gelu(x * self.scale)

def build(Block, given):
    inputs = keras.Input((64,), dtype="int32"); h = L.Embedding(50, 32)(inputs)
    allowed = L.Lambda(lambda t: tf.ones((tf.shape(t)[0], 64, 64), bool))(inputs)
    for _ in range(4):
        more = {"other": L.Dense(32)(h)} if given == "two" else {}
        h = Block()(h, allowed=allowed, **more)
        h = h[1] if isinstance(h, list) else L.Dropout(0.1)(h)
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling1D()(h)))

X = np.random.default_rng(0).integers(0, 50, (48, 64)); Y = np.random.default_rng(1).integers(0, 4, 48)
info = tf.config.experimental.get_memory_info
def train(Block, eager=False, given="", wrap=None, loop=False):
    if wrap is not None:
        Block = type("Block", (Block,), {"call": wrap(Block.call)})
    keras.utils.set_random_seed(1)
    model = build(Block, given)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss_of, run_eagerly=eager, jit_compile=False)
    start = info("CPU:0")["current"]; tf.config.experimental.reset_memory_stats("CPU:0")
    if loop:
        optimizer = keras.optimizers.SGD(0.1)
        @tf.function
        def step(x, y):
            with tf.GradientTape() as tape:
                loss = loss_of(y, model(x, training=True))
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
        for i in range(0, 48, 16):
            step(tf.constant(X[i:i + 16]), tf.constant(Y[i:i + 16]))
    else:
        model.fit(X, Y, batch_size=16, verbose=0, shuffle=False)
    return model.get_weights(), info("CPU:0")["peak"] - start

def compare(Block, wrap=apply.rematerialize, **how):
    before, peak = train(Block, **how)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        after, less = train(Block, wrap=wrap, **how)
    words = [str(w.message) for w in told if "rematerialized" in str(w.message)]
    return {"gap": float(max(np.abs(a - b).max() for a, b in zip(before, after))), "peaks": [peak, less], "told": words}

found = {
    "attention in a graph": compare(Attention),
    "attention, eagerly": compare(Attention, eager=True),
    "attention in a loop of one's own": compare(Attention, loop=True),
    "convolutions": compare(Convolution),
    "two tensors, one by name": compare(Two, given="two"),
    "weights of its own": compare(Own),
    "dropout": compare(inner_is(lambda: L.Dropout(0.5))),
    "batch normalization": compare(inner_is(L.BatchNormalization)),
    "recurrent": compare(inner_is(lambda: L.LSTM(32, return_sequences=True))),
    "activity loss": compare(inner_is(lambda: L.Dense(32, activity_regularizer="l2"))),
    "several outputs": compare(Several),
}
keras.config.set_dtype_policy("mixed_bfloat16")
found["attention in 16 bits"] = compare(Attention)
found["weights of its own in 16 bits"] = compare(Own)
keras.config.set_dtype_policy("float32")

def plainly(call):
    return lambda self, x, allowed=None: keras.remat(lambda tensor: call(self, tensor))(x)
bare = inner_is(lambda: L.Dropout(0.5)), inner_is(L.BatchNormalization), inner_is(lambda: L.Dense(32, activity_regularizer="l2"))
for name, Block in zip(("dropout", "batch normalization", "activity loss"), bare):
    found[f"{name}, by keras.remat alone"] = compare(Block, plainly)
once = apply.rematerialize(Attention.call)
found["idempotent"] = apply.rematerialize(once) is once and once.__wrapped__ is Attention.call
print("FOUND" + json.dumps(found))
"""

LESS = ("attention in a graph", "attention, eagerly", "attention in a loop of one's own", "attention in 16 bits")
EXACT = (*LESS, "convolutions", "two tensors, one by name", "weights of its own")
REFUSED = {
    "dropout": "Dropout draws random numbers",
    "batch normalization": "BatchNormalization has state",
    "recurrent": "draws random numbers",
    "activity loss": "Dense adds a loss of its activations",
    "several outputs": "something else than one tensor",
    "weights of its own in 16 bits": "it has weights of its own and computes in 16 bits",
}


@pytest.fixture(scope="module")
def found():
    env = {**os.environ, **bfc(1024), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=850)
    assert "FOUND" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.partition("FOUND")[2])


@pytest.mark.parametrize("name", EXACT)
def test_weights_after_training_are_those_without_it(found, name):
    assert [] == found[name]["told"]
    assert found[name]["gap"] <= 1e-6


@pytest.mark.parametrize("name", LESS)
def test_the_peak_is_less_than_half(found, name):
    before, after = found[name]["peaks"]
    assert after < 0.5 * before


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_cannot_be_computed_twice_is_called_as_it_was_and_says_why(found, name):
    assert found[name]["gap"] == 0
    assert any(REFUSED[name] in told for told in found[name]["told"]), found[name]["told"]


@pytest.mark.parametrize("name", ["dropout", "batch normalization", "activity loss"])
def test_without_that_refusal_the_training_would_have_been_another(found, name):
    assert found[f"{name}, by keras.remat alone"]["gap"] > 1e-4


def test_decorating_twice_is_decorating_once(found):
    assert found["idempotent"]
