"""``apply.gradients_in_parts``: the loss and gradients of the whole, but for rounding, and less memory."""

from __future__ import annotations

import pytest

from tests.kernel import bfc
from tests.script import found_by

pytestmark = [pytest.mark.tf, pytest.mark.timeout(900)]

SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf
from tf_mem_magic import apply
rng = np.random.default_rng(0)
X = rng.standard_normal((1003, 8)).astype("float32"); Y = rng.standard_normal((1003, 1)).astype("float32")
ids = rng.integers(0, 20, (1003, 3))
keras.utils.set_random_seed(1)
net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
words = keras.Sequential([keras.Input((3,)), keras.layers.Embedding(20, 4), keras.layers.Flatten(), keras.layers.Dense(1)])
mse = keras.losses.MeanSquaredError()

def apart(loss_of, data, weights, size):
    with tf.GradientTape() as tape:
        whole = loss_of(*data)
    grads = tape.gradient(whole, weights)
    loss, found = apply.gradients_in_parts(loss_of, data, weights, size)
    assert [g is None for g in grads] == [g is None for g in found]
    pairs = [(tf.convert_to_tensor(a), b) for a, b in zip(grads, found) if a is not None]
    return max([abs(float(loss - whole)), *(float(tf.reduce_max(abs(a - b))) for a, b in pairs)])

def raised(*given):
    try:
        apply.gradients_in_parts(*given)
    except ValueError as error:
        return str(error)

plain = lambda x, y: mse(y, net(x))
found = {
    "arrays": [apart(plain, (X, Y), net.trainable_variables, size) for size in (1, 64, 500, 1003, 5000)],
    "tensors": apart(plain, (tf.constant(X), tf.constant(Y)), net.trainable_variables, 100),
    "one name": apart(lambda x: tf.reduce_mean(net(x) ** 2), (X,), net.trainable_variables, 100),
    "embedding": apart(lambda i, y: mse(y, words(i)), (ids, Y), words.trainable_variables, 100),
    "unused": apart(plain, (X, Y), [*net.trainable_variables, *words.trainable_variables], 100),
    "a term of weights": apart(
        lambda x, y: mse(y, net(x)) + 0.1 * tf.reduce_sum(net.weights[0] ** 2), (X, Y), net.trainable_variables, 100
    ),
    "raised": [
        raised(plain, (X, Y), net.trainable_variables, 0),
        raised(plain, (X, Y[:7]), net.trainable_variables, 9),
        raised(plain, (X[:0], Y[:0]), net.trainable_variables, 9),
    ],
}

wide = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(256, "relu") for _ in range(4)), keras.layers.Dense(1)])
many, labels = np.zeros((4096, 8), "float32"), np.zeros((4096, 1), "float32")

def peak(run):
    tf.config.experimental.reset_memory_stats("CPU:0")
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    run()
    return tf.config.experimental.get_memory_info("CPU:0")["peak"] - before

def whole():
    with tf.GradientTape() as tape:
        loss = mse(labels, wide(many))
    tape.gradient(loss, wide.trainable_variables)

whole()
found["peaks"] = [
    peak(whole),
    peak(lambda: apply.gradients_in_parts(lambda x, y: mse(y, wide(x)), (many, labels), wide.trainable_variables, 256)),
]
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, env=bfc(1000))


def test_loss_and_gradients_are_those_of_the_whole_but_for_rounding(found):
    worst = [*found["arrays"], *(found[name] for name in ("tensors", "one name", "embedding", "unused"))]
    assert max(*worst, found["a term of weights"]) < 1e-5


def test_parts_that_cannot_be_made_are_refused_with_the_reason(found):
    assert found["raised"] == [
        "a part has at least one sample, not 0",
        "the data must have one and the same number of samples, not 7, 1003",
        "the data must have one and the same number of samples, not 0",
    ]


def test_only_the_operations_of_one_part_are_in_memory_at_a_time(found):
    whole, parts = found["peaks"]
    assert parts < 0.4 * whole
