"""A flattened graph as numbers: operations, the sizes of their tensors, and whose buffer is whose."""

from __future__ import annotations

from typing import Any

from tf_mem_magic.core.step import WIDTHS, Node, Step, Tensor
from tf_mem_magic.trace.flatten import Flat

_SAME_IF_EQUAL = frozenset({"BroadcastTo", "Tile", "MirrorPad", "PadV2", "Pad", "ConcatV2"})
_NEUTRAL = {"Mul": (1.0, True), "RealDiv": (1.0, False), "AddV2": (0.0, True), "Sub": (0.0, False)}
"""Operations with a number that changes nothing, and whether it may stand first too."""

_ALIGNED = 64
"""Bytes to which TensorFlow wants a buffer aligned: a slice that is not gets one of its own (EIGEN_MAX_ALIGN_BYTES)."""


def read_step(flat: Flat) -> Step:
    """Give a flattened graph as a :class:`Step`."""
    place: dict[str, int] = {}
    nodes: list[Node] = []
    bodies: list[Step] = []
    for op in flat.graph.get_operations():
        loop = flat.loops.get(op.name)
        if loop is not None:
            bodies.append(read_step(loop.body))
        nodes.append(
            Node(
                name=op.name,
                kind=op.type,
                inputs=tuple((place[t.op.name], t.value_index) for t in op.inputs),
                after=tuple(place[c.name] for c in op.control_inputs),
                outputs=tuple(_tensor(flat, t) for t in op.outputs),
                shares=tuple(_shared(op, i) for i in range(len(op.outputs))),
                body=len(bodies) - 1 if loop is not None else None,
                trips=loop.trips if loop is not None else 0,
            )
        )
        place[op.name] = len(nodes) - 1
    return Step(
        nodes=tuple(nodes),
        results=tuple((place[t.op.name], t.value_index) for t in flat.results),
        given=tuple(place[t.op.name] for t in flat.arguments),
        bodies=tuple(bodies),
    )


def _tensor(flat: Flat, tensor: Any) -> Tensor:
    held = flat.lists.get(tensor.name)
    if held is not None:
        return Tensor(held.shape, held.dtype, held.count)
    return Tensor(_plain(tensor), tensor.dtype.base_dtype.name)


def _plain(tensor: Any) -> tuple[int, ...] | None:
    return tuple(tensor.shape.as_list()) if tensor.shape.is_fully_defined() else None


def _shared(op: Any, output: int) -> int:
    """Say which input's buffer an output is, where its kernel gives a part or the whole of it on; -1: none."""
    kind, inputs = op.type, list(op.inputs)
    out = _plain(op.outputs[output]) if op.outputs else None
    if out is None:
        return -1
    if kind in _SAME_IF_EQUAL:
        equal = [i for i, t in enumerate(inputs) if t.dtype == op.outputs[output].dtype and _plain(t) == out]
        return equal[0] if equal else -1
    if kind in _NEUTRAL and len(inputs) == 2:
        return _unchanged(kind, inputs, out)
    if kind == "Transpose" and inputs:
        given = _plain(inputs[0])
        # Kernels that only move dimensions of size 1 give the same buffer on.
        moved = given is not None and [n for n in given if n != 1] == [n for n in out if n != 1]
        return 0 if moved and _constant_order(inputs[1], given) else -1
    if kind in ("Slice", "StridedSlice", "Split", "SplitV", "Unpack"):
        source = 1 if kind == "Split" else 0
        return source if _is_slice_of_rows(op, inputs[source], out) else -1
    return -1


def _unchanged(kind: str, inputs: list[Any], out: tuple[int, ...]) -> int:
    """Say which input a product with 1, or a sum with 0, is: TensorFlow's optimizer leaves such operations out.

    (SimplifyArithmeticOperations in constant_folding.cc; Keras's ``swish`` multiplies by a factor that is 1.)
    """
    neutral, both = _NEUTRAL[kind]
    for place, other in ((1, 0), (0, 1)) if both else ((1, 0),):
        if _plain(inputs[other]) == out and _scalar(inputs[place]) == neutral:
            return other
    return -1


def _scalar(tensor: Any) -> float | None:
    """Give the number that a tensor is, where it is one constant number."""
    from tensorflow.python.framework import tensor_util

    while tensor.op.type in ("Identity", "StopGradient", "Cast") and tensor.op.inputs:
        tensor = tensor.op.inputs[0]
    if tensor.op.type != "Const" or tensor.shape.rank != 0 or tensor.dtype.base_dtype.name not in WIDTHS:
        return None
    value = tensor_util.constant_value(tensor)
    return None if value is None else float(value)


def _constant_order(perm: Any, shape: tuple[int, ...] | None) -> bool:
    from tensorflow.python.framework import tensor_util

    order = tensor_util.constant_value(perm)
    if order is None or shape is None:
        return False
    wide = [int(i) for i in order if shape[int(i)] != 1]
    return wide == sorted(wide)


def _is_slice_of_rows(op: Any, source: Any, out: tuple[int, ...]) -> bool:
    """Whether an output is some leading rows of its input, which TensorFlow does not copy where they are aligned."""
    from math import prod

    given = _plain(source)
    if given is None or not given:
        return False
    if op.type == "Unpack":
        rows_only = op.get_attr("axis") == 0
    else:
        rows_only = len(given) == len(out) and given[1:] == out[1:]
        if op.type == "StridedSlice":
            rows_only = rows_only or (given[1:] == out and bool(op.get_attr("shrink_axis_mask")))
    row = prod(given[1:]) * WIDTHS.get(source.dtype.base_dtype.name, 0)
    return bool(rows_only and (row % _ALIGNED == 0 or given == out))
