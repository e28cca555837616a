"""Which weight a layer is making, read from a stack while it makes it."""

from __future__ import annotations

import sys
import types

import pytest

from tf_mem_magic.core.facts import BuildingFacts
from tf_mem_magic.facts.building import observe_building

FILE = "/venv/lib/python3/site-packages/keras/src/layers/layer.py"


def making(shape, name="kernel", dtype="float32", file=FILE, function="add_weight"):
    """Give what is read of the stack below a function that is called and compiled as Keras's own."""
    code = f"def {function}(self, shape=None, name=None, dtype=None):\n    return look()\n"
    space = {"look": lambda: observe_building(sys._getframe())}
    exec(compile(code, file, "exec"), space)
    layer = type("Dense", (), {})()
    layer.name = "dense_3"
    return space[function](layer, shape, name, dtype)


def test_the_layer_and_the_weight_that_is_being_made_are_named():
    assert making((65536, 2048)) == BuildingFacts("dense_3", "Dense", "kernel", (65536, 2048), "float32")


@pytest.mark.parametrize("more", [{"file": "/home/me/layer.py"}, {"function": "build"}])
def test_only_keras_own_function_counts(more):
    assert making((2, 2), **more) is None


def test_what_is_no_shape_is_left_out():
    assert making(None) == BuildingFacts("dense_3", "Dense", "kernel", None, "float32")
    assert making((None, 3)).shape is None


def test_a_stack_without_a_layer_and_none_at_all_give_nothing():
    assert observe_building(sys._getframe()) is None
    assert observe_building(None) is None


def test_a_layer_whose_name_cannot_be_read_is_left_out():
    code = "def add_weight(self, shape=None, name=None, dtype=None):\n    return look()\n"
    space = {"look": lambda: observe_building(sys._getframe())}
    exec(compile(code, FILE, "exec"), space)
    assert space["add_weight"](types.SimpleNamespace(), (1,)) is None


def test_a_weight_whose_value_is_made_later_is_told_by_its_path():
    code = "def _deferred_initialize(self):\n    return look()\n"
    space = {"look": lambda: observe_building(sys._getframe())}
    exec(compile(code, "/venv/lib/keras/src/backend/tensorflow/core.py", "exec"), space)
    variable = types.SimpleNamespace(_path="net/dense_2/kernel", _shape=(65536, 2048), _dtype="float32")
    made = BuildingFacts("dense_2", "", "kernel", (65536, 2048), "float32")
    assert space["_deferred_initialize"](variable) == made
    assert space["_deferred_initialize"](types.SimpleNamespace(_path="kernel")) is None
