"""Whether a model would round the ids that it looks up, were it to compute in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WHEN = ("failed",)
_EXACT = ("InputLayer", "Embedding", "Functional")
"""Keras's layers that do not cast the floats they are given to their own compute type."""


def probe(model: Any) -> dict[str, Any]:
    """Give the fields of ``ModelFacts`` that this remedy asks for."""
    return {"rounds_ids": rounds_ids(model)}


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
