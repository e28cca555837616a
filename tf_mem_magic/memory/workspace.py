"""Kernels that need memory of their own while they run, beside their inputs and outputs."""

from __future__ import annotations

from tf_mem_magic.core.step import Step

TEMPORARIES = (
    "Conv",
    "DepthwiseConv",
    "_FusedConv",
    "Cudnn",
    "MaxPool",
    "AvgPool",
    "MatMul",
    "BatchMatMul",
    "_FusedMatMul",
    "Einsum",
    "Sum",
    "Mean",
    "Max",
    "Min",
    "Prod",
    "TopK",
    "Unique",
    "Where",
    "UnsortedSegment",
    "Sparse",
    "FFT",
    "Svd",
    "Qr",
    "Cholesky",
    "FusedBatchNorm",
    "BiasAddGrad",
    "Cumsum",
    "Softmax",
    "Resize",
)
"""Beginnings of the types of such kernels."""

NEAR = 24
"""Operations before the one that failed that may still have been running, as several run at once."""


def needs_workspace(kind: str) -> bool:
    """Whether kernels of this type allocate temporaries."""
    return kind.startswith(TEMPORARIES)


def may_need_workspace(step: Step, stop: str) -> tuple[str, ...]:
    """Name the types of such kernels among the operations up to ``stop`` that may have been running, the nearest first.

    All operations that need nothing of ``stop`` may run beside it; those just before it in the trace are looked at.
    """
    names = [node.name for node in step.nodes]
    if stop in names:
        at = names.index(stop)
        near = step.nodes[max(0, at - NEAR) : at + NEAR]
    else:
        near = tuple(node for body in step.bodies for node in body.nodes)
    return tuple(dict.fromkeys(node.kind for node in reversed(near) if needs_workspace(node.kind)))
