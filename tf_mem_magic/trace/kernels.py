"""Whether TensorFlow has code for the operations of a graph that compute in 16 bits: a graph does not ask for it."""

from __future__ import annotations

from typing import Any

_SHORT = frozenset({"float16", "bfloat16"})


def without_kernel(graph: Any) -> str:
    """Name the first operation in 16 bits for which there is no code, with its type; empty where there is for all.

    It is enough that there is some for the CPU: TensorFlow computes there what a GPU cannot.
    """
    known: dict[str, Any] = {}
    for op in graph.get_operations():
        types = {tensor.dtype.base_dtype.name for tensor in (*op.inputs, *op.outputs)} & _SHORT
        if types and not _has_kernel(op, known):
            return f"`{op.type}` in {min(types)}"
    return ""


def _has_kernel(op: Any, known: dict[str, Any]) -> bool:
    from tensorflow.python.framework import kernels

    if op.type not in known:
        known[op.type] = list(kernels.get_registered_kernels_for_op(op.type).kernel)
    found = known[op.type]
    return not found or any(_takes(op, kernel) for kernel in found if not kernel.device_type.startswith("XLA"))


def _takes(op: Any, kernel: Any) -> bool:
    for constraint in kernel.constraint:
        try:
            value = op.get_attr(constraint.name)
        except ValueError:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        types = [one.as_datatype_enum for one in values if hasattr(one, "as_datatype_enum")]
        allowed = constraint.allowed_values.list.type
        if types and allowed and not set(types) <= set(allowed):
            return False
    return True
