"""What can be made of a Keras model for deployment: whether it can be copied, and what of it can be quantized."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from math import prod
from typing import Any

from tf_mem_magic.remedies.deploy._meaning import why_not

WHEN = ("failed", "trained")
_FLOAT32 = 4


def probe(model: Any) -> dict[str, Any]:
    """Give what the remedies for deployment must know of a model: fields of ``ModelFacts``."""
    quantizable = quantizable_bytes(_layers(model))
    keras_3 = _is_keras_3(model)
    return {
        "copyable": is_copyable(model),
        "quantizable": sum(quantizable),
        "widest": max(quantizable, default=0),
        "form": _form(model) if keras_3 else None,
        "no_student": _no_student(model) if keras_3 else None,
    }


def _layers(model: Any) -> list[Any]:
    try:
        return [layer for layer in model._flatten_layers() if layer is not model]
    except Exception:
        return []


def _is_keras_3(model: Any) -> bool:
    return not any(base.__module__.partition(".")[0] == "tf_keras" for base in type(model).__mro__)


def _form(model: Any) -> str:
    """Say how a Keras 3 model is made."""
    bases = {f"{base.__module__}.{base.__name__}" for base in type(model).__mro__}
    if "keras.src.models.sequential.Sequential" in bases:
        return "sequential"
    return "functional" if "keras.src.models.functional.Functional" in bases else "subclassed"


def _no_student(model: Any) -> str | None:
    try:
        return why_not(model)
    except Exception:
        return None


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
