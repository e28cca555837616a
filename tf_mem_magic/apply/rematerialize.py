"""Let a layer's ``call`` compute its intermediate results again in the backward pass, only where that is exact."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from tf_mem_magic.apply._function_block import add_block, is_building
from tf_mem_magic.apply._twice import Moment, is_symbolic, is_tensor, why_not

_TOLD: weakref.WeakKeyDictionary[type[Any], set[str]] = weakref.WeakKeyDictionary()


def rematerialize(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the ``call`` of a Keras 3 layer: what it computes is not kept for the backward pass, but computed anew.

    Gradients are the same as without it. It is ``keras.remat``, whose second pass sees what the first one saw: whether
    the layer trains, the seeds from which it draws random numbers (dropout), its moving statistics
    (BatchNormalization). They change in the first pass alone, once a step. A layer for which computing twice would not
    be exact is called as it was, with a warning that says why: random numbers that come from no seed of its own,
    losses that layers add, masks of Keras, recurrent layers, several outputs, a trainable weight that a call changes.

    Decorate in the same way a function that adds layers to a functional model: the layers of each of its calls become
    one inner model, which is computed again as a whole. A copy of the model, or a saved one, is an ordinary model.

    Parameters
    ----------
    call : function
        The method ``call`` of a subclass of ``keras.layers.Layer``, or a function from symbolic tensors to one.

    Returns
    -------
    function
        The method to use in its place; ``__wrapped__`` is the one that was given.
    """
    if getattr(call, "rematerializes", False):
        return call

    @functools.wraps(call)
    def rematerialized(*args: Any, **kwargs: Any) -> Any:
        import keras

        if args and isinstance(args[0], keras.layers.Layer):
            return _of_layer(call, args[0], args[1:], kwargs)
        return _of_function(call, args, kwargs)

    rematerialized.rematerializes = True  # type: ignore[attr-defined]
    return rematerialized


def _of_layer(call: Callable[..., Any], layer: Any, args: Any, kwargs: Any) -> Any:
    import keras

    reason = "Keras does not run on TensorFlow" if keras.backend.backend() != "tensorflow" else ""
    if not reason and is_symbolic():
        return call(layer, *args, **kwargs)
    reason = reason or why_not(layer, call, args, kwargs)
    if reason:
        _tell(type(layer), reason)
        return call(layer, *args, **kwargs)
    leaves = keras.tree.flatten((args, kwargs))
    # Only what has a gradient is handed on: TensorFlow would add zero to it, which a mask of booleans cannot bear.
    places = [place for place, leaf in enumerate(leaves) if is_tensor(leaf) and leaf.dtype.is_floating]
    moment = Moment(layer)
    passes = 0

    def body(*tensors: Any) -> Any:
        nonlocal passes
        passes += 1
        given = list(leaves)
        for place, tensor in zip(places, tensors):
            given[place] = tensor
        own_args, own_kwargs = keras.tree.pack_sequence_as((args, kwargs), given)
        if passes == 1:
            return call(layer, *own_args, **own_kwargs)
        with moment.again():
            return call(layer, *own_args, **own_kwargs)

    return keras.remat(body)(*(leaves[place] for place in places))


def _of_function(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    import keras

    if keras.backend.backend() != "tensorflow" or not is_building(args, kwargs):
        return function(*args, **kwargs)

    def tell(reason: str) -> None:
        warnings.warn(f"{function.__name__} is not rematerialized: {reason}", stacklevel=5)

    return add_block(function, args, kwargs, rematerialize, tell)


def _tell(layer_class: type[Any], reason: str) -> None:
    """Warn once for each class and reason."""
    told = _TOLD.setdefault(layer_class, set())
    if reason not in told:
        told.add(reason)
        warnings.warn(f"{layer_class.__name__} is not rematerialized: {reason}", stacklevel=4)
