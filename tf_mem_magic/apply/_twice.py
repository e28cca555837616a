"""Compute a layer's call twice with the same result: what the first pass saw is kept, and what may differ is found."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

_SEEN = ("current_call_ctx", "autocast_scope")
"""What Keras keeps for the layers that a call reaches: ``training`` and its like, and the 16 bits they compute in."""

_HARMLESS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "Assert", "XlaSharding"})
"""Operations that TensorFlow calls stateful, and that may run twice."""

_FOUND: weakref.WeakKeyDictionary[Any, dict[Any, str]] = weakref.WeakKeyDictionary()


class ChangedError(RuntimeError):
    """The second pass changed something that the first one had not kept."""


class Moment:
    """What a call sees of Keras and of its own state, kept so that a second pass sees the same.

    Parameters
    ----------
    layer : keras.layers.Layer
        The layer that is about to be called.
    """

    def __init__(self, layer: Any) -> None:
        import tensorflow as tf
        from keras.src.backend import AutocastScope
        from keras.src.backend.common import global_state

        seen = {name: global_state.get_global_attribute(name) for name in _SEEN}
        # The layers that are called change the call's context: keep it as it is now.
        self._seen = {**seen, "current_call_ctx": copy.copy(seen["current_call_ctx"])}
        with AutocastScope(None):
            self._state = [(variable, tf.identity(variable.value)) for variable in state_of(layer)]

    @property
    def training(self) -> Any:
        """What Keras would tell a layer that asks whether it trains."""
        return getattr(self._seen["current_call_ctx"], "training", None)

    @contextlib.contextmanager
    def again(self) -> Iterator[Any]:
        """Let what is called inside see this moment; what it assigns to variables goes to the scope alone.

        Raises
        ------
        ChangedError
            A variable was assigned that is no part of the kept state.
        """
        import keras
        from keras.src.backend.common import global_state

        now = {name: global_state.get_global_attribute(name) for name in _SEEN}
        for name in _SEEN:
            global_state.set_global_attribute(name, None)
        try:
            scope = keras.StatelessScope(self._state, collect_losses=True, initialize_variables=False)
            with scope:
                global_state.set_global_attribute("current_call_ctx", copy.copy(self._seen["current_call_ctx"]))
                global_state.set_global_attribute("autocast_scope", self._seen["autocast_scope"])
                yield scope
        finally:
            for name, value in now.items():
                global_state.set_global_attribute(name, value)
        if set(scope.state_mapping) - {id(variable) for variable, _ in self._state}:
            raise ChangedError("it changes a variable that is not part of its own state")


def state_of(layer: Any) -> list[Any]:
    """List the variables that calls of the layer may change: seeds, moving statistics and their like.

    Weights that were frozen are no state: TensorFlow's own variable still has gradients.
    """
    return [variable for variable in layer.variables if not variable.value.trainable]


def is_symbolic() -> bool:
    """Whether Keras calls layers only to learn shapes, or without their state, so that nothing is kept for later."""
    from keras.src.backend import in_stateless_scope

    return bool(in_stateless_scope())


def why_not(layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> str:
    """Say why computing this call twice would not be exact; empty: it is.

    What text and types do not tell is found by tracing the call once into a graph that is thrown away.
    """
    import keras
    import tensorflow as tf

    leaves = keras.tree.flatten((args, kwargs))
    return _of_inputs(leaves) or why_not_layers(layer) or _traced(layer, call, leaves, (args, kwargs), tf)


def is_tensor(value: Any) -> bool:
    """Whether it is a dense tensor of TensorFlow."""
    import tensorflow as tf

    return isinstance(value, tf.Tensor)


def _of_inputs(leaves: list[Any]) -> str:
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return "it runs under a distribution strategy, with which this was not tested"
    if any(tf.is_tensor(leaf) and not is_tensor(leaf) for leaf in leaves):
        return "it is given a variable, or a sparse or ragged tensor"
    if not any(is_tensor(leaf) and leaf.dtype.is_floating for leaf in leaves):
        return "none of its inputs is a tensor of floating-point numbers"
    if any(getattr(leaf, "_keras_mask", None) is not None for leaf in leaves):
        return "its input carries a mask of Keras, which would be lost"
    return ""


def why_not_layers(layer: Any) -> str:
    """Say which layer inside this one cannot be computed twice, as its type and settings tell; empty: none."""
    import keras

    for one in reversed(layer._flatten_layers()):
        name = type(one).__name__
        if getattr(one, "activity_regularizer", None) is not None:
            return f"{name} adds a loss of its activations, which would get no gradient"
        if name in ("Embedding", "Masking"):
            return f"{name} may make a mask of Keras, which would be lost"
        if isinstance(one, (keras.layers.RNN, keras.layers.Bidirectional)):
            return f"{name} is recurrent, with which this was not tested"
        if not one.built:
            return f"{name} is not built before its first call"
    inner = {id(v) for one in layer._flatten_layers(include_self=False) for v in one.variables}
    own = [v for v in layer.trainable_variables if id(v) not in inner]
    if own and layer.compute_dtype != layer.variable_dtype:
        return "it has weights of its own and computes in 16 bits"
    if any(getattr(variable, "overwrite_with_gradient", False) for variable in layer.variables):
        return "it computes in 8 bits, with which this was not tested"
    return ""


def _traced(layer: Any, call: Callable[..., Any], leaves: list[Any], structure: Any, tf: Any) -> str:
    import keras

    moment = Moment(layer)
    if tf.is_tensor(moment.training):
        return "whether it trains is a tensor"
    places = [place for place, leaf in enumerate(leaves) if is_tensor(leaf)]
    others = [leaf for leaf in leaves if not is_tensor(leaf)]
    kinds = ((leaves[place].dtype, leaves[place].shape.rank) for place in places)
    key = (repr((moment.training, keras.tree.pack_sequence_as(structure, [0] * len(leaves)), others)), *kinds)
    found = _FOUND.setdefault(layer, {})
    if key in found:
        return found[key]
    reasons: list[str] = []

    def body(*tensors: Any) -> Any:
        given = list(leaves)
        for place, tensor in zip(places, tensors):
            given[place] = tensor
        own_args, own_kwargs = keras.tree.pack_sequence_as(structure, given)
        with moment.again() as scope:
            result = call(layer, *own_args, **own_kwargs)
        if not is_tensor(result):
            reasons.append("it gives back something else than one tensor")
            return tensors
        if getattr(result, "_keras_mask", None) is not None:
            reasons.append("its result carries a mask of Keras, which would be lost")
        if scope.losses:
            reasons.append("it adds a loss, which would get no gradient")
        return result

    specs = [tf.TensorSpec(leaves[place].shape, leaves[place].dtype) for place in places]
    try:
        traced = tf.function(body, autograph=False).get_concrete_function(*specs)
    except ChangedError as error:
        reasons.append(str(error))
    except Exception as error:
        reasons.append(f"it could not be traced ({type(error).__name__})")
    else:
        reasons.append(_of_graph(traced, layer, [value for _, value in moment._state]))
    found[key] = next(filter(None, reasons), "")
    return found[key]


def _of_graph(traced: Any, layer: Any, kept: list[Any]) -> str:
    """Say what in the traced graph may differ between two runs of it, or has gradients that would be lost."""
    import tensorflow as tf
    from keras.src.backend import AutocastScope

    for operation in traced.graph.get_operations():
        if operation.op_def.is_stateful and operation.type not in _HARMLESS:
            return f"it runs {operation.type}, which may not do the same twice"
    with AutocastScope(None):
        own = [variable.value.handle for variable in layer.variables]
    own += [variable.handle for variable in traced.graph.trainable_variables]
    for outer in traced.captured_inputs:
        if outer.dtype == tf.resource:
            if all(outer is not handle for handle in own):
                return "it reads a variable that is not one of its own"
        elif not hasattr(outer, "numpy") and all(outer is not value for value in kept):
            return "it uses a tensor that it was not given, whose gradient would be lost"
    return ""
