"""Losses that compute with a mean over the batch: of its parts they do not average to what they are of the whole."""

from __future__ import annotations

import pytest

from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.remedies.accumulate_gradients.compared import bent_mean, compares_samples

RMSE = "def rmse(y, p):\n    return K.sqrt(K.mean(K.square(p - y)))"
F1 = """def soft_f1(y, p):
    tp = tf.reduce_sum(y * p, axis=0)
    fp, fn = tf.reduce_sum((1 - y) * p, axis=0), tf.reduce_sum(y * (1 - p), axis=0)
    precision = tp / (tp + fp + 1e-7)
    return 1 - tf.reduce_mean(2 * tp / (2 * tp + fp + fn))
"""
INSIDE = "def f1_loss(y, p, weights=None):\n    return soft_f1(y, p)"
R2 = "def r2(y, p):\n    rest = K.sum(K.square(y - p))\n    return rest / K.sum(K.square(y - K.mean(y)))"
PSNR = "def psnr(y, p):\n    mse = tf.reduce_mean((y - p) ** 2)\n    return 10 * tf.math.log(mse)"
POWER = "def root(y, p):\n    return tf.reduce_mean(tf.abs(y - p)) ** 0.5"

DISTANCE = "def distance(y, p):\n    return K.mean(K.sqrt(K.sum(K.square(p - y), axis=-1)))"
PER_IMAGE = """def dice(y, p):
    both = tf.reduce_sum(y * p, axis=(1, 2, 3))
    return 1 - tf.reduce_mean(2 * both / tf.reduce_sum(y + p, axis=[1, 2, 3]))
"""
MASKED = "def masked(y, p):\n    mask = tf.cast(y != 0, tf.float32)\n    return tf.reduce_sum(cce(y, p) * mask) / tf.reduce_sum(mask)"
VAE = "def vae_loss(y, p):\n    return tf.reduce_mean(bce(y, p)) - 0.5 * K.mean(1 + v - K.square(m) - K.exp(v))"
HALF = "def half(y, p):\n    return K.mean(K.square(p - y)) / 2"


@pytest.mark.parametrize(
    ("defined", "loss", "found"),
    [
        (RMSE, "loss=rmse)", "rmse"),
        (F1, "loss=soft_f1, metrics=['accuracy'])", "soft_f1"),
        (f"{F1}\n\n{INSIDE}", "loss=f1_loss)", "f1_loss"),
        (R2, "'adam', r2)", "r2"),
        (PSNR, "keras.optimizers.Adam(1e-3), psnr, metrics=[mse])", "psnr"),
        (POWER, "optimizer='sgd', loss = root,)", "root"),
        (DISTANCE, "loss=distance)", ""),
        (PER_IMAGE, "loss=dice)", ""),
        (MASKED, "loss=masked)", ""),
        (VAE, "loss=vae_loss)", ""),
        (HALF, "loss=half)", ""),
        (RMSE, "loss='mse', metrics=[rmse])", ""),
        ("", "loss=tf.keras.losses.MeanSquaredError())", ""),
    ],
)
def test_a_root_or_quotient_of_means_over_the_batch_is_found_and_what_each_sample_has_alone_is_not(
    defined, loss, found
):
    compiled = f"model.compile({loss}\nmodel.fit(x, y)"
    assert bent_mean(read_notebook(compiled, (defined,)), compiled) == found
    assert bent_mean(read_notebook(f"{defined}\n{compiled}", ()), compiled) == found


def test_a_loss_that_calls_itself_ends():
    defined = "def a(y, p):\n    return b(y, p)\ndef b(y, p):\n    return a(y, p)"
    assert bent_mean(read_notebook("model.compile(loss=a)", (defined,)), "model.compile(loss=a)") == ""


ENTRIES = """def triplet_loss(parts, margin=0.2):
    near = K.sum(K.square(parts[0] - parts[1]), axis=-1)
    far = K.sum(K.square(parts[0] - parts[2]), axis=-1)
    return K.maximum(near - far + margin, 0.0)
"""
UNPACKED = (
    ENTRIES.replace("    near", "    a, b, c = parts\n    near").replace("parts[0]", "a").replace("parts[1]", "b")
)


@pytest.mark.parametrize(
    ("defined", "used", "compares"),
    [
        (ENTRIES, "loss = Lambda(triplet_loss)([anchor, positive, negative])", False),
        (ENTRIES, "out = keras.layers.Lambda(triplet_loss, name='loss')((anchor, positive, negative))", False),
        (UNPACKED.replace("parts[2]", "c"), "loss = Lambda(triplet_loss, output_shape=(1,))([a, p, n])", False),
        (ENTRIES, "model.compile(loss=triplet_loss)", True),
        (ENTRIES, "loss = Lambda(triplet_loss)(together)", True),
        (ENTRIES.replace("parts[2]", "parts[0][1]"), "loss = Lambda(triplet_loss)([a, p, n])", True),
        (ENTRIES.replace("axis=-1", "axis=0"), "loss = Lambda(triplet_loss)([a, p, n])", True),
    ],
)
def test_entries_of_a_list_of_inputs_are_no_samples(defined, used, compares):
    assert compares_samples(read_notebook(used, (defined,)), used) is compares
    assert compares_samples(read_notebook(f"{defined}\n{used}"), used) is compares
