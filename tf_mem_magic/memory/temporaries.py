"""What kernels on the CPU allocate beside their outputs while they run, by the formulas of their sources."""

from __future__ import annotations

from math import prod

from tf_mem_magic.core.step import WIDTHS, Step, Tensor


def temporary_bytes(step: Step, at: int, cache: int) -> int:
    """Give the bytes of the temporaries of one operation; 0 where none are known.

    Convolutions' gradients lay patches of some samples beside one another (``col_buffer`` in conv_grad_filter_ops.cc
    and conv_grad_input_ops.h): as many samples as make the matrices of a product fill the cache, however large the
    batch is.
    """
    node = step.nodes[at]
    if node.kind not in ("Conv2DBackpropFilter", "Conv2DBackpropInput") or len(node.inputs) < 3:
        return 0
    given = [step.nodes[source].outputs[output] for source, output in node.inputs]
    if node.kind == "Conv2DBackpropFilter":
        kernel, image = node.outputs[0], given[2]
    else:
        kernel, image = given[1], given[2]
    return _patches(kernel, image, node.kind, cache)


def _patches(kernel: Tensor, image: Tensor, kind: str, cache: int) -> int:
    """Size the buffer of patches for a filter ``[h, w, in, out]`` and an output image ``[batch, h, w, out]``."""
    if kernel.shape is None or image.shape is None or len(kernel.shape) != 4 or len(image.shape) != 4:
        return 0
    width = WIDTHS.get(kernel.dtype, 0)
    pixels, out = prod(image.shape[1:3]), kernel.shape[3]
    taps = prod(kernel.shape[:3])
    if not (width and pixels and taps and out):
        return 0
    unit = pixels * taps + taps * out + pixels * out
    samples = -(-(cache // width) // unit)
    return samples * pixels * taps * width
