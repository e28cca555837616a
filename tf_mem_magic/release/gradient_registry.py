"""Why a trained model's memory stays taken after ``del``, and the cure.

TensorFlow registers the gradient of every ``tf.custom_gradient`` it meets in a graph (Keras meets one in most losses
and optimizer steps) under a fresh name, for ever. The registered function refers to the graph, the graph to the
model's variables, so no variable of a model that was trained in graph mode is ever freed.

An entry is needed only while its graph lives. Here the graph is made to own the function, and the registry to know
it weakly: graphs that somebody still uses keep their gradients, the others go with everything they hold.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from types import FunctionType
from typing import Any

_OWNED = "_tfmem_owned_gradients"


class WeakGradient:
    """A registered gradient function that lives as long as its graph, and leaves the registry with it."""

    def __init__(self, function: FunctionType, registry: dict[str, Any], name: str) -> None:
        self._function = weakref.ref(function, lambda _: registry.pop(name, None))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        function = self._function()
        if function is None:
            raise LookupError("the graph that this gradient belonged to is gone")
        return function(*args, **kwargs)


def tie_gradients_to_graphs() -> int:
    """Let registered custom gradients live only as long as their graphs; give how many were tied.

    Nothing is freed by this itself: ``gc.collect()`` afterwards frees the graphs that nobody else holds. Does
    nothing where TensorFlow is not imported, or where its registry is not as known.
    """
    framework = sys.modules.get("tensorflow.python.framework.ops")
    registry = getattr(getattr(framework, "gradient_registry", None), "_registry", None)
    if not isinstance(registry, dict):
        return 0
    tied = 0
    for name, entry in list(registry.items()):
        function = entry.get("type") if isinstance(entry, dict) else None
        if not str(name).startswith("CustomGradient-") or not isinstance(function, FunctionType):
            continue
        graphs = _graphs_of(function)
        if not graphs:
            continue
        for graph in graphs:
            setattr(graph, _OWNED, (*getattr(graph, _OWNED, ()), function))
        entry["type"] = WeakGradient(function, registry, name)
        tied += 1
    return tied


def _graphs_of(function: FunctionType) -> list[Any]:
    """List the function graph in which the gradient's operation lies, and those that graph was made in."""
    tape_function = _cells(function).get("tape_grad_fn")
    if not isinstance(tape_function, FunctionType):
        return []
    result = next(_tensors(_cells(tape_function).get("result")), None)
    graph = getattr(result, "graph", None)
    found: list[Any] = []
    while graph is not None and type(graph).__name__.endswith("FuncGraph"):
        found.append(graph)
        graph = getattr(graph, "outer_graph", None)
    return found


def _cells(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors(entry)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif hasattr(type(value), "graph"):
        yield value
