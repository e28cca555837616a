"""What a loop's results are: an argument handed on, a list that grew, and by what."""

from __future__ import annotations

from tf_mem_magic.core.step import Step
from tf_mem_magic.memory.kernels import SAME

_PUSHED = {"TensorListSetItem": 2, "TensorListPushBack": 1}
"""Kernels that put an element into a list, and which input that is."""


def follow(body: Step, source: tuple[int, int]) -> tuple[int, bool]:
    """Follow a loop's result back through its body: the argument that it is (-1: none), and whether it grew."""
    grows = False
    for _ in range(len(body.nodes)):
        node = body.nodes[source[0]]
        if node.kind == "Placeholder":
            return (body.given.index(source[0]) if source[0] in body.given else -1), grows
        if node.kind in ("TensorListSetItem", "TensorListPushBack"):
            grows = True
        elif node.kind not in SAME and node.kind != "TensorListPopBack":
            return -1, grows
        if not node.inputs:
            return -1, grows
        source = node.inputs[0]
    return -1, grows


def pushes_the_same(body: Step, output: int) -> bool:
    """Whether a list grows by elements that are the same in every round: what the loop is given and hands on, a weight.

    A list holds its elements; one and the same a hundred times takes no memory of its own.
    """
    source = body.results[output]
    for _ in range(len(body.nodes)):
        node = body.nodes[source[0]]
        if node.kind == "Placeholder" or not node.inputs:
            return True
        place = _PUSHED.get(node.kind)
        if place is not None and not _stays(body, node.inputs[place]):
            return False
        source = node.inputs[0]
    return False


def pushed_argument(body: Step, output: int) -> int:
    """Say which argument of a loop a list of it comes to hold, or the elements of; -1: none.

    What is kept of each round for the backward pass holds on to the elements of the sequence that the loop reads.
    """
    source = body.results[output]
    for _ in range(len(body.nodes)):
        node = body.nodes[source[0]]
        if node.kind == "Placeholder" or not node.inputs:
            return -1
        place = _PUSHED.get(node.kind)
        if place is not None:
            kept, grows = follow(body, node.inputs[place])
            return -1 if grows else kept
        source = node.inputs[0]
    return -1


def _stays(body: Step, source: tuple[int, int]) -> bool:
    """Whether a tensor of a loop's body is the same in every round."""
    node = body.nodes[source[0]]
    while node.kind in SAME and node.inputs:
        node = body.nodes[node.inputs[0][0]]
    if node.kind == "ReadVariableOp":
        return True
    kept, grows = follow(body, source)
    return 0 <= kept < len(body.results) and not grows and follow(body, body.results[kept]) == (kept, False)
