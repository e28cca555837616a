"""A model called like a function on all samples at once."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel, bfc
from tf_mem_magic.core.facts import Facts, ModelFacts, NamedValue
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.text.cell import read_cell
from tf_mem_magic.remedies.smaller_batch.direct_call import call_in_batches, find_direct_call

MODEL = ModelFacts("model", ("InputLayer", "Dense", "BatchNormalization"), form="functional", rowwise=True)
FACTS = Facts(models=(MODEL,), values=(NamedValue("x", 10**6, "ndarray", shape=(1000, 8)),))


def edited(source, facts=FACTS, line=None):
    cell = read_cell(source)
    found = find_direct_call(cell, facts, frozenset({line or len(source.splitlines())}))
    try:
        return None if found is None else call_in_batches(cell, found, 64)
    except RefusedError:
        return None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("y = model(x)", "y = apply.in_batches(model, x, 64)"),
        ("y = model(x, training=False)", "y = apply.in_batches(model, x, 64, training=False)"),
        ("y = model( x, )  # all", "y = apply.in_batches(model, x, 64, )  # all"),
        ("print(np.argmax(model(x).numpy(), 1))", "print(np.argmax(apply.in_batches(model, x, 64).numpy(), 1))"),
        (
            "with tf.device('GPU:0'):\n    y = model(x)",
            "with tf.device('GPU:0'):\n    y = apply.in_batches(model, x, 64)",
        ),
        ("for i in range(2):\n    y = model(x)", "for i in range(2):\n    y = apply.in_batches(model, x, 64)"),
    ],
)
def test_the_call_is_made_for_some_samples_at_a_time(before, after):
    assert edited(before) == f"from tf_mem_magic import apply\n{after}"


@pytest.mark.parametrize(
    "source",
    [
        "y = model(x, training=True)",
        "y = model(x, mask)",
        "y = model(**x)",
        "y = model([x, x])",
        "y = model(x[:10])",
        "y = other(x)",
        "y = (model)(x)",
        "y = model(unknown)",
        "with tf.GradientTape() as tape:\n    y = model(x)",
        "with tape:\n    y = model(x)",
        "def f():\n    return model(x)",
        "f = lambda: model(x)",
        "y = model(x) + model(x)",
    ],
)
def test_what_may_be_training_or_is_not_plain_is_left_alone(source):
    assert not isinstance(edited(source), str)


@pytest.mark.parametrize(
    "model",
    [
        ModelFacts("model", ("Dense",), form="functional"),
        ModelFacts("model", ("Dense",), form="sequential", rowwise=True, local=True),
    ],
)
def test_a_model_that_may_look_at_several_samples_at_once_is_left_alone(model):
    assert edited("y = model(x)", Facts(models=(model,), values=FACTS.values)) is None


def test_another_line_than_the_one_that_failed_is_left_alone():
    assert edited("y = model(x)\nz = 3") is None


SETUP = """%load_ext tf_mem_magic
import keras, numpy as np, tensorflow as tf
from keras import layers
from tf_mem_magic import apply
keras.utils.set_random_seed(0)
inputs = keras.Input((64,))
h = layers.BatchNormalization()(layers.Dense(512, activation="relu")(layers.Dense(512, activation="relu")(inputs)))
model = keras.Model(inputs, {"a": layers.Dense(3)(h), "b": [layers.Dense(2)(h)]})
x = np.random.default_rng(0).random((65536, 64), "float32")"""


@pytest.fixture(scope="module")
def kernel():
    with Kernel(bfc(150)) as running:
        assert running.run(SETUP).status == "ok"
        yield running


kernels = [pytest.mark.kernel, pytest.mark.tf]


class TestInAKernel:
    pytestmark = kernels

    def test_a_model_called_on_all_samples_fits_with_the_same_results(self, kernel):
        got = kernel.run("%%tfmem -o rep\nfound = model(x)\ntype(found['a'])")
        assert got.status == "error"
        assert kernel.value("rep.outcome.offered[0].key") == "smaller-batch"
        kernel.run("second = rep.rerun('smaller-batch')")
        assert kernel.value("(second.status, found['a'].shape.as_list(), found['b'][0].shape.as_list())") == (
            "ok",
            [65536, 3],
            [65536, 2],
        )
        kernel.run("few = model(x[5000:5100])")
        assert kernel.value("float(abs(few['a'] - found['a'][5000:5100]).numpy().max())") < 1e-5

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            ("apply.in_batches(model, x, 0)", "the batch size must be at least 1; this is 0"),
            ("apply.in_batches(model, x[:0], 3)", "there are no samples"),
            (
                "apply.in_batches(lambda batch: tf.reduce_sum(batch), x, 60000)",
                "a result has None entries for 60000 samples, so the calls cannot be joined",
            ),
            (
                "apply.in_batches(lambda batch: tf.matmul(batch, batch, transpose_a=True), x, 60000)",
                "a result has 64 entries for 60000 samples, so the calls cannot be joined",
            ),
        ],
    )
    def test_what_cannot_be_cut_says_so(self, kernel, call, error):
        assert kernel.run(call).errors[0].rstrip().endswith(f"ValueError: {error}")
