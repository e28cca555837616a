"""Loops and their gradients: the shapes that a gradient computes of shapes which the forward pass kept are known."""

from __future__ import annotations

import pytest

from tests.script import found_by

pytestmark = pytest.mark.tf

READ = """
import json, sys, time
import keras, tensorflow as tf
from keras import layers as L
from tf_mem_magic.trace.read import read_step
from tf_mem_magic.trace.sizes import flatten_at

class Scaled(L.Layer):
    "A cell whose gradient sums over the batch: its scale is broadcast."
    state_size = 6
    def build(self, shape):
        self.scale = self.add_weight(shape=(1, 6)); self.mix = self.add_weight(shape=(shape[-1], 6))
    def call(self, x, states):
        out = tf.tanh(tf.matmul(x, self.mix) * self.scale + states[0])
        return out, [out]

CASES = {
    "ConvLSTM": ((5, 8, 8, 2), L.ConvLSTM2D(3, 3, padding="same", return_sequences=True)),
    "ConvLSTM in one dimension": ((5, 8, 2), L.ConvLSTM1D(3, 3)),
    "LSTM both ways": ((7, 4), L.Bidirectional(L.LSTM(6, return_sequences=True))),
    "GRU": ((7, 4), L.GRU(6, reset_after=False)),
    "a cell of one's own": ((7, 4), L.RNN(Scaled())),
}
found = {}
for name, (shape, layer) in CASES.items():
    layer(tf.zeros((1, *shape)))
    @tf.function(input_signature=[tf.TensorSpec((None, *shape))])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x); loss = tf.reduce_sum(tf.square(layer(x)))
        return tape.gradient(loss, [x, *layer.trainable_variables])
    graph = step.get_concrete_function().graph
    flat = flatten_at(graph, [None] * len(graph.inputs), None, 9, time.thread_time() + 60)
    one = read_step(flat)
    numbers = lambda s: [t.shape for n in s.nodes for t in n.outputs if t.dtype == "float32" and not n.kind.startswith("TensorList")
                         and n.kind != "Placeholder"]
    bodies = [numbers(body) for body in one.bodies]
    found[name] = {"bodies": bodies, "results": [one.nodes[at].outputs[o].shape for at, o in one.results]}
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(READ, {})


@pytest.mark.parametrize(
    "name", ["ConvLSTM", "ConvLSTM in one dimension", "LSTM both ways", "GRU", "a cell of one's own"]
)
def test_all_shapes_of_a_layer_and_its_gradient_are_known(found, name):
    bodies = found[name]["bodies"]
    assert len(bodies) >= 2
    assert all(len(shapes) > 3 for shapes in bodies)
    assert [shape for shapes in bodies for shape in shapes if shape is None] == []
    assert all(shape is not None for shape in found[name]["results"])


def test_the_gradient_of_what_is_broadcast_has_its_own_shape_and_not_that_of_the_batch(found):
    assert [1, 6] in found["a cell of one's own"]["results"]
    assert [1, 6] in found["a cell of one's own"]["bodies"][-1]
    assert [9, 6] in found["a cell of one's own"]["bodies"][-1]
