"""The variables and layers of models, as a graph knows them: by the handles that it captures, by name."""

from __future__ import annotations

import sys
from typing import Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.step import WIDTHS


def variables_of(owner: Any) -> list[Any]:
    """List the variables of a model or optimizer; none where it cannot tell them (a model that was never built)."""
    try:
        held = owner.variables
        return list(held() if callable(held) else held)
    except Exception as problem:
        troubles.note("variables could not be listed", problem)
        return []


def handle_of(variable: Any) -> int:
    """Identify a variable by its handle, which a graph that reads it captures."""
    inner = getattr(variable, "_value", None)
    handle = getattr(variable if inner is None else inner, "handle", None)
    return id(variable if handle is None else handle)


def captured_bytes(handle: Any) -> int:
    """Give the bytes of the variable behind a handle that a graph captures; 0 where it does not tell."""
    from math import prod

    import tensorflow as tf

    one = _behind(handle)
    shape = captured_shape(handle)
    return 0 if one is None or shape is None else prod(shape) * WIDTHS.get(tf.as_dtype(one.dtype).name, 0)


def captured_shape(handle: Any) -> tuple[int, ...] | None:
    """Give the shape of the variable behind a handle that a graph captures; None where it does not tell."""
    import tensorflow as tf

    one = _behind(handle)
    shape = None if one is None else tf.TensorShape(one.shape)
    return tuple(shape.as_list()) if shape is not None and shape.is_fully_defined() else None


def _behind(handle: Any) -> Any:
    from tensorflow.python.ops import handle_data_util

    data = handle_data_util.get_resource_handle_data(handle)
    return data.shape_and_type[0] if data.is_set and len(data.shape_and_type) == 1 else None


def layer_names(model: Any) -> list[str]:
    """Name the layers of a model that are no models themselves, outermost first."""
    return [name for name, _ in layers_of(model)]


def layers_of(model: Any) -> list[tuple[str, str]]:
    """List the layers of a model that are no models themselves, outermost first: names and classes."""
    kinds = tuple(
        kind
        for module, name in (("keras.src.models.model", "Model"), ("tf_keras.src.engine.training", "Model"))
        if isinstance(kind := getattr(sys.modules.get(module), name, None), type)
    )
    try:
        layers = model._flatten_layers(include_self=False)
        return [(str(layer.name), type(layer).__name__) for layer in layers if not isinstance(layer, kinds)]
    except Exception as problem:
        troubles.note("layers could not be listed", problem)
        return []
