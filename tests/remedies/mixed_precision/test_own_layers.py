"""Layers of the notebook's own: those that mix in float32 tensors are found before the policy is changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.script import found_by
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.remedies.mixed_precision.own_layers import why_not_in_16_bits

ROOT = Path(__file__).resolve().parents[3]
IMPORTS = "import numpy as np\nimport tensorflow as tf\nimport keras\nfrom keras import layers, ops\n"
LAYER = "class Own(layers.Layer):\n    def __init__(self, units=8, table=None):\n        super().__init__()\n"


def own(init, call, rest=""):
    """Write a layer with lines of ``__init__`` and ``call``, and functions beside it."""
    lines = "".join(f"        {line}\n" for line in init.splitlines())
    body, _, more = call.partition("\n\n")
    body = "".join(f"        {line}\n" for line in body.splitlines())
    more = "".join(f"    {line}\n" for line in more.splitlines())
    return f"{IMPORTS}{rest}{LAYER}{lines}    def call(self, x, training=None):\n{body}{more}"


def ask(*cells, layers=("Own",), model="model"):
    notebook = read_notebook(f"{model}.fit(x)", cells)
    return why_not_in_16_bits(notebook, ModelFacts(model, layers, own_layers=tuple(n for n in layers if n != "Lambda")))


MIXES = {
    "noise of TensorFlow": ("", "return x + tf.random.normal(tf.shape(x), stddev=0.1)"),
    "noise by Keras, times what came in": ("", "e = keras.random.normal(ops.shape(x))\nreturn x + e * 0.1"),
    "a mask drawn anew": ("", "keep = tf.floor(0.9 + tf.random.uniform((8, 1)))\nreturn x * keep"),
    "a matrix of its own, made of numbers": (
        "self.adjacency = tf.constant([[0.5] * 8] * 8)", "return tf.matmul(self.adjacency, x)",
    ),
    "a matrix that it was given": ("self.adjacency = table", "return tf.matmul(self.adjacency, x)"),
    "a table of positions, cast and sliced": (
        "self.encoding = table_of(100, units)", "return x + self.encoding[: tf.shape(x)[0]]",
    ),
    "a count that is cast": ("", "n = tf.cast(tf.shape(x)[-1], tf.float32)\nreturn x / tf.sqrt(n)"),
    "ones to stack with": ("", "return tf.concat([x, tf.ones((1, 8))], axis=0)"),
    "one-hot codes": ("", "return x * tf.one_hot(tf.argmax(x, -1), 8)"),
    "in a method that call calls": ("", "return self.shift(x)\n\ndef shift(self, x):\n    return x + tf.random.normal((8,))"),
    "a function beside it": ("", "return add_noise(x)"),
    "a table by TensorFlow's multiply": ("self.halves = tf.constant([0.5] * 8)", "return tf.math.multiply(x, self.halves)"),
    "a table joined": ("self.rest = tf.zeros((1, 8))", "return tf.concat([x, self.rest], axis=0)"),
    "a table chosen from": ("self.low = tf.zeros((8,))", "return tf.where(x > 0, x, self.low)"),
    "the root of a count": ("self.scale = tf.math.sqrt(tf.cast(units, tf.float32))", "return x / self.scale"),
    "a table turned and scaled": ("self.turned = 2 * tf.transpose(tf.ones((8, 8)))", "return tf.add(x[:, :8], self.turned[0])"),
    "what a method gives back": ("", "return self.wide(x) + x\n\ndef wide(self, x):\n    return tf.cast(x, tf.float32)"),
    "a variable of TensorFlow": ("self.scale = tf.Variable(1.0)", "return x * self.scale"),
}  # fmt: skip
REST = (
    "def add_noise(x):\n    return x + tf.random.normal(tf.shape(x))\ndef table_of(n, d):\n    return tf.cast(np.zeros((n, d)), dtype=tf.float32)\n"
    "def array_of(n, d):\n    return np.zeros((n, d))\n"
)

GOES = {
    "a table by Keras's multiply": ("self.halves = tf.constant([0.5] * 8)", "return ops.multiply(x, self.halves)"),
    "a count made of a table": (
        "self.most = tf.cast(tf.reduce_sum(tf.ones((4,))), tf.int32)", "return tf.add(x, tf.cast(self.most, x.dtype))",
    ),
    "an array of NumPy": ("self.mask = np.ones((8, 8))", "return x * self.mask"),
    "a table of positions as an array": ("self.where = array_of(9, 8)", "return x + self.where[: x.shape[0]]"),
    "weights and layers alone": ("self.a = layers.Dense(8)\nself.w = self.add_weight(shape=(8,))", "return self.a(x) * self.w"),
    "numbers": ("self.rate = 0.5", "return x * self.rate + 1.0"),
    "noise of the input's type": ("", "return x + tf.random.normal(tf.shape(x), dtype=x.dtype)"),
    "noise of the layer's type": ("", "return x + keras.random.normal(ops.shape(x), dtype=self.compute_dtype)"),
    "whole numbers": ("", "ids = tf.range(8)\nreturn x * tf.cast(ids, x.dtype)"),
    "positions into an embedding": ("self.e = layers.Embedding(9, 8)", "return x + self.e(tf.range(0, 8))"),
    "what is only handed to a layer": ("self.d = layers.Dense(8)", "return x + self.d(tf.ones((1, 8)))"),
    "noise in the training step": ("", "return x\n\ndef train_step(self, data):\n    z = tf.random.normal((8,)) * 2.0"),
    "Keras's operations promote": ("", "return ops.add(x, ops.ones((1, 8)))"),
    "flags that are cast to the input's type": ("", "m = tf.cast(x > 0, dtype=x.dtype)\nreturn x * m"),
    "shapes": ("", "return tf.reshape(x, tf.constant([8, 8]))"),
    "a shape of names": ("self.n = units", "return tf.reshape(x, tf.constant([-1, self.n]))"),
    "a shape by name": ("self.n = units", "return tf.zeros(shape=tf.constant([self.n]), dtype=x.dtype) + x"),
    "a shape that is reckoned with": (
        "self.n = units", "s = tf.shape(x) * tf.constant([1, 0]) + tf.constant([0, self.n])\nreturn tf.reshape(x, s)",
    ),
    "one side of a shape": ("self.n = units", "return tf.reshape(x, [tf.shape(x)[0] * tf.constant(self.n // 8), -1])"),
    "a shape put together": (
        "self.n = units", "return tf.reshape(x, tf.concat([tf.shape(x)[:1], tf.constant([self.n])], 0))",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXES)
def test_a_layer_that_mixes_in_float32_tensors_is_found(name):
    assert re.match("`Own` (mixes in|makes) float32 tensors", ask(own(*MIXES[name], REST))), name


@pytest.mark.parametrize(
    ("call", "mixed"),
    [
        ("return x + tf.random.normal(tf.shape(x))", True),
        ("codes = tf.one_hot(tf.argmax(x, -1), 8)\nreturn codes * x", True),
        ("return tf.matmul(x, tf.ones((8, 8)))", True),
        ("return tf.one_hot(tf.argmax(x, -1), 8)", False),
        ("codes = tf.one_hot(tf.argmax(x, -1), 8)\nreturn tf.reduce_sum(codes, axis=1)", False),
        ("n = tf.cast(tf.shape(x)[-1], tf.float32)\nreturn x / tf.sqrt(n)", False),
    ],
)
def test_it_is_said_to_mix_only_where_it_is_seen_to(call, mixed):
    reason = ask(own("", call))
    assert ("TensorFlow refuses to mix" in reason, "TensorFlow may refuse to mix" in reason) == (mixed, not mixed)


NEEDS_32 = {
    "a Fourier transform by Keras": (
        "", "x = ops.fft2((x, ops.zeros_like(x)))[0] + x\nreturn x", "ops.fft2(…)",
    ),
    "a spectrum by TensorFlow": ("", "return tf.abs(tf.signal.rfft(x))", "tf.signal.rfft(…)"),
    "short frames": ("", "return self.frames(x)\n\ndef frames(self, x):\n    return tf.abs(tf.signal.stft(x, 4, 2))", "tf.signal.stft(…)"),
    "a complex number": ("", "return tf.math.real(tf.complex(x, x))", "tf.complex(…)"),
    "in a function beside it": ("", "return spectrum(x)", "tf.signal.fft2d(…)"),
}  # fmt: skip
SPECTRUM = "def spectrum(x):\n    return tf.math.real(tf.signal.fft2d(tf.complex(x, x)))\n"


@pytest.mark.parametrize("name", NEEDS_32)
def test_a_layer_that_computes_what_16_bits_have_not_is_found(name):
    init, call, told = NEEDS_32[name]
    assert ask(own(init, call, SPECTRUM)) == f"`Own` computes `{told}`, which TensorFlow cannot do in 16 bits"


@pytest.mark.parametrize(
    ("function", "found"),
    [("lambda x: tf.abs(tf.signal.rfft(x))", True), ("lambda x: np.fft.rfft(x)", False), ("lambda x: x.fft()", False)],
)
def test_a_lambda_layer_that_computes_what_16_bits_have_not_is_found(function, found):
    reason = ask(f"{IMPORTS}layers.Lambda({function})", layers=("Lambda",))
    assert reason == (
        "a Lambda layer computes `tf.signal.rfft(…)`, which TensorFlow cannot do in 16 bits" if found else ""
    )


@pytest.mark.parametrize("name", GOES)
def test_a_layer_that_follows_its_input_is_not_refused(name):
    assert ask(own(*GOES[name], REST)) == "", name


@pytest.mark.parametrize(
    ("cell", "mixes"),
    [
        ("layers.Lambda(lambda pictures: tf.cast(pictures, tf.float32))", False),
        ("layers.Lambda(lambda x: tf.cast(x, 'float32') / 255.0 - 0.5)", False),
        ("def wide(x):\n    return tf.cast(x, tf.float32)\nlayers.Lambda(wide)", False),
        ("layers.Lambda(function=lambda x: tf.one_hot(x, 10))", False),
        ("layers.Lambda(lambda x: tf.cast(x, tf.float32) * x)", True),
        ("layers.Lambda(lambda x: x + tf.cast(tf.shape(x)[1], tf.float32))", True),
        ("def wide(x):\n    return tf.cast(x, tf.float32)\nlayers.Lambda(lambda x: wide(x) + x)", True),
        ("class Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n"
         "        self.wide = layers.Lambda(lambda x: tf.cast(x, tf.float32))\n"
         "    def call(self, x):\n        return self.wide(x) + x", True),
    ],
)  # fmt: skip
def test_what_a_lambda_layer_only_gives_back_is_cast_by_the_next_layer(cell, mixes):
    assert ("float32" in ask(f"{IMPORTS}{cell}", layers=("Lambda",))) is mixes


def test_what_stands_in_a_base_class_counts():
    base = own("", "return x + tf.random.normal((8,))").replace("class Own", "class Noisy")
    assert "mixes in" in ask(base, "class Own(Noisy):\n    pass\n")


def test_a_layer_whose_code_is_elsewhere_is_not_trusted():
    reason = ask("from my_layers import Own")
    assert reason == "the code of `Own`, which Keras did not write, is not in the notebook: it may need 32 bits"


@pytest.mark.parametrize(
    ("cell", "mixes"),
    [
        ("noise = layers.Lambda(lambda x: x + tf.random.normal((8,)))", True),
        (
            "def draw(a):\n    m, s = a\n    return m + s * tf.random.normal((8,))\nz = layers.Lambda(draw)([m, s])",
            True,
        ),
        ("layers.Lambda(function=lambda x: x * tf.constant(0.5))", True),
        ("layers.Lambda(lambda x: x / 255.0)", False),
        ("layers.Lambda(lambda x: tf.expand_dims(x, -1))", False),
    ],
)
def test_the_functions_of_lambda_layers_are_read(cell, mixes):
    assert bool(ask(IMPORTS + cell, layers=("Lambda",))) is mixes


SCRIPT = """
import json, sys
cases = json.load(sys.stdin)
import keras
found = {}
for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
    keras.config.set_dtype_policy(policy)
    for name, source in cases.items():
        names = {}
        exec(source, names)
        try:
            x = names["np"].ones((8, 8), "float32")
            names["Own"](8, names["tf"].ones((8, 8)))(x)
        except Exception as error:
            found.setdefault(name, {})[policy] = f"{type(error).__name__}: {error}"[:200]
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def errors():
    sources = {name: own(*parts, REST) for name, parts in (MIXES | GOES).items()}
    return found_by(SCRIPT, sources)


@pytest.mark.tf
def test_the_layers_found_fail_in_16_bits_and_the_others_do_not(errors):
    assert {name for name, told in errors.items() if "float32" in told} == set()
    assert {name for name, told in errors.items() if "mixed_float16" in told} == set(MIXES)
    assert {name for name, told in errors.items() if "mixed_bfloat16" in told} <= set(MIXES)
