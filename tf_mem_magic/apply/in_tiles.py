"""Predict a large picture in tiles that overlap, with the result that the whole picture would have given."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, lcm
from typing import Any

_ALONE = frozenset(
    "InputLayer Activation ReLU LeakyReLU PReLU ELU Softmax BatchNormalization LayerNormalization Dropout "
    "SpatialDropout2D GaussianNoise GaussianDropout AlphaDropout Add Subtract Multiply Average Maximum Minimum "
    "Concatenate Rescaling Identity Dense".split()
)
"""Layers that compute each pixel from that pixel alone, when the model predicts."""

_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2D", "SeparableConv2D"})
_POOLS = frozenset({"MaxPooling2D", "AveragePooling2D"})


def in_tiles(model: Any, images: Any, tile: int, **keywords: Any) -> Any:
    """Give ``model.predict(images)``, computed on overlapping tiles of each picture, so that less memory is needed.

    Each tile is computed with a margin as wide as the model looks around a pixel, and the margin is cut off: but for
    rounding, the result is that of the whole picture. The margin is found from the model's layers.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential, made of convolutions, pooling, upsampling and layers that treat pixels alone, with
        one input and one output, channels last.
    images : numpy.ndarray or tensorflow.Tensor
        Shape (pictures, height, width, channels); height and width multiples of what the model divides them by.
    tile : int
        Height and width of a tile, in pixels, without its margin; rounded up to what the model divides by.
    **keywords
        Passed on to ``predict``, such as ``verbose=0``.

    Returns
    -------
    numpy.ndarray
        Shape (pictures, height, width, channels) of the model's output.

    Raises
    ------
    ValueError
        If a layer of the model may look further than can be told, or the sizes do not divide.

    Examples
    --------
    >>> mask = apply.in_tiles(unet, photo[np.newaxis], 512)
    """
    import numpy as np

    margin, step, scale = reach(model)
    height, width = images.shape[1:3]
    if height % step or width % step:
        raise ValueError(
            f"the model needs heights and widths that are multiples of {step}; these are {height} × {width}"
        )
    size = ceil(max(tile, 1) / step) * step
    result: Any = None
    # Traced anew for the tiles' size: for several sizes TensorFlow leaves the size open, and some layers need it.
    model.predict_function = None
    for top, left in ((y, x) for y in range(0, height, size) for x in range(0, width, size)):
        rows, columns = _with_margin(top, size, height, margin), _with_margin(left, size, width, margin)
        part = model.predict(images[:, rows.start : rows.stop, columns.start : columns.stop], **keywords)
        if result is None:
            shape = (len(images), _at(height, scale), _at(width, scale), part.shape[-1])
            result = np.empty(shape, part.dtype)
        bottom, right = min(top + size, height), min(left + size, width)
        inner = part[
            :,
            _at(top - rows.start, scale) : _at(bottom - rows.start, scale),
            _at(left - columns.start, scale) : _at(right - columns.start, scale),
        ]
        result[:, _at(top, scale) : _at(bottom, scale), _at(left, scale) : _at(right, scale)] = inner
    model.predict_function = None
    return result


def _with_margin(start: int, size: int, whole: int, margin: int) -> range:
    """Give the pixels of a tile with its margins; all tiles are equally long, so that the model is traced once."""
    length = min(size + 2 * margin, whole)
    first = min(max(start - margin, 0), whole - length)
    return range(first, first + length)


def _at(pixels: int, scale: Fraction) -> int:
    """Give a place of the output for one of the input; ``scale`` is input pixels for each output pixel."""
    return int(pixels / scale)


def reach(model: Any) -> tuple[int, int, Fraction]:
    """Tell how far a model looks around a pixel (in pixels of its input), what it divides sizes by, and its scale.

    The margin is a multiple of what it divides by, so that every tile is cut as the whole picture would be. ``scale``
    is how many pixels of the input one pixel of the output stands for.

    Raises
    ------
    ValueError
        If a layer of the model may look further than can be told.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError("the model needs one input and one output")
    seen: dict[int, tuple[Fraction, Fraction]] = {id(model.inputs[0]): (Fraction(0), Fraction(1))}
    scales = {Fraction(1)}
    for operation, inputs, output in _operations(model):
        found = [seen[id(one)] for one in inputs if id(one) in seen]
        if not found:
            continue
        if len({scale for _, scale in found}) != 1:
            raise ValueError(f"the layer {operation.name} joins pictures of different sizes")
        seen[id(output)] = _through(operation, max(radius for radius, _ in found), found[0][1])
        scales.add(seen[id(output)][1])
    if id(model.outputs[0]) not in seen:
        raise ValueError("the output of the model was not found among what its layers give")
    radius, scale = seen[id(model.outputs[0])]
    step = lcm(*(ceil(one) for one in scales))
    return ceil(Fraction(ceil(radius), step)) * step, step, scale


def _operations(model: Any) -> Iterator[tuple[Any, list[Any], Any]]:
    """Yield each layer's call in order: the layer, its inputs, its output."""
    graph = getattr(model, "_functional", None) or model  # a Sequential keeps its graph in a model of its own
    by_depth = graph._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    for node in nodes:
        if not node.is_input:
            outputs = node.output_tensors
            if len(outputs) != 1:
                raise ValueError(f"the layer {node.operation.name} gives several results")
            yield node.operation, list(node.input_tensors), outputs[0]


def _through(layer: Any, radius: Fraction, scale: Fraction) -> tuple[Fraction, Fraction]:
    """Give how far and at which scale one looks behind a layer."""
    kind = type(layer).__name__
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ValueError(f"the layer {layer.name} has its channels first")
    pixel = kind in _CONVOLUTIONS and set(layer.kernel_size) == set(layer.strides) == {1}
    if kind in _CONVOLUTIONS and (layer.padding == "same" or pixel):
        around = max((k - 1) * d for k, d in zip(layer.kernel_size, layer.dilation_rate))
        return radius + around * scale, scale * _one(layer, layer.strides)
    if kind == "Conv2DTranspose" and layer.padding == "same" and max(layer.dilation_rate) == 1:
        return radius + max(layer.kernel_size) * scale, scale / _one(layer, layer.strides)
    if kind in _POOLS and tuple(layer.pool_size) == tuple(layer.strides):
        return radius + (max(layer.pool_size) - 1) * scale, scale * _one(layer, layer.strides)
    if kind == "UpSampling2D":
        return radius + 2 * scale, scale / _one(layer, layer.size)
    own = type(layer).__module__.startswith(("keras.", "tf_keras."))
    pixelwise = kind in _ALONE and own and _on_channels(layer)
    if pixelwise:
        return radius, scale
    raise ValueError(f"the layer {layer.name} ({kind}) may look at the whole picture")


def _one(layer: Any, numbers: Any) -> int:
    if len(set(numbers)) != 1:
        raise ValueError(f"the layer {layer.name} treats height and width differently")
    return int(numbers[0])


def _on_channels(layer: Any) -> bool:
    """Whether a layer that normalizes or joins along an axis does so along the channels."""
    axis = getattr(layer, "axis", -1)
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    shared = getattr(layer, "shared_axes", None)
    return all(one in (-1, 3) for one in axes) and (type(layer).__name__ != "PReLU" or shared in ([1, 2], (1, 2)))
