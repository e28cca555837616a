"""The names that a cell uses through the functions and classes it names."""

from __future__ import annotations

import types

import pytest

from tests.kernel import bfc
from tests.script import found_by
from tf_mem_magic.facts.uses import used_by_others, used_names

SETUP = """
generator, cache, model, other = 1, 2, 3, 4

def step(x):
    return [generator(y) for y in x]

def train(data):
    for x in data:
        step(x)

class Decorated:
    def __init__(self, function):
        self._python_function = function

decorated = Decorated(step)

class Trainer:
    def run(self):
        return model
    @property
    def kept(self):
        return cache

trainer = Trainer()

def make(model):
    def inner():
        return model
    return inner

made = make(3)
"""


@pytest.fixture(scope="module")
def namespace():
    module = types.ModuleType("__main__")
    exec(SETUP, module.__dict__)
    return vars(module)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("train(data)", {"step", "generator"}),
        ("decorated(x)", {"generator"}),
        ("Trainer().run()", {"model", "cache"}),
        ("trainer.run()", {"model", "cache"}),
        ("made()", {"model"}),
        ("print(other)", set()),
    ],
)
def test_names_are_found_through_functions_decorators_classes_and_closures(namespace, source, expected):
    assert expected == set(used_names(source, namespace))


HOLDERS = """
BATCH = 64
def rate(epoch):
    return BATCH / 256
def known(x):
    return BATCH
class Callback:
    def __init__(self, function):
        self.function = function
callbacks = [Callback(rate)]
table = {"rate": rate}
alone = Callback(rate)
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fit(BATCH, callbacks)", ("BATCH",)),
        ("table", ("BATCH",)),
        ("alone", ("BATCH",)),
        ("rate(3)", ("BATCH",)),
        ("known(BATCH)", ()),
        ("BATCH", ()),
    ],
)
def test_names_that_other_code_reads_are_found_in_what_holds_it(source, expected):
    module = types.ModuleType("__main__")
    exec(HOLDERS, module.__dict__)
    assert used_by_others(source, vars(module), {"known"}) == expected


READERS = """
batch = 64
class Own:
    def __init__(self):
        self.batch = 32
    def __len__(self):
        return 100 // self.batch
class Local:
    def call(self, x):
        batch = x.shape[0]
        return x.reshape((batch, -1))
def closed():
    batch = 8
    def inner():
        return batch
    return inner
class Really:
    def call(self, x):
        return [x.reshape((batch, -1)) for _ in range(3)]
def written():
    global batch
    batch = 8
own, local = Own(), Local()
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("own", ()),
        ("local", ()),
        ("closed()()", ()),
        ("Really()", ("batch",)),
        ("written()", ("batch",)),
    ],
)
def test_an_attribute_or_a_local_of_the_same_name_reads_no_global(source, expected):
    module = types.ModuleType("__main__")
    exec(READERS, module.__dict__)
    assert tuple(n for n in used_by_others(source, vars(module), ()) if n == "batch") == expected


HELD = """
BATCH, other = 64, 3
def mask(x):
    return x[:BATCH]
class Layer:
    def __init__(self, *parts, **more):
        self._layers = list(parts)
        self.__dict__.update(more)
Layer.__module__ = "keras.src.layers.layer"
class Foreign(Layer):
    pass
Foreign.__module__ = "library"
class Zeros(Layer):
    def call(self, x):
        return x + zeros((BATCH, 8))
class Silent(Layer):
    def call(self, x):
        return x
class Noise:
    def draw(self):
        return normal((BATCH, 8))
plain = Layer(Layer(), Silent())
functional = Layer(Layer(), Zeros())
nested = Layer(Layer(Layer(Zeros())))
with_loss = Layer(_compile_loss=Layer(_user_loss=mask))
with_table = Silent(blocks={"first": [Zeros()]})
given = Silent(noise=Noise())
deep_in_a_library = Foreign(inner=Foreign(inner=Zeros()))
circle = Silent()
circle.own, circle.table = circle, [circle]
many = Layer(*(Layer() for _ in range(400)), Zeros())
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain.fit(ds)", ()),
        ("functional.fit(ds)", ("BATCH",)),
        ("nested.fit(ds)", ("BATCH",)),
        ("with_loss.fit(ds)", ("BATCH",)),
        ("with_table.fit(ds)", ("BATCH",)),
        ("given.fit(ds)", ("BATCH",)),
        ("many.fit(ds)", ("BATCH",)),
        ("deep_in_a_library.fit(ds)", ()),
        ("circle.fit(ds)", ()),
    ],
)
def test_names_are_found_through_the_layers_and_functions_that_a_model_holds(source, expected):
    module = types.ModuleType("__main__")
    exec(HELD, module.__dict__)
    assert used_by_others(source, vars(module), ()) == expected


MODELS = """
import json, sys
import keras, tensorflow as tf
from keras import layers
from tf_mem_magic.facts.uses import used_by_others
json.load(sys.stdin)
BATCH = 4
class Zeros(layers.Layer):
    def call(self, x):
        return x + tf.zeros((BATCH, 8))
class Mean(keras.Model):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts
    def call(self, x):
        return sum(part.draw(x) for part in self.parts.values())
class Part:
    def draw(self, x):
        return x + tf.random.normal((BATCH, 8))
def own_loss(y, p):
    return tf.reduce_sum(y - p) / BATCH
def functional(layer):
    inputs = keras.Input((8,))
    return keras.Model(inputs, layer(inputs))
def compiled(model, loss="mse"):
    model.compile("adam", loss, metrics=["mae"])
    model.fit(tf.ones((4, 8)), tf.ones((4, 8)), batch_size=4, verbose=0)
    return model
plain = compiled(functional(layers.Dense(8)))
in_graph = compiled(functional(Zeros()))
in_list = compiled(keras.Sequential([layers.Dense(8), Zeros()]))
nested = compiled(functional(keras.Sequential([functional(Zeros())])))
by_loss = compiled(functional(layers.Dense(8)), own_loss)
by_object = compiled(Mean({"first": Part()}))
names = ("plain", "in_graph", "in_list", "nested", "by_loss", "by_object")
print("FOUND" + json.dumps({n: used_by_others(f"{n}.fit(x)", globals(), ()) for n in names}))
"""


@pytest.mark.tf
@pytest.mark.timeout(300)
def test_keras_holds_what_reads_a_name_where_it_is_looked_for():
    found = found_by(MODELS, {}, bfc(512))
    reading = [name for name, words in found.items() if "BATCH" in words]
    assert reading == ["in_graph", "in_list", "nested", "by_loss", "by_object"]
