"""The names that a cell uses through the functions and classes it names."""

from __future__ import annotations

import types

import pytest

from tf_mem_magic.run.inspect_uses import used_names

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
