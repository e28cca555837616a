"""``apply.rematerialize`` with random numbers and moving statistics: both passes see the same, state changes once."""

from __future__ import annotations

import pytest

from tests.kernel import bfc
from tests.rematerialize_runtime import HARNESS, IMPORTS
from tests.script import found_by

pytestmark = [pytest.mark.tf, pytest.mark.timeout(900)]

LAYERS = """
class Transformer(L.Layer):
    def __init__(self, width=32):
        super().__init__()
        self.attend = L.MultiHeadAttention(2, width // 2, dropout=0.2); self.first = L.LayerNormalization()
        self.wide = L.Dense(4 * width, "gelu"); self.narrow = L.Dense(width); self.second = L.LayerNormalization()
        self.drop = L.Dropout(0.3); self.again = L.Dropout(0.3)
    def call(self, x, training=None):
        x = self.first(x + self.drop(self.attend(x, x)))
        return self.second(x + self.again(self.narrow(self.wide(x)), training=training))

class Residual(L.Layer):
    def __init__(self):
        super().__init__()
        self.parts = [keras.Sequential([L.Dense(128, use_bias=False), L.BatchNormalization(), L.Activation("gelu"),
                                        L.SpatialDropout1D(0.1), L.GaussianNoise(0.1)]) for _ in range(3)]
        self.narrow = L.Dense(32)
    def call(self, x):
        y = x
        for part in self.parts:
            y = part(y)
        return x + self.narrow(y)

class Depth(L.Layer):
    def __init__(self):
        super().__init__(); self.seeds = keras.random.SeedGenerator(7); self.seen = Seen()
        self.wide = L.Dense(128, "gelu"); self.narrow = L.Dense(32)
    def call(self, x, training=None):
        y = self.seen(self.narrow(self.wide(x)))
        if training:
            y = y / 0.8 * tf.floor(0.8 + keras.random.uniform((tf.shape(x)[0], 1, 1), seed=self.seeds))
        return x + y

class Seen(L.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
    def call(self, x):
        self.count.assign(self.count + 1)
        return x * (1 + self.count / 100)

def only(make):
    class Block(L.Layer):
        def __init__(self):
            super().__init__(); self.wide = L.Dense(128, "gelu"); self.inner = make(); self.narrow = L.Dense(32)
        def call(self, x):
            return x + self.narrow(self.inner(self.wide(x)))
    return Block

class Subclassed(keras.Model):
    def __init__(self, Block):
        super().__init__()
        self.embed = L.Embedding(50, 32); self.parts = [Block() for _ in range(3)]
        self.pool = L.GlobalAveragePooling1D(); self.top = L.Dense(4)
    def call(self, x):
        x = self.embed(x)
        for part in self.parts:
            x = part(x)
        return self.top(self.pool(x))

def build(Block, given):
    if given == "subclassed":
        model = Subclassed(Block)
        model(X[:1])
        return model
    inputs = keras.Input((64,), dtype="int32"); h = L.Embedding(50, 32)(inputs); shared = Block()
    for _ in range(3):
        block = shared if given == "shared" else Block()
        h = block(h, training=False) if given == "inference" and _ % 2 else block(h)
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling1D()(h)))

def freeze(model):
    for layer in model.layers[2:4]:
        layer.trainable = False
"""

CASES = """
found = {
    "transformer": compare(Transformer, optimizer="adam", validate=True),
    "transformer, eagerly": compare(Transformer, eager=True),
    "transformer, in a loop": compare(Transformer, loop="graph"),
    "transformer, in a compiled loop": compare(Transformer, loop="graph", jit=True),
    "transformer, in an eager loop": compare(Transformer, loop="eager"),
    "transformer, forward as a function of its own": compare(Transformer, loop="two functions"),
    "transformer, not training": compare(Transformer, loop="graph", inference=True),
    "transformer, some told not to train": compare(Transformer, given="inference"),
    "transformer, subclassed model": compare(Transformer, given="subclassed"),
    "transformer, frozen blocks": compare(Transformer, then=freeze),
    "transformer, one block called three times": compare(Transformer, given="shared"),
    "residual": compare(Residual, optimizer="sgd", validate=True),
    "residual, eagerly": compare(Residual, eager=True, optimizer="sgd"),
    "residual, in a loop": compare(Residual, loop="graph"),
    "residual, frozen blocks": compare(Residual, then=freeze, optimizer="sgd"),
    "residual, one block called three times": compare(Residual, given="shared", optimizer="sgd"),
    "residual, some told not to train": compare(Residual, given="inference", optimizer="sgd"),
    "depth": compare(Depth, validate=True),
    "depth, eagerly": compare(Depth, eager=True),
    "renormalization": compare(only(lambda: L.BatchNormalization(renorm=True))),
}
# In 16 bits the order in which TensorFlow's graph optimizer adds is seen in the weights: leave it as it is written.
tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
keras.config.set_dtype_policy("mixed_bfloat16")
found["transformer in mixed_bfloat16"] = compare(Transformer)
keras.config.set_dtype_policy("mixed_float16")
found["residual in mixed_float16"] = compare(Residual, optimizer="sgd")
keras.config.set_dtype_policy("float32")

def plainly(call):
    return lambda self, x: keras.remat(lambda tensor: call(self, tensor))(x)
found["dropout, by keras.remat alone"] = compare(only(lambda: L.Dropout(0.3)), plainly)
found["batch normalization, by keras.remat alone"] = compare(only(L.BatchNormalization), plainly)
found["statistics, by keras.remat alone"] = compare(Depth, plainly, validate=True)
print("FOUND" + json.dumps(found))
"""

KINDS = ("transformer", "residual", "depth", "renormalization")
ALONE = ("dropout", "batch normalization", "statistics")


@pytest.fixture(scope="module")
def found():
    return found_by(IMPORTS + LAYERS + HARNESS + CASES, None, bfc(1024))


def exact(found):
    return {name: one for name, one in found.items() if name.startswith(KINDS)}


# Adam divides by the size of a gradient: it would make rounding visible where BatchNormalization leaves almost none.
def test_variables_losses_and_validation_are_those_without_it(found):
    assert {} == {name: one["gap"] for name, one in exact(found).items() if one["gap"] > 1e-6}


def test_no_layer_is_left_as_it_was(found):
    assert [] == [told for one in exact(found).values() for told in one["told"]]


def test_the_peak_is_less(found):
    peaks = {name: one["peaks"] for name, one in exact(found).items() if "compiled" not in name}
    assert {} == {name: (before, after) for name, (before, after) in peaks.items() if after > 0.8 * before}


@pytest.mark.parametrize("name", ["transformer", "transformer, eagerly", "transformer, in a loop"])
def test_the_peak_of_a_transformer_is_about_half_or_less(found, name):
    before, after = found[name]["peaks"]
    assert after < 0.55 * before


@pytest.mark.parametrize("name", ALONE)
def test_by_keras_remat_alone_the_training_is_another(found, name):
    assert found[f"{name}, by keras.remat alone"]["gap"] > 1e-4
