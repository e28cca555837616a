"""What kernels allocate beside their inputs and outputs while they run: on the CPU by the formulas of their sources."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from tf_mem_magic.core.step import WIDTHS, Node, Processor, Step, Tensor

MOST_OVERHEAD = 25
"""How many times as large as their tensors the patches of a gradient of ``Conv3D`` may be; else there are none
(kMaxTempAllocationOverhead in conv_grad_ops_3d.cc)."""

PACKET = 8
"""Numbers in a register of the processor, to which rows of temporaries are filled up (AVX2)."""

L2, L3 = 256 << 10, 30 << 20
"""Bytes of the caches for which gradients of ``Conv2D`` cut their work (conv_grad_filter_ops.cc and
conv_grad_input_ops.h), whatever the processor has."""

_INDEX = WIDTHS["int64"]


def temporary_bytes(step: Step, at: int, processor: Processor) -> int:
    """Give the bytes of the temporaries of one operation; 0 where none are known.

    - Convolutions' gradients lay patches of some samples beside one another (``col_buffer`` in conv_grad_filter_ops.cc,
      conv_grad_input_ops.h and conv_grad_ops_3d.cc): as many samples as make the matrices of a product fill the cache,
      however large or small the batch is; one alone where a sample is work enough for all threads, or, but for a
      filter's in three dimensions, is the whole batch.
    - The filter's gradient of a depthwise convolution is made for each sample (depthwise_conv_grad_op.cc).
    - The gradient of a maximum finds the maxima and their places again (maxpooling_op.cc).
    - A sum over axes that lie between others is made of a transposed copy (reduction_ops_common.h).
    - A product of matrices in 16 bits is computed in 32 (matmul_op_impl.h), but for bfloat16 by oneDNN.
    - Where oneDNN computes them, gradients of convolutions and maxima have a few KiB at most (measured with TensorFlow
      2.21); it does in float32 and bfloat16.
    """
    node = step.nodes[at]
    if node.kind not in _KINDS:
        return 0
    given = [step.nodes[source].outputs[output] for source, output in node.inputs]
    if len(given) < _KINDS[node.kind] or not node.outputs:
        return 0
    if node.kind in _BY_ONEDNN and processor.onednn and node.outputs[0].dtype in ("float32", "bfloat16"):
        return 0
    if node.kind in _REDUCTIONS:
        return _transposed(given[0], node.outputs[0])
    if node.kind in _PRODUCTS:
        return _in_32_bits(given[0], given[1], node.outputs[0], processor)
    if node.kind == "DepthwiseConv2dNativeBackpropFilter":
        return _a_filter_each(node.outputs[0], given[2])
    if node.kind == "MaxPoolGrad":
        return prod(given[1].shape) * _INDEX + (given[1].bytes or 0) if given[1].shape is not None else 0
    return _patches(node, given, processor)


def temporaries_of(step: Step, processor: Processor | None) -> dict[int, int]:
    """Give the bytes of the temporaries of each operation that has some; none where no processor runs them."""
    if processor is None:
        return {}
    return {at: size for at in range(len(step.nodes)) if (size := temporary_bytes(step, at, processor))}


_CONVOLUTIONS = frozenset(
    {"Conv2DBackpropFilter", "Conv2DBackpropInput", "Conv3DBackpropFilterV2", "Conv3DBackpropInputV2"}
)
_BY_ONEDNN = _CONVOLUTIONS | {"DepthwiseConv2dNativeBackpropFilter", "MaxPoolGrad"}
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
_REDUCTIONS = frozenset({"Sum", "Mean", "Max", "Min", "Prod"})
_KINDS = {
    **dict.fromkeys(_CONVOLUTIONS, 3),
    "DepthwiseConv2dNativeBackpropFilter": 3,
    "MaxPoolGrad": 3,
    **dict.fromkeys(_REDUCTIONS, 1),
    **dict.fromkeys(_PRODUCTS, 2),
}
"""Kinds of operations that may have temporaries, and how many inputs tell them."""

_MOST_GROUPS = 3
"""Groups of neighbouring axes, in turn kept and summed over, for which there are loops without a copy."""


def _patches(node: Node, given: Sequence[Tensor], processor: Processor) -> int:
    """Size the buffer of patches for a filter ``[h, w, in, out]`` and an output image ``[batch, h, w, out]``."""
    is_filter = "Filter" in node.kind
    kernel, image = (node.outputs[0] if is_filter else given[1]), given[2]
    other = given[0] if is_filter else node.outputs[0]
    if kernel.shape is None or image.shape is None or len(kernel.shape) != len(image.shape):
        return 0
    width = WIDTHS.get(kernel.dtype, 0)
    pixels, out = prod(image.shape[1:-1]), kernel.shape[-1]
    taps = prod(kernel.shape[:-1])
    if not (width and pixels and taps and out):
        return 0
    unit = pixels * taps + taps * out + pixels * out
    if node.kind.startswith("Conv3D"):
        alone = image.shape[0] == 1 and not is_filter
        samples = 1 if alone else _filling(processor.cache, width, unit)
        tensors = prod(kernel.shape) + prod(image.shape) + prod(other.shape or ())
        samples = 0 if samples * pixels * taps // tensors > MOST_OVERHEAD else samples
    elif is_filter:
        samples = _filling(L3, width, unit)
    else:
        at_once = image.shape[0] == 1 or unit // max(processor.threads, 1) >= L2 // width
        samples = 1 if at_once else _filling(L3, width, unit)
    return samples * pixels * taps * width


def _transposed(given: Tensor, out: Tensor) -> int:
    """Size the copy of what is reduced; 0 where there is none, or the axes are not known (they were not kept)."""
    if given.shape is None or out.shape is None or len(given.shape) != len(out.shape):
        return 0
    reduced = [a != b for a, b in zip(given.shape, out.shape) if a != 1]
    groups = sum(one != other for one, other in pairwise(reduced)) + 1
    return given.bytes or 0 if groups > _MOST_GROUPS else 0


def _in_32_bits(first: Tensor, second: Tensor, out: Tensor, processor: Processor) -> int:
    """Size the copies of matrices in 32 bits, where they have 16; oneDNN multiplies those of bfloat16 as they are."""
    if out.dtype not in ("float16", "bfloat16") or (out.dtype == "bfloat16" and processor.onednn):
        return 0
    return sum(2 * (one.bytes or 0) for one in (first, second, out))


def _filling(cache: int, width: int, unit: int) -> int:
    """Say of how many samples, each of ``unit`` numbers ``width`` bytes wide, a cache is full."""
    return -(-(cache // width) // unit)


def _a_filter_each(kernel: Tensor, image: Tensor) -> int:
    """Size a filter ``[h, w, in, times]`` for each sample of an output image ``[batch, h, w, out]``."""
    if kernel.shape is None or image.shape is None or len(kernel.shape) != 4 or len(image.shape) != 4:
        return 0
    depth = -(-image.shape[3] // PACKET) * PACKET
    return image.shape[0] * prod(kernel.shape[:2]) * depth * WIDTHS.get(kernel.dtype, 0)


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
