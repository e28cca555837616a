"""A step as it is where layers compute their activations again in the backward pass, and keep only what goes in."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import replace

from tf_mem_magic.core.step import Node, Step
from tf_mem_magic.memory.roles import layer_of, roles, scopes_in

_BACKWARD = ("gradients", "updates")
AGAIN = "/again"
"""What the name of an operation that runs a second time ends with."""


def recomputed(step: Step, groups: Collection[Collection[str]], layers: Collection[str] = ()) -> Step:
    """Let groups of layers run a second time, each when the gradient of its result is there.

    What the backward pass of a group reads of its own forward pass comes from the second run; what other layers read
    of it, and what goes into it, is kept. TensorFlow adds zero to what goes in, so that the second run waits for the
    gradient (``tf.recompute_grad`` in custom_gradient.py): that copy is there meanwhile.

    Parameters
    ----------
    step : Step
        The step as it is.
    groups : collection of collections of str
        The names of the layers of each group.
    layers : collection of str
        The names of all layers that are no models, by which operations are told apart.

    Returns
    -------
    Step
        The same step where no operation of a group is read in the backward pass.
    """
    scopes = scopes_in(step, frozenset(layers).union(*groups))
    place = {name: n for n, group in enumerate(groups) for name in group}
    kinds = roles(step)
    owner = [place.get(layer_of(node.name, scopes), -1) for node in step.nodes]
    nodes = list(step.nodes)
    for group in range(len(groups)):
        forward = {at for at, one in enumerate(owner) if one == group and kinds[at] == "activations"}
        backward = {at for at, one in enumerate(owner) if one == group and kinds[at] in _BACKWARD}
        _run_twice(nodes, forward, backward, _gradients_into(step, backward, kinds))
    return step if len(nodes) == len(step.nodes) else _in_order(replace(step, nodes=tuple(nodes)))


def _gradients_into(step: Step, backward: set[int], kinds: Sequence[str]) -> tuple[int, ...]:
    """List the operations whose gradients come to a group from outside, and that need nothing of the group's own."""
    behind = set(backward)
    for at, node in enumerate(step.nodes):
        if at not in behind and any(source in behind for source in (*(s for s, _ in node.inputs), *node.after)):
            behind.add(at)
    sources = {source for at in backward for source, _ in step.nodes[at].inputs}
    return tuple(sorted(at for at in sources - behind if kinds[at] in _BACKWARD))


def _run_twice(nodes: list[Node], forward: set[int], backward: set[int], gradients: tuple[int, ...]) -> None:
    """Add the operations of a second forward pass at the end, and let the backward pass read them."""
    ahead = [source for at in backward for source, _ in nodes[at].inputs if source in forward]
    again: dict[int, int] = {}
    needed: set[int] = set()
    while ahead:
        at = ahead.pop()
        if at not in needed:
            needed.add(at)
            ahead += [source for source, _ in nodes[at].inputs if source in forward]
    if not needed or not gradients:
        return
    given: dict[tuple[int, int], tuple[int, int]] = {}
    for at in sorted(needed):
        again[at] = len(nodes) + len(again)
    copies = [nodes[at] for at in sorted(needed)]
    nodes += copies  # their places; what they read is set below
    for at, copy in zip(sorted(needed), copies):
        inputs = []
        for source, output in copy.inputs:
            if source in again:
                inputs.append((again[source], output))
            else:
                inputs.append(_handed_on(nodes, (source, output), gradients, given))
        nodes[again[at]] = replace(
            copy, name=copy.name + AGAIN, inputs=tuple(inputs), after=(*(a for a in copy.after), *gradients)
        )
    for at in backward:
        inputs = [(again.get(source, source), output) for source, output in nodes[at].inputs]
        nodes[at] = replace(nodes[at], inputs=tuple(inputs))


def _handed_on(
    nodes: list[Node],
    source: tuple[int, int],
    gradients: tuple[int, ...],
    given: dict[tuple[int, int], tuple[int, int]],
) -> tuple[int, int]:
    """Give what the second run reads in place of what goes into the group: its sum with zero, where that is a float."""
    made = nodes[source[0]]
    tensor = made.outputs[source[1]]
    if "float" not in tensor.dtype or made.kind in ("ReadVariableOp", "Const") or not tensor.bytes:
        return source
    if source not in given:
        given[source] = (len(nodes), 0)
        nodes.append(Node(made.name + AGAIN, "AddV2", (source,), gradients, (tensor,), (-1,)))
    return given[source]


def _in_order(step: Step) -> Step:
    """Sort operations so that each stands behind what it needs; otherwise they stay in the order in which they were."""
    waiting = {at: {*(s for s, _ in node.inputs), *node.after} for at, node in enumerate(step.nodes)}
    readers: dict[int, list[int]] = {}
    for at, needs in waiting.items():
        for one in needs:
            readers.setdefault(one, []).append(at)
    counts = {at: len(needs) for at, needs in waiting.items()}
    ready = [at for at, count in counts.items() if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        at = heapq.heappop(ready)
        order.append(at)
        for one in readers.get(at, ()):
            counts[one] -= 1
            if not counts[one]:
                heapq.heappush(ready, one)
    assert len(order) == len(step.nodes), "an operation needs what needs it"
    to = {at: n for n, at in enumerate(order)}
    nodes = [
        replace(
            step.nodes[at],
            inputs=tuple((to[source], output) for source, output in step.nodes[at].inputs),
            after=tuple(to[one] for one in step.nodes[at].after),
        )
        for at in order
    ]
    results = tuple((to[source], output) for source, output in step.results)
    return replace(step, nodes=tuple(nodes), results=results, given=tuple(to[at] for at in step.given))
