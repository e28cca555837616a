"""What a smaller batch does to a loss that adds up over the samples of a batch is said, and of no other loss."""

from __future__ import annotations

import pytest

from tests.remedies.accumulate_gradients.test_remedy import ask as ask_accumulation
from tests.remedies.smaller_batch.test_remedy import ask
from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import Declined, Proposal

IMPORTS = "import tensorflow as tf\nimport keras\nfrom keras import backend as K\n"
LOOP = """optimizer = keras.optimizers.Adam()
for a in tf.data.Dataset.from_tensor_slices(x).batch(64):
    with tf.GradientTape() as tape:
        mean, spread, out = model(a)
        loss = {loss}
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
"""
FIT = "{before}model.compile('adam', {loss})\nmodel.fit(x, x, batch_size=64)\n"
STEP = """class Coder(keras.Model):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, out = self(data)
            first = {first}
            loss = first + {second}
        grads = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(grads, self.trainable_weights))
        return {{"loss": loss}}

model = Coder()
model.compile("adam")
data = tf.data.Dataset.from_tensor_slices(x).batch(64)
model.fit(data)
"""
WEIGHS_LESS = {
    "a sum and a mean": LOOP.format(loss="tf.reduce_sum((out - a) ** 2) - tf.reduce_mean(1 + spread - mean ** 2)"),
    "by K": FIT.format(before="def both(y, p):\n    return K.sum(K.square(y - p)) + K.mean(K.abs(p))\n", loss="both"),
    "losses of weights": LOOP.format(loss="tf.reduce_sum(tf.abs(out - a)) + tf.add_n(model.losses)"),
    "added by a layer": FIT.format(
        before="class Draw(keras.layers.Layer):\n    def call(self, z):\n        self.add_loss(keras.ops.sum(z ** 2))\n"
        "        return z\n\nmodel = keras.Sequential([keras.Input((10,)), Draw()])\n",
        loss="'mse'",
    ),
    "a model's own step": STEP.format(first="tf.reduce_sum((out - data) ** 2)", second="tf.reduce_mean(mean ** 2)"),
    "a mean first": STEP.format(
        first="tf.reduce_mean((out - data) ** 2)", second="tf.reduce_sum(mean ** 2, axis=(0, 1))"
    ),
}
IS_SMALLER = {
    "alone": LOOP.format(loss="tf.reduce_sum((out - a) ** 2)"),
    "a lambda": FIT.format(before="", loss="lambda y, p: keras.ops.sum(keras.ops.abs(y - p))"),
    "along the samples": LOOP.format(loss="tf.math.reduce_sum((out - a) ** 2, axis=[0, 1])"),
}
SAYS_NOTHING = {
    "sums of each": LOOP.format(loss="tf.reduce_mean(tf.reduce_sum((out - a) ** 2, axis=1))"),
    "a mean": FIT.format(
        before="def both(y, p):\n    return K.mean(K.sum(K.square(y - p), -1) + K.mean(p, axis=-1))\n", loss="both"
    ),
    "weights": LOOP.format(
        loss="tf.reduce_mean((out - a) ** 2) + sum(tf.nn.l2_loss(w) for w in model.trainable_weights)"
    ),
    "sums elsewhere": "print(tf.reduce_sum(x))\n" + FIT.format(before="", loss="'mse'"),
    "divided": LOOP.format(loss="tf.reduce_sum((out - a) ** 2) / tf.cast(tf.shape(a)[0], tf.float32)"),
}


def told(source):
    facts = Facts(models=(ModelFacts("model"),), earlier_cells=(IMPORTS,))
    answer = ask(source, facts)
    assert isinstance(answer, Proposal), answer.reason
    return [c for c in answer.caveats if "adds up" in c]


@pytest.mark.parametrize("source", WEIGHS_LESS.values(), ids=WEIGHS_LESS.keys())
def test_a_sum_over_the_samples_weighs_less_beside_means(source):
    (only,) = told(source)
    assert only.endswith("of fewer it is smaller, and weighs less beside the loss's other terms.")
    assert isinstance(ask_accumulation(source), Declined)


@pytest.mark.parametrize("source", IS_SMALLER.values(), ids=IS_SMALLER.keys())
def test_a_sum_alone_is_smaller(source):
    (only,) = told(source)
    assert only.endswith("adds up over the samples of a batch: of fewer it is smaller.")
    assert isinstance(ask_accumulation(source), Declined)


@pytest.mark.parametrize("source", SAYS_NOTHING.values(), ids=SAYS_NOTHING.keys())
def test_of_a_mean_nothing_is_said(source):
    assert told(source) == []
