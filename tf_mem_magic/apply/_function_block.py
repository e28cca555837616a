"""A function that builds a block of a functional model, made into one layer of that model whose call can be changed."""

from __future__ import annotations

import random
import types
from collections.abc import Callable, Iterator
from typing import Any

from tf_mem_magic.apply._twice import why_not_layers


def is_building(args: Any, kwargs: Any) -> bool:
    """Whether a function is given symbolic tensors: it adds layers to a functional model."""
    import keras

    return any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten((args, kwargs)))


def add_block(
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    decorate: Callable[[Callable[..., Any]], Callable[..., Any]],
    tell: Callable[[str], None],
) -> Any:
    """Call a function that adds layers to a model, and make these layers one inner model whose ``call`` is decorated.

    The layers, their order and their first weights are the same as without it. Where that cannot be, the function is
    called as it was, and ``tell`` gets the reason.
    """
    drawn = random.getstate()
    built = _built(function, args, kwargs)
    if isinstance(built, str):
        tell(built)
        # Keras draws the seeds of initializers and of dropout from here.
        random.setstate(drawn)
        return function(*args, **kwargs)
    model, tensors = built
    model.call = types.MethodType(decorate(type(model).call), model)
    return model(tensors)


def _built(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[Any]] | str:
    """Build the inner model and list what it is called on; or say why that cannot be done exactly."""
    import keras

    leaves = keras.tree.flatten((args, kwargs))
    tensors = list({id(leaf): leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)}.values())
    if any(tensor.sparse or getattr(tensor, "ragged", False) for tensor in tensors):
        return "it is given a sparse or ragged tensor"
    if any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors):
        return "its input carries a mask of Keras, which would be lost"
    if any(isinstance(value, keras.layers.Layer) for value in (*leaves, *_outer_values(function))):
        return "it uses a layer that was made outside it"
    inputs = {id(tensor): keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in tensors}
    given = keras.tree.pack_sequence_as((args, kwargs), [inputs.get(id(leaf), leaf) for leaf in leaves])
    result = function(*given[0], **given[1])
    if not isinstance(result, keras.KerasTensor):
        return "it gives back something else than one tensor"
    if getattr(result, "_keras_mask", None) is not None:
        return "its result carries a mask of Keras, which would be lost"
    try:
        model = keras.Model(list(inputs.values()), result)
    except ValueError:
        return "it uses a tensor that it was not given"
    added = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if len(added) < 2:
        return "it adds fewer than two layers"
    known = {id(operation) for operation in model.operations}
    for layer in added:
        nodes = [node for node in layer._inbound_nodes if id(node) not in _nodes_of(model)]
        if nodes or id(layer) not in known:
            return "it uses a layer that was made outside it"
    return why_not_layers(model) or (model, tensors)


def _nodes_of(model: Any) -> set[int]:
    return {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}


def _outer_values(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a function, and those it calls, reach outside: a layer there may be one of the rest of the model."""
    import keras

    queue, met = [getattr(function, "__wrapped__", function)], set()
    while queue:
        one = queue.pop()
        if one in met or not isinstance(one, types.FunctionType):
            continue
        met.add(one)
        values = [one.__globals__[name] for name in one.__code__.co_names if name in one.__globals__]
        values += [cell.cell_contents for cell in one.__closure__ or () if not _is_empty(cell)]
        values += [*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
        for value in values:
            yield from keras.tree.flatten(value) if isinstance(value, (list, tuple, dict)) else (value,)
        own = (getattr(value, "__wrapped__", value) for value in values)
        queue += [value for value in own if getattr(value, "__globals__", None) is one.__globals__]


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:  # not assigned yet
        return True
