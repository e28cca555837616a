"""Which models would round the ids that they look up in 16 bits: said beforehand, and compared with what they do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.script import found_by

pytestmark = pytest.mark.tf
ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import json
import keras, numpy as np
from keras import layers as L
from tf_mem_magic import apply
from tf_mem_magic.remedies.mixed_precision.probe import probe, rounds_ids

class Tokens(L.Layer):
    def __init__(self):
        super().__init__(); self.look = L.Embedding(3000, 4)
    def build(self, shape):
        self.look.build(shape); super().build(shape)
    def call(self, x):
        return self.look(x)

def model(inner, dtype=None):
    i = keras.Input((8,), dtype=dtype)
    return keras.Model(i, L.Dense(2)(L.Flatten()(inner(i))))

MODELS = {
    "own layer": lambda: model(lambda i: Tokens()(i)),
    "own layer, integers": lambda: model(lambda i: Tokens()(i), "int32"),
    "direct": lambda: model(L.Embedding(3000, 4)),
    "sliced": lambda: model(lambda i: L.Embedding(3000, 4)(i[:, :4])),
    "reshaped": lambda: model(lambda i: L.Embedding(3000, 4)(L.Reshape((8,))(i))),
    "sequential": lambda: keras.Sequential([L.Input((8,)), L.Embedding(3000, 4)]),
    "nested sequential": lambda: model(lambda i: keras.Sequential([L.Embedding(3000, 4)])(i)),
    "nested functional": lambda: model(lambda i: model(L.Embedding(3000, 4))(i)),
}
ids = lambda number: np.full((1, 8), number)
found = {}
for name, make in MODELS.items():
    said = rounds_ids(make())
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = make()
    keras.config.set_dtype_policy("float32")
    try:
        apply.mixed_precision(make(), "mixed_bfloat16")
        refused = False
    except ValueError:
        refused = True
    same = np.array_equal(mixed.predict(ids(2999), verbose=0), mixed.predict(ids(2992), verbose=0))
    found[name] = [said, bool(same), refused]

class Step(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)

class Net(keras.Model):
    def __init__(self):
        super().__init__(); self.body = keras.Sequential([L.Input((8,)), L.Dense(4), L.Dense(3)]); self.head = L.Dense(2)
    def call(self, x):
        return self.head(self.body(x))

net = Net(); net(np.ones((1, 8), "float32"))
KINDS = {
    "two layers": keras.Sequential([L.Input((8,)), L.Dense(4), L.Dense(2)]),
    "one layer": keras.Sequential([L.Input((8,)), L.Flatten(), L.Dense(2)]),
    "own step": Step([L.Input((8,)), L.Dense(4), L.BatchNormalization(), L.Dense(2)]),
    "own layer": model(lambda i: Tokens()(i)),
    "own class around a model": net,
}
for name, one in KINDS.items():
    told = probe(one)
    found["kind: " + name] = [told["halving"], told["own_step"], list(told["own_layers"])]
    apply.mixed_precision(one, "mixed_bfloat16") if not told["rounds_ids"] else None
    changed = [l for l in one._flatten_layers() if l.compute_dtype == "bfloat16" and (l._trainable_variables or l._non_trainable_variables)]
    found["kind: " + name].append(len(changed))
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT)


ROUNDED = ("own layer", "reshaped", "nested sequential")
EXACT = ("own layer, integers", "direct", "sliced", "sequential", "nested functional")


@pytest.mark.parametrize("name", ROUNDED)
def test_a_model_that_really_rounds_ids_is_told_and_refused(found, name):
    assert [True, True, True] == found[name]


@pytest.mark.parametrize("name", EXACT)
def test_a_model_that_keeps_ids_exact_is_changed(found, name):
    assert [False, False, False] == found[name]


@pytest.mark.parametrize(
    ("name", "halving", "own_step", "own_layers"),
    [
        ("two layers", 1, False, []),
        ("one layer", 0, False, []),
        ("own step", 2, True, []),
        ("own class around a model", 2, False, ["Net"]),
    ],
)
def test_what_a_policy_would_change_is_counted_as_it_changes_it(found, name, halving, own_step, own_layers):
    assert [halving, own_step, own_layers, halving] == found[f"kind: {name}"]


def test_a_layer_of_ones_own_is_named(found):
    assert ["Tokens"] == found["kind: own layer"][2]
