"""What each operation of a step is for: which layer it belongs to, and whether its tensor is an activation or not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

from tf_mem_magic.core.step import Node, Step

Role = Literal["inputs", "activations", "gradients", "updates"]

_CALL = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_GRADIENT = re.compile(r"(?:^|/)(?:gradient_tape|gradients)/")
_NUMBER = re.compile(r"_\d+$")
_NO_LAYER = frozenset({"PartitionedCall", "StatefulPartitionedCall", "while", "body", "cond"})
_NUMBERS = frozenset({"float16", "bfloat16", "float32", "float64", "complex64", "complex128"})
_DRAWN = frozenset({"IteratorGetNext", "IteratorGetNextSync", "IteratorGetNextAsOptional", "OptionalGetValue"})
DATA = _DRAWN | {"Placeholder"}
"""Types of operations that give the step's data."""


def roles(step: Step) -> tuple[Role, ...]:
    """Say for each operation what its outputs are.

    Gradients are told by the scope that TensorFlow opens for them. What is computed from gradients alone outside all
    scopes is one too: the tape's sums, and gradients that an operation brings along (of swish). What else is computed
    from gradients is the optimizer's: updates, momenta, clipped or unscaled gradients.
    """
    found: list[Role] = []
    for at, node in enumerate(step.nodes):
        if node.kind in _DRAWN or (node.kind == "Placeholder" and at in step.given):
            found.append("inputs")
        elif _GRADIENT.search(node.name):
            found.append("gradients")
        else:
            read = {
                found[source]
                for source, output in node.inputs
                if source < at and step.nodes[source].outputs[output].dtype in _NUMBERS
            }
            if "gradients" in read and "updates" not in read and "/" not in _CALL.sub("", node.name) and node.outputs:
                found.append("gradients")
            else:
                found.append("updates" if read & {"gradients", "updates"} else "activations")
    return tuple(found)


def scopes_of(names: Iterable[str], layers: Collection[str]) -> dict[str, str]:
    """Say for each scope in the names of operations which layer opened it; those of no layer are left out.

    Keras opens a layer's scope twice, and TensorFlow numbers each that is open already: the operations of ``dense`` are
    in ``dense_1``, those of ``dense_1`` in ``dense_1_2``. A name that is that of a layer and, without its number, that
    of another belongs to the latter where the first has a scope with a number of its own.

    Parameters
    ----------
    names : iterable of str
        The paths of all operations of the graph.
    layers : collection of str
        The names of the layers that are no models themselves.
    """
    parts = {part for name in names for part in name.split("/")[:-1]}
    numbered = {plain for part in parts if (plain := _NUMBER.sub("", part)) != part}
    found = {}
    for part in parts:
        plain = _NUMBER.sub("", part)
        if plain in layers and (part not in layers or part in numbered):
            found[part] = plain
        elif part in layers:
            found[part] = part
    return found


def scopes_in(step: Step, layers: Collection[str]) -> dict[str, str]:
    """Say for each scope of a step's operations which layer opened it (:func:`scopes_of`)."""
    return scopes_of((node.name for node in _all_nodes(step)), layers)


def _all_nodes(step: Step) -> Iterator[Node]:
    yield from step.nodes
    for body in step.bodies:
        yield from _all_nodes(body)


def layer_of(name: str, scopes: Mapping[str, str]) -> str:
    """Give the layer that an operation belongs to, by the scopes in its name.

    Parameters
    ----------
    name : str
        The operation's path, such as ``"StatefulPartitionedCall/functional_1/conv2d_4_1/convolution"``.
    scopes : mapping of str to str
        Which layer opened a scope (:func:`scopes_of`).

    Returns
    -------
    str
        The outermost known layer on the path, else the scope around the operation; empty where there is none.
    """
    path = _GRADIENT.sub("/", _CALL.sub("", name)).strip("/").split("/")[:-1]
    path = [part for part in path if part not in _NO_LAYER]
    for part in path:
        if part in scopes:
            return scopes[part]
    return path[-1] if len(path) > 1 else path[0] if path else ""
