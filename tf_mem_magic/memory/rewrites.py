"""What TensorFlow's graph optimizer changes before a graph runs, as far as it moves memory."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core.step import Node, Step, Tensor
from tf_mem_magic.memory.executor import needed_in

SMALL_CONSTANT = 1024
"""Bytes up to which constants that are alike are counted once."""


def as_run(step: Step) -> Step:
    """Change a step as the optimizer does before it runs, as far as that moves memory."""
    return compact(_with_factors_inside(_without_bundles(step)))


def compact(step: Step) -> Step:
    """Leave out what never runs, and keep one of all small constants that are alike: they take nothing worth counting.

    A quarter of the operations of a large model are gone then, and a walk takes two thirds of the time.
    """
    needed = needed_in(step)
    places: dict[int, int] = {}
    alike: dict[Tensor, int] = {}
    kept: list[Node] = []
    for at, node in enumerate(step.nodes):
        if not needed[at] and at not in step.given:
            continue
        if node.kind == "Const" and len(node.outputs) == 1 and (node.outputs[0].bytes or 0) <= SMALL_CONSTANT:
            known = alike.setdefault(node.outputs[0], len(kept))
            if known != len(kept):
                places[at] = known
                continue
        places[at] = len(kept)
        kept.append(node)
    nodes = [
        replace(
            node,
            inputs=tuple((places[source], output) for source, output in node.inputs),
            after=tuple(dict.fromkeys(places[one] for one in node.after if one in places)),
        )
        for node in kept
    ]
    return Step(
        nodes=tuple(nodes),
        results=tuple((places[source], output) for source, output in step.results),
        given=tuple(places[at] for at in step.given),
        bodies=tuple(compact(body) for body in step.bodies),
    )


def _without_bundles(step: Step) -> Step:
    """Let what reads one output of an ``IdentityN`` read the input that it is: it waits for no other.

    Keras's optimizers hand their gradients through one; each update runs as soon as its own gradient is there.
    """
    behind: dict[tuple[int, int], tuple[int, int]] = {}
    nodes = []
    for at, node in enumerate(step.nodes):
        inputs = tuple(behind.get(source, source) for source in node.inputs)
        nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
        if node.kind == "IdentityN":
            behind |= {(at, output): source for output, source in enumerate(inputs)}
    results = tuple(behind.get(source, source) for source in step.results)
    return replace(step, nodes=tuple(nodes), results=results, bodies=tuple(_without_bundles(b) for b in step.bodies))


def _with_factors_inside(step: Step) -> Step:
    """Draw constant factors into products (constant_folding.cc, ConstantPushDown).

    ``c * (x * y)`` is computed as ``x * (c * y)``. Where ``y`` is an activation and ``x`` a gradient (attention's
    softmax and its scale), ``c * y`` is made in the forward pass already, and waits in memory for the gradient.
    """
    readers: dict[int, int] = {}
    for node in step.nodes:
        for source, _ in node.inputs:
            readers[source] = readers.get(source, 0) + 1
    for source, _ in step.results:
        readers[source] = readers.get(source, 0) + 1
    nodes = list(step.nodes)
    for at, outer in enumerate(nodes):
        found = _scaled_product(nodes, outer)
        if found is None:
            continue
        constant, product = found
        inner = nodes[product[0]]
        if readers.get(product[0]) != 1:
            continue
        x, y = inner.inputs
        if not _same_size(nodes, inner, y) or not _same_size(nodes, inner, x):
            continue
        nodes[product[0]] = replace(inner, inputs=(constant, y))
        nodes[at] = replace(outer, inputs=(x, product))
    return replace(step, nodes=tuple(nodes))


def _scaled_product(nodes: list[Node], outer: Node) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Find a scalar constant and a product among the two factors of ``outer``."""
    if outer.kind != "Mul" or len(outer.inputs) != 2:
        return None
    for constant, product in (outer.inputs, outer.inputs[::-1]):
        made = nodes[constant[0]]
        scalar = made.kind == "Const" and made.outputs[0].shape == ()
        if scalar and nodes[product[0]].kind == "Mul" and len(nodes[product[0]].inputs) == 2:
            return constant, product
    return None


def _same_size(nodes: list[Node], inner: Node, source: tuple[int, int]) -> bool:
    tensor: Tensor = nodes[source[0]].outputs[source[1]]
    return tensor == inner.outputs[0]
