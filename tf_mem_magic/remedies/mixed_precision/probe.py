"""What a 16-bit policy would do to a model: read from its layers' classes and from how they are connected."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

WHEN = ("failed",)
_MODEL = "keras.src.models.model.Model"
_EXACT = ("InputLayer", "Embedding", "Functional")
"""Keras's layers that do not cast the floats they are given to their own compute type."""


def probe(model: Any) -> dict[str, Any]:
    """Give the fields of ``ModelFacts`` that this remedy asks for."""
    return {
        "rounds_ids": rounds_ids(model),
        "own_step": own_step(model),
        "own_layers": own_layers(model),
        "halving": halving(model),
    }


def own_step(model: Any) -> bool:
    """Whether the class of a model has a ``train_step`` that is not Keras's own."""
    return not _is_of_keras(inspect.getattr_static(type(model), "train_step"))


def own_layers(model: Any) -> tuple[str, ...]:
    """Name the classes of a model, its own included, whose ``call`` Keras did not write."""
    own = [type(layer) for layer in model._flatten_layers()]
    own = [cls for cls in own if not _is_of_keras(inspect.getattr_static(cls, "call", None))]
    return tuple(dict.fromkeys(cls.__name__ for cls in own))


def _is_of_keras(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).partition(".")[0] in ("keras", "tf_keras")


def halving(model: Any) -> int:
    """Count the layers with weights of their own that a 16-bit policy changes; those that give the outputs stay."""
    return sum(bool(one._trainable_variables or one._non_trainable_variables) for one in layers_to_change(model))


def layers_to_change(model: Any) -> list[Any]:
    """List the layers of a model, itself included, that a 16-bit policy changes: all but those that give outputs."""
    keep = {id(inner) for layer in final_layers(model) for inner in layer._flatten_layers()}
    return [one for one in model._flatten_layers() if id(one) not in keep and one.dtype_policy.name == "float32"]


def final_layers(model: Any) -> Iterator[Any]:
    """Yield the layers that give a model's outputs: they stay in float32, with everything inside them.

    A subclassed model tells its outputs only when it runs: of it, those are the last layers of the models that it
    holds, and softmax layers.
    """
    outputs: list[Any]
    if _is_a(model, "keras.src.models.sequential.Sequential"):
        outputs = list(model.layers[-1:])
    elif _is_a(model, "keras.src.models.functional.Functional"):
        outputs = [tensor._keras_history.operation for tensor in _flat(model.outputs)]
    else:
        inside = list(model._flatten_layers(include_self=False, recursive=False))
        outputs = [layer for layer in inside if _is_a(layer, _MODEL) or _is_softmax(layer)]
    for output in outputs:
        if _is_a(output, _MODEL):
            yield from final_layers(output)
        elif _is_a(output, "keras.src.layers.layer.Layer"):
            yield output


def _is_a(value: Any, name: str) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" == name for base in type(value).__mro__)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _flat(one)
    else:
        yield value


def _is_softmax(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    return type(layer).__name__ == "Softmax" or getattr(activation, "__name__", "") == "softmax"


def rounds_ids(model: Any) -> bool:
    """Whether ids reach an ``Embedding`` as floats through a layer that casts its inputs to the compute type.

    Keras's ``Input`` is float32 where nothing else is said, and a layer casts floats that it is given: in bfloat16
    the ids above 256 are rounded, in float16 those above 2048, and other rows are looked up. ``Embedding`` itself
    does not cast.
    """
    for layer in model._flatten_layers():
        for operation in getattr(layer, "_operations", ()):
            if _looks_up(operation) and any(_is_cast(operation, tensor) for tensor in _inputs(operation)):
                return True
    return False


def _looks_up(operation: Any) -> bool:
    if not hasattr(operation, "_flatten_layers"):
        return False
    return any(type(layer).__name__ == "Embedding" for layer in operation._flatten_layers())


def _is_cast(operation: Any, tensor: Any, depth: int = 0) -> bool:
    """Whether ``operation``, or a layer that ``tensor`` has come through, casts these floats."""
    if not str(tensor.dtype).startswith("float") or depth > 32:
        return False
    casts = hasattr(operation, "_flatten_layers") and type(operation).__name__ not in _EXACT
    if casts and getattr(operation, "autocast", True):
        return True
    source = tensor._keras_history.operation
    return any(_is_cast(source, one, depth + 1) for one in _inputs(source))


def _inputs(operation: Any) -> Iterator[Any]:
    for node in operation._inbound_nodes:
        yield from node.input_tensors
