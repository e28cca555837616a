"""What can be made of a Keras model for deployment: whether it can be copied, and what of it can be quantized."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from math import prod
from typing import Any

_FLOAT32 = 4


def is_copyable(model: Any) -> bool:
    """Whether Keras can make the model again from its own description: it and the models in it are no subclasses.

    A layer class of the person's own must take what Keras's layers take (``**kwargs``), or describe itself.
    """
    try:
        kinds = (
            sys.modules["keras.src.models.functional"].Functional,
            sys.modules["keras.src.models.sequential"].Sequential,
        )
        return isinstance(model, kinds) and all(_can_be_made_again(layer, kinds) for layer in model.layers)
    except Exception:
        return False


def _can_be_made_again(layer: Any, kinds: tuple[Any, ...]) -> bool:
    if isinstance(layer, kinds):
        return all(_can_be_made_again(inner, kinds) for inner in layer.layers)
    own = [cls for cls in type(layer).__mro__ if not cls.__module__.startswith(("keras.", "builtins"))]
    own = [cls for cls in own if cls.__module__.partition(".")[0] not in ("tensorflow", "abc")]
    if not own:
        return True
    if any("get_config" in vars(cls) or "from_config" in vars(cls) for cls in own):
        return True
    parameters = inspect.signature(type(layer).__init__).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def quantizable_bytes(layers: Iterable[Any]) -> list[int]:
    """List the bytes of each float32 weight of two and more dimensions in the layers that Keras itself can quantize.

    Those are plain layers of Keras with a ``quantize`` of their own, not quantized yet.
    """
    found: dict[int, int] = {}
    for layer in layers:
        try:
            plain = "quantize" in vars(type(layer)) and type(layer).__module__.startswith("keras.src.layers.")
            if not plain or layer.dtype_policy.quantization_mode:
                continue
            for variable in layer.weights:
                if len(variable.shape) > 1 and str(variable.dtype) == "float32":
                    found[id(variable)] = _FLOAT32 * prod(variable.shape)
        except Exception:
            continue
    return list(found.values())
