"""The same step at another batch size, and in another dtype: its tensors resized, its operations as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from tf_mem_magic.core.step import Node, Step, Tensor
from tf_mem_magic.memory.kernels import FROM_VARIABLE
from tf_mem_magic.memory.roles import DATA, layer_of, roles, scopes_in

_FLOATS = ("float32",)

_IN_32_BITS = re.compile(r"(?:^|/)(?:\w*normalization\w*|global_average_pooling\w*|moments|batchnorm|compile_loss)/")
"""Names of operations of normalization layers, of averages and of the loss that a model is compiled with."""

_ONLY_IN_TRAINING = re.compile(r"(?:^|/)moments/")
_RANDOM = ("StatelessRandom", "Random", "StatefulUniform")

_GIVEN = DATA | FROM_VARIABLE
"""Types of operations that give what is in 32 bits: the data, variables."""

_LOSS = re.compile(r"(?:^|/)compile_loss/")


def at_batch(steps: Sequence[Step], batch: int, other: int | None, wanted: int, weights: Collection[int] = ()) -> Step:
    """Give the step at the batch size ``wanted``.

    Parameters
    ----------
    steps : sequence of Step
        The step at ``batch`` and, where it is known, at ``other``: every dimension then lies on the line through both.
    batch, other, wanted : int
        Batch sizes.
    weights : collection of int
        Bytes of the variables. With one step alone, what is computed from the data grows with the batch where its
        leading size is a multiple of it (or another is equal to it), but for gradients of exactly a variable's bytes.
    """
    if wanted == batch:
        return steps[0]
    if other is not None and len(steps) > 1:
        if wanted == other:
            return steps[1]
        both = _between(steps[0], steps[1], batch, other, wanted)
        if both is not None:
            return both
    return _scaled(steps[0], batch, wanted, frozenset(weights), True)


def _between(one: Step, two: Step, batch: int, other: int, wanted: int) -> Step | None:
    if len(one.nodes) != len(two.nodes) or len(one.bodies) != len(two.bodies):
        return None
    nodes = []
    for a, b in zip(one.nodes, two.nodes):
        if a.kind != b.kind or len(a.outputs) != len(b.outputs):
            return None
        if a.outputs == b.outputs:
            nodes.append(a)
            continue
        outputs = tuple(_on_line(x, y, batch, other, wanted) for x, y in zip(a.outputs, b.outputs))
        nodes.append(_with(a, outputs))
    bodies = [_between(a, b, batch, other, wanted) for a, b in zip(one.bodies, two.bodies)]
    if any(body is None for body in bodies):
        return None
    return replace(one, nodes=tuple(nodes), bodies=tuple(body for body in bodies if body is not None))


def _with(node: Node, outputs: tuple[Tensor, ...]) -> Node:
    """Give an operation with other outputs: ``replace`` takes several times as long, of thousands of operations."""
    return Node(node.name, node.kind, node.inputs, node.after, outputs, node.shares, node.body, node.trips)


def _on_line(a: Tensor, b: Tensor, batch: int, other: int, wanted: int) -> Tensor:
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return a
    sizes = (x + (x - y) * (wanted - batch) / (batch - other) for x, y in zip(a.shape, b.shape))
    return Tensor(tuple([max(round(size), 0) for size in sizes]), a.dtype, a.count)


def _scaled(step: Step, batch: int, wanted: int, weights: frozenset[int], outer: bool) -> Step:
    kinds = roles(step)
    of_data: list[bool] = []
    nodes: list[Node] = []
    for at, node in enumerate(step.nodes):
        drawn = node.kind in DATA or node.kind.startswith(("Random", "StatelessRandom", "IteratorGetNext", "Fill"))
        read = any(of_data[source] for source, _ in node.inputs if source < at)
        of_data.append(read or (drawn and any(_has(tensor, batch) for tensor in node.outputs)))
        if not of_data[at]:
            nodes.append(node)
            continue
        constant = weights if kinds[at] in ("gradients", "updates") else frozenset[int]()
        outputs = tuple([t if t.bytes in constant else _resized(t, batch, wanted) for t in node.outputs])
        nodes.append(node if outputs == node.outputs else _with(node, outputs))
    bodies = tuple(_scaled(body, batch, wanted, weights, False) for body in step.bodies)
    return replace(step, nodes=tuple(nodes), bodies=bodies)


def _has(tensor: Tensor, batch: int) -> bool:
    return tensor.shape is not None and batch in tensor.shape


def _resized(tensor: Tensor, batch: int, wanted: int) -> Tensor:
    shape = tensor.shape
    if not shape or batch < 1:
        return tensor
    if shape[0] and shape[0] % batch == 0:
        return Tensor((shape[0] // batch * wanted, *shape[1:]), tensor.dtype, tensor.count)
    if batch in shape and batch > 1:
        at = shape.index(batch)
        return replace(tensor, shape=(*shape[:at], wanted, *shape[at + 1 :]))
    return tensor


def in_half(step: Step, dtype: str, layers: Collection[str] = (), body: bool = False) -> Step:
    """Give the step as if all that it computes from the data in 32 bits were of 16.

    What Keras's normalization layers, means and losses compute is not, nor the scores of its ``MultiHeadAttention``,
    nor what the layers do that give the model's outputs, nor the optimizer's updates. Where one of these reads what is
    in 16 bits, or the other way round, it is cast: a copy of its own that lives as long as the backward pass needs it.
    So is each weight, which stays a variable of 32.

    Parameters
    ----------
    step : Step
        The step.
    dtype : str
        Of 16 bits.
    layers : collection of str
        The names of the layers, by which those are known that give the outputs.
    body : bool
        It is the body of a loop: what it is given has been cast before.
    """
    given = frozenset(step.given) if body else frozenset[int]()
    scores = {_scope(node.name) for node in step.nodes if node.kind == "Einsum"}
    scores = {_scope(node.name) for node in step.nodes if node.kind == "Softmax"} & {
        one.rpartition("/")[0] for one in scores
    }
    stays = [
        gives
        or _scope(node.name) in scores
        or kind == "updates"
        or node.kind == "Mean"
        or (node.kind in _GIVEN and at not in given)
        or bool(_IN_32_BITS.search(node.name))
        for at, (gives, kind, node) in enumerate(zip(_by_output_layers(step, layers), roles(step), step.nodes))
    ]
    nodes: list[Node] = []
    places: list[int] = []
    casts: dict[tuple[int, int], tuple[int, int]] = {}
    for at, node in enumerate(step.nodes):
        inputs = []
        for source, output in node.inputs:
            read = step.nodes[source].outputs[output]
            place = (places[source], output)
            if read.dtype in _FLOATS and stays[source] != stays[at] and read.shape != () and not read.count:
                if (source, output) not in casts:
                    cast = replace(read, dtype="float32" if stays[at] else dtype)
                    nodes.append(Node(f"{node.name}/Cast", "Cast", (place,), (), (cast,), (-1,)))
                    casts[source, output] = (len(nodes) - 1, 0)
                place = casts[source, output]
            inputs.append(place)
        outputs = node.outputs
        if not stays[at]:
            outputs = tuple(replace(t, dtype=dtype) if t.dtype in _FLOATS else t for t in outputs)
        places.append(len(nodes))
        after = tuple(places[one] for one in node.after)
        nodes.append(replace(node, inputs=tuple(inputs), after=after, outputs=outputs))
    return Step(
        nodes=tuple(nodes),
        results=tuple((places[source], output) for source, output in step.results),
        given=tuple(places[at] for at in step.given),
        bodies=tuple(in_half(_casting_weights(one, dtype), dtype, layers, True) for one in step.bodies),
    )


def _scope(name: str) -> str:
    """Give the scope of an operation, or of what its gradient is of."""
    return name.replace("gradient_tape/", "", 1).rpartition("/")[0]


def validating(step: Step) -> Step | None:
    """Give what of a training step a validation computes: no gradients and updates, no random numbers, no moments.

    None where no loss is found, without which nothing tells what is computed, and where a loop is given what a
    validation does not compute.
    """
    places: dict[int, int] = {}
    nodes: list[Node] = []
    for at, (node, kind) in enumerate(zip(step.nodes, roles(step))):
        kept = [i for i, (source, _) in enumerate(node.inputs) if source in places]
        read = tuple((places[source], output) for source, output in map(node.inputs.__getitem__, kept))
        if kind in ("gradients", "updates") or _ONLY_IN_TRAINING.search(node.name) or node.kind.startswith(_RANDOM):
            continue
        if node.inputs and not read:
            continue
        if node.body is not None and len(read) < len(node.inputs):
            return None
        places[at] = len(nodes)
        after = tuple(places[one] for one in node.after if one in places)
        shares = tuple(kept.index(one) if one in kept else -1 for one in node.shares)
        nodes.append(replace(node, inputs=read, after=after, shares=shares))
    results = [(places[source], output) for source, output in step.results if source in places]
    results += [(at, 0) for at, node in enumerate(nodes) if _LOSS.search(node.name) and node.outputs]
    if not results:
        return None
    given = tuple(places[at] for at in step.given if at in places)
    return Step(tuple(nodes), tuple(results), given, step.bodies)


def _by_output_layers(step: Step, layers: Collection[str]) -> list[bool]:
    """Mark the operations of the layers whose outputs the loss reads, their gradients' too."""
    scopes = scopes_in(step, layers) if layers else {}
    of = [layer_of(node.name, scopes) if scopes else "" for node in step.nodes]
    read = (
        source
        for node in step.nodes
        if _LOSS.search(node.name)
        for source, output in node.inputs
        if step.nodes[source].outputs[output].dtype in _FLOATS and step.nodes[source].kind != "Const"
    )
    outer = {of[source] for source in read if not _LOSS.search(step.nodes[source].name)}.intersection(layers)
    return [layer in outer for layer in of]


def _casting_weights(body: Step, dtype: str) -> Step:
    """Give a loop's body that casts each weight it reads: every round makes a copy of its own in 16 bits.

    What was one and the same weight in every round then is not, and a list of it for the backward pass holds as many
    copies as there are rounds.
    """
    nodes = tuple(
        replace(node, kind="Cast", outputs=tuple(replace(t, dtype=dtype) for t in node.outputs))
        if node.kind == "ReadVariableOp" and all(t.dtype in _FLOATS for t in node.outputs)
        else node
        for node in body.nodes
    )
    return replace(body, nodes=nodes)
