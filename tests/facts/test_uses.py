"""The names that a cell uses through the functions and classes it names."""

from __future__ import annotations

import types

import pytest

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
