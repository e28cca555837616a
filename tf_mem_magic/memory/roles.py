"""What each operation of a step is for: which layer it belongs to, and whether its tensor is an activation or not."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from tf_mem_magic.core.step import Step

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

    Gradients are told by the scope that TensorFlow opens for them. What is computed from gradients and is none itself
    is the optimizer's: updates, momenta, clipped or unscaled gradients.
    """
    found: list[Role] = []
    for at, node in enumerate(step.nodes):
        if node.kind in _DRAWN or (node.kind == "Placeholder" and at in step.given):
            found.append("inputs")
        elif _GRADIENT.search(node.name):
            found.append("gradients")
        elif any(
            found[source] in ("gradients", "updates") and step.nodes[source].outputs[output].dtype in _NUMBERS
            for source, output in node.inputs
            if source < at
        ):
            found.append("updates")
        else:
            found.append("activations")
    return tuple(found)


def layer_of(name: str, layers: Collection[str]) -> str:
    """Give the layer that an operation belongs to, by the scopes in its name.

    Parameters
    ----------
    name : str
        The operation's path, such as ``"StatefulPartitionedCall/functional_1/conv2d_4_1/convolution"``.
    layers : collection of str
        The names of the layers that are no models themselves. Keras numbers a layer's scope anew each time it is
        opened, so ``conv2d_4_1`` is a call of ``conv2d_4``.

    Returns
    -------
    str
        The outermost known layer on the path, else the scope around the operation; empty where there is none.
    """
    path = _GRADIENT.sub("/", _CALL.sub("", name)).strip("/").split("/")[:-1]
    path = [
        part for part in path if part not in ("PartitionedCall", "StatefulPartitionedCall", "while", "body", "cond")
    ]
    for part in path:
        for plain in (part, _NUMBER.sub("", part)):
            if plain in layers:
                return plain
    return path[-1] if len(path) > 1 else path[0] if path else ""
