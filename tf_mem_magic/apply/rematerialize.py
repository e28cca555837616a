"""Let a layer's ``call`` compute its intermediate results again in the backward pass, only where that is exact."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

_TOLD: weakref.WeakKeyDictionary[type[Any], str] = weakref.WeakKeyDictionary()


class _NoTensorError(Exception):
    """The block gave back something else than one tensor."""


def rematerialize(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the ``call`` of a Keras 3 layer: what it computes is not kept for the backward pass, but computed anew.

    Gradients are the same as without it. It is ``keras.remat``, with the layer's arguments handed on so that it works
    in the graph that ``fit`` makes. A layer for which computing twice would not be exact is called as it was, with a
    warning that says why: random numbers (dropout), state that a call changes (BatchNormalization), losses that
    layers add, masks of Keras, several outputs.

    Parameters
    ----------
    call : function
        The method ``call`` of a subclass of ``keras.layers.Layer``.

    Returns
    -------
    function
        The method to use in its place; ``__wrapped__`` is the one that was given.
    """
    if getattr(call, "rematerializes", False):
        return call

    @functools.wraps(call)
    def rematerialized(self: Any, *args: Any, **kwargs: Any) -> Any:
        import keras

        leaves = keras.tree.flatten((args, kwargs))
        reason = _why_not(self, leaves)
        if reason:
            _tell(type(self), reason)
            return call(self, *args, **kwargs)
        # Only what has a gradient is handed on: TensorFlow would add zero to it, which a mask of booleans cannot bear.
        places = [place for place, leaf in enumerate(leaves) if _is_tensor(leaf) and leaf.dtype.is_floating]

        def body(*tensors: Any) -> Any:
            given = list(leaves)
            for place, tensor in zip(places, tensors):
                given[place] = tensor
            own_args, own_kwargs = keras.tree.pack_sequence_as((args, kwargs), given)
            result = call(self, *own_args, **own_kwargs)
            if not _is_tensor(result):
                raise _NoTensorError
            return result

        try:
            return keras.remat(body)(*(leaves[place] for place in places))
        except _NoTensorError:
            _tell(type(self), "it gives back something else than one tensor")
            return call(self, *args, **kwargs)

    rematerialized.rematerializes = True  # type: ignore[attr-defined]
    return rematerialized


def _why_not(layer: Any, leaves: list[Any]) -> str:
    """Say why computing this layer's call twice would not be exact; empty: it is."""
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        return "Keras does not run on TensorFlow"
    if any(tf.is_tensor(leaf) and not _is_tensor(leaf) for leaf in leaves):
        return "it is given a variable, or a sparse or ragged tensor"
    if not any(_is_tensor(leaf) and leaf.dtype.is_floating for leaf in leaves):
        return "none of its inputs is a tensor of floating-point numbers"
    if any(getattr(leaf, "_keras_mask", None) is not None for leaf in leaves):
        return "its input carries a mask of Keras, which would be lost"
    inner = layer._flatten_layers()
    for one in reversed(inner):
        name = type(one).__name__
        if one._seed_generators:
            return f"{name} draws random numbers, which would be others in the second pass"
        if any(not variable.trainable for variable in one.variables):
            return f"{name} has state that a call may change, or is frozen"
        if getattr(one, "activity_regularizer", None) is not None:
            return f"{name} adds a loss of its activations, which would get no gradient"
        if name in ("Embedding", "Masking"):
            return f"{name} may make a mask of Keras, which would be lost"
    of_layers = {id(v) for one in inner if one is not layer for v in one.variables}
    if layer.compute_dtype != layer.variable_dtype and any(id(v) not in of_layers for v in layer.variables):
        return "it has weights of its own and computes in 16 bits"
    return ""


def _is_tensor(value: Any) -> bool:
    import tensorflow as tf

    return isinstance(value, tf.Tensor)


def _tell(layer_class: type[Any], reason: str) -> None:
    """Warn once for each class and reason."""
    if _TOLD.get(layer_class) != reason:
        _TOLD[layer_class] = reason
        warnings.warn(f"{layer_class.__name__} is not rematerialized: {reason}", stacklevel=3)
