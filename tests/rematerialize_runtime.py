"""The harness of the tests of ``apply.rematerialize``: train a model with and without it, and compare."""

from __future__ import annotations

IMPORTS = """
import json, warnings
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply
L = keras.layers
"""

HARNESS = """
X = np.random.default_rng(0).integers(0, 50, (32, 64)); Y = np.random.default_rng(1).integers(0, 4, 32)
info = tf.config.experimental.get_memory_info
def train(
    Block, eager=False, given="", wrap=None, loop="", jit=False, inference=False, then=None, optimizer=None, validate=False
):
    if wrap is not None:
        Block = type("Block", (Block,), {"call": wrap(Block.call)})
    keras.utils.set_random_seed(1)
    model = build(Block, given)
    if then is not None:
        then(model)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss_of, run_eagerly=eager, jit_compile=jit)
    if optimizer != "adam":
        model.optimizer.build(model.trainable_variables)  # else Keras traces the step twice
    more = []
    start = info("CPU:0")["current"]; tf.config.experimental.reset_memory_stats("CPU:0")
    if loop:
        optimizer = keras.optimizers.SGD(0.1)
        def forward(x):
            return model(x, training=not inference)
        if loop == "two functions":
            forward = tf.function(forward)
        def step(x, y):
            with tf.GradientTape() as tape:
                loss = loss_of(y, forward(x))
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
        if loop == "graph":
            step = tf.function(step, jit_compile=jit)
        for i in range(0, 32, 16):
            step(tf.constant(X[i:i + 16]), tf.constant(Y[i:i + 16]))
    else:
        checked = {"validation_data": (X[:16], Y[:16])} if validate else {}
        history = model.fit(X, Y, batch_size=16, verbose=0, shuffle=False, **checked).history
        more = [np.array(value) for value in history.values()]
    peak = info("CPU:0")["peak"] - start
    return [v.numpy() for v in model.variables] + more, peak

plain = {}
def compare(Block, wrap=apply.rematerialize, **how):
    key = (Block, keras.config.dtype_policy().name, *how.items())
    if key not in plain:
        plain[key] = train(Block, **how)
    before, peak = plain[key]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        after, less = train(Block, wrap=wrap, **how)
    words = [str(w.message) for w in told if "rematerialized" in str(w.message)]
    return {"gap": float(max(np.abs(a - b).max() for a, b in zip(before, after))), "peaks": [peak, less], "told": words}
"""
"""Compares all variables (seeds and statistics too) and losses, with ``validate`` of validation too; needs ``build``.

Plain descent shows every gradient in the weights as it is.
"""
