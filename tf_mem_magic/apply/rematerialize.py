"""Let a layer's ``call`` compute its intermediate results again in the backward pass, only where that is exact."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any, overload

from tf_mem_magic.apply._function_block import add_block, is_building
from tf_mem_magic.apply._twice import Moment, is_symbolic, is_tensor, why_not

_Call = Callable[..., Any]

_TOLD: weakref.WeakKeyDictionary[type[Any], set[str]] = weakref.WeakKeyDictionary()


@overload
def rematerialize(call: _Call, *, first: int | None = None, of: int | None = None) -> _Call: ...
@overload
def rematerialize(call: None = None, *, first: int, of: int) -> Callable[[_Call], _Call]: ...
def rematerialize(
    call: _Call | None = None, *, first: int | None = None, of: int | None = None
) -> _Call | Callable[[_Call], _Call]:
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
        The method ``call`` of a subclass of ``keras.layers.Layer``, or a function from symbolic tensors to one. Left
        out, what is given back decorates one: ``@apply.rematerialize(first=2, of=6)``.
    first, of : int
        Of each ``of`` blocks, in the order in which they are first called, only the first ``first`` are computed again;
        the others are called as they were. Left out, all are.

    Returns
    -------
    function
        The method to use in its place; ``__wrapped__`` is the one that was given.

    Raises
    ------
    ValueError
        If only one of ``first`` and ``of`` is given, or not ``0 < first <= of``.
    """
    if (first is None) != (of is None) or (first is not None and of is not None and not 0 < first <= of):
        raise ValueError(f"rematerialize(first={first}, of={of}): both are needed, and 0 < first <= of")
    turns = _Turns(first or 1, of or 1)
    if call is None:
        return lambda call: _decorated(call, turns)
    return _decorated(call, turns)


def _decorated(call: _Call, turns: _Turns) -> _Call:
    if getattr(call, "rematerializes", False):
        return call

    @functools.wraps(call)
    def rematerialized(*args: Any, **kwargs: Any) -> Any:
        import keras

        if args and isinstance(args[0], keras.layers.Layer):
            return _of_layer(call, args[0], args[1:], kwargs) if turns.has(args[0]) else call(*args, **kwargs)
        return _of_function(call, args, kwargs, turns)

    rematerialized.rematerializes = True  # type: ignore[attr-defined]
    return rematerialized


class _Turns:
    """Which blocks are computed again: the first ``first`` of each ``of``, in the order in which they come."""

    def __init__(self, first: int, of: int) -> None:
        self._first, self._of, self._came = first, of, 0
        self._has: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()

    def next(self) -> bool:
        """Whether the block that comes now is."""
        self._came += 1
        return (self._came - 1) % self._of < self._first

    def has(self, layer: Any) -> bool:
        """Whether a layer is; it came when it was first asked about."""
        if layer not in self._has:
            self._has[layer] = self.next()
        return self._has[layer]


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


def _of_function(function: _Call, args: Any, kwargs: Any, turns: _Turns) -> Any:
    import keras

    if keras.backend.backend() != "tensorflow" or not is_building(args, kwargs) or not turns.next():
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
