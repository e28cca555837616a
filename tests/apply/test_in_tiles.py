"""A picture predicted in tiles is the picture predicted as a whole."""

from __future__ import annotations

import pytest

from tests.script import found_by

pytestmark = pytest.mark.tf

SCRIPT = """
import json
import keras, numpy as np
from keras import layers as L
from tf_mem_magic import apply
keras.utils.set_random_seed(0)

def plain():
    i = keras.Input((None, None, 3))
    h = L.Conv2D(4, 3, padding="same", activation="relu")(i)
    h = L.Conv2D(4, 5, padding="same", dilation_rate=2)(h)
    return keras.Model(i, L.Conv2D(2, 1)(h))

def unet():
    i = keras.Input((None, None, 3))
    a = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(i))
    b = L.Conv2D(6, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(b))
    d = L.Concatenate()([L.UpSampling2D(interpolation="bilinear")(c), b])
    e = L.Concatenate()([L.Conv2DTranspose(4, 3, strides=2, padding="same")(L.Conv2D(6, 3, padding="same")(d)), a])
    return keras.Model(i, L.Conv2D(1, 3, padding="same", activation="sigmoid")(e))

def smaller():
    return keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3, strides=2, padding="same"),
                             L.AveragePooling2D(2), L.Conv2D(5, 3, padding="same")])

def larger():
    return keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3, padding="same"),
                             L.UpSampling2D(2), L.Conv2D(3, 3, padding="same")])

found = {}
for make in (plain, unet, smaller, larger):
    model = make()
    x = np.random.default_rng(0).random((1, 64, 128, 3), dtype="float32")
    whole = model.predict(x, verbose=0)
    parts = [apply.in_tiles(model, x, tile, verbose=0) for tile in (32, 50)]
    found[make.__name__] = [[list(p.shape) == list(whole.shape), float(np.abs(p - whole).max())] for p in parts]

def why(model, shape=(1, 96, 96, 3)):
    try:
        apply.in_tiles(model, np.zeros(shape, "float32"), 32, verbose=0)
    except ValueError as error:
        return str(error)
    return ""

i = keras.Input((None, None, 3))
pooled = keras.Model(i, L.Multiply()([i, L.GlobalAveragePooling2D(keepdims=True)(i)]))
grouped = keras.Sequential([keras.Input((None, None, 3)), L.GroupNormalization(3)])
valid = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3)])
found["refused"] = [why(pooled), why(grouped), why(valid), why(unet(), (1, 98, 96, 3))]
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, {})


@pytest.mark.parametrize("model", ["plain", "unet", "smaller", "larger"])
def test_the_result_is_that_of_the_whole_picture(found, model):
    assert [shape for shape, _ in found[model]] == [True] * 2
    assert max(difference for _, difference in found[model]) < 1e-5


def test_a_model_that_looks_at_the_whole_picture_is_refused_by_the_layers_name(found):
    pooled, grouped, valid, odd = found["refused"]
    assert "GlobalAveragePooling2D" in pooled
    assert "GroupNormalization" in grouped
    assert "Conv2D" in valid
    assert "multiples of 4" in odd
