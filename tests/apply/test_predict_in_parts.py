"""What ``predict`` gives, computed in parts: the same, and without all of it on the device."""

from __future__ import annotations

import numpy as np
import pytest

from tf_mem_magic.apply import in_batches, predict_in_parts

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def model():
    import keras

    given = keras.Input((4,))
    outputs = {"a": keras.layers.Dense(3)(given), "b": keras.layers.Dense(2)(given)}
    return keras.Model(given, outputs)


def test_the_parts_joined_are_what_predict_gives(model):
    x = np.random.default_rng(0).random((10, 4), dtype="float32")
    whole = model.predict(x, batch_size=2, verbose=0)
    parts = predict_in_parts(model, x, 4, batch_size=2, verbose=0)
    assert sorted(parts) == ["a", "b"]
    for name in parts:
        np.testing.assert_array_equal(parts[name], whole[name])


@pytest.mark.parametrize(
    ("x", "rows"), [(np.ones((0, 4)), 4), ((np.ones((3, 4)), np.ones((2, 4))), 4), (np.ones(3), 0)]
)
def test_what_has_no_rows_or_different_ones_is_refused(model, x, rows):
    with pytest.raises(ValueError, match="row"):
        predict_in_parts(model, x, rows)


def test_of_a_dataset_each_batch_is_a_part(model):
    import tensorflow as tf

    x = np.random.default_rng(0).random((10, 4), dtype="float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.zeros(10))).batch(4)
    np.testing.assert_allclose(predict_in_parts(model, data)["a"], model.predict(x, verbose=0)["a"], rtol=1e-6)
    with pytest.raises(ValueError, match="no batches"):
        predict_in_parts(model, data.take(0))


def test_a_model_called_in_batches_gives_one_tensor_of_its_own_type(model):
    import tensorflow as tf

    x = np.random.default_rng(0).random((10, 4), dtype="float32")
    found = in_batches(model, x, 4)
    assert isinstance(found["a"], tf.Tensor)
    np.testing.assert_allclose(found["a"], model(x)["a"], rtol=1e-6)
