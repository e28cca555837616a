"""Losses that compare the samples of a batch with each other."""

from __future__ import annotations

import pytest

from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.remedies.accumulate_gradients.compared import compares_samples, pairs_samples

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


@pytest.mark.parametrize(
    "name", ["SupervisedContrastiveLoss", "npairs_loss", "NPairLoss", "my_NTXentLoss", "SupConLoss"]
)
def test_a_loss_that_compares_samples_is_known_by_its_name_in_whichever_case(name):
    used = f"model.compile('adam', {name}(0.1))"
    assert compares_samples(read_notebook(used), used)
    spared = used.replace(name, "SparseCategoricalCrossentropy")
    assert not compares_samples(read_notebook(spared), spared)


@pytest.mark.parametrize(
    ("code", "pairs"),
    [
        ("logits = tf.matmul(a, b, transpose_b=True)\nlabels = tf.range(tf.shape(a)[0])", True),
        ("sims = a @ tf.transpose(b)\nloss = f(tf.eye(batch_size), sims)", True),
        ("sims = ops.matmul(a, b.T)\nloss = -tf.linalg.diag_part(sims)", True),
        ("scores = a @ b.T / 0.1\ny = np.arange(len(a))", True),
        ("sims = tf.matmul(f, tf.transpose(f)) / 0.05\nsame = tf.equal(y, tf.transpose(y))", True),
        ("sims = f @ f.T\nsame = y[:, None] == y[None, :]", True),
        ("sims = ops.matmul(f, ops.transpose(f))\napart = tf.not_equal(y[None], y[:, tf.newaxis])", True),
        ("sims = tf.matmul(q, k, transpose_b=True)\nmask = ids[:, :, None] == ids[:, None, :]", False),
        ("sims = tf.matmul(q, k, transpose_b=True)\nmask = tf.equal(ids, tf.transpose(ids, (1, 0, 2)))", False),
        ("sims = f @ f.T\nright = tf.equal(y, tf.argmax(p))", False),
        # Attention, a product with weights, and places that are none of samples.
        ("scores = tf.matmul(q, k, transpose_b=True)\nreturn tf.matmul(tf.nn.softmax(scores), v)", False),
        ("scores = tf.matmul(q, k, transpose_b=True)\nplaces = tf.range(32)", False),
        ("logits = tf.matmul(x, w)\nlabels = tf.range(tf.shape(x)[0])", False),
        ("for i in range(len(x)):\n    total += x[i] @ w", False),
    ],
)
def test_products_of_all_samples_with_all_compare_them(code, pairs):
    inside = "def step(a, b):\n    " + code.replace("\n", "\n    ")
    assert pairs_samples(inside) is pairs
    in_a_loop = "for a, b in ds:\n    " + code.replace("return ", "out = ").replace("\n", "\n    ")
    assert pairs_samples(in_a_loop) is pairs
    elsewhere = code.split("\n")
    assert pairs_samples(f"def one():\n    {elsewhere[0]}\ndef two():\n    {elsewhere[-1]}") is False
