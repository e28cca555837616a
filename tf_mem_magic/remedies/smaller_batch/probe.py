"""Whether a Keras model computes every sample on its own, so that it may be called on some of them at a time."""

from __future__ import annotations

from typing import Any

WHEN = ("failed",)
_LAYERS = frozenset(
    "InputLayer Dense EinsumDense Activation ReLU LeakyReLU PReLU ELU Softmax Embedding Flatten Reshape Permute "
    "RepeatVector Identity Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D AlphaDropout GaussianDropout "
    "GaussianNoise ActivityRegularization BatchNormalization LayerNormalization GroupNormalization "
    "UnitNormalization RMSNormalization Rescaling Resizing Normalization CenterCrop Masking Conv1D Conv2D Conv3D "
    "Conv1DTranspose Conv2DTranspose Conv3DTranspose SeparableConv1D SeparableConv2D DepthwiseConv1D "
    "DepthwiseConv2D MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D "
    "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D "
    "GlobalAveragePooling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D "
    "UpSampling1D UpSampling2D UpSampling3D Add Subtract Multiply Average Maximum Minimum Concatenate Attention "
    "AdditiveAttention MultiHeadAttention GroupedQueryAttention".split()
)
"""Keras's layers that, in inference, look at one sample at a time (each one's documentation); not the recurrent ones,
which may carry a state from one batch to the next, and not those that join along an axis that may be the batch's."""

_OPERATIONS = frozenset("Add Subtract Multiply Divide TrueDivide Negative Relu Sigmoid Tanh Gelu Silu".split())
"""Operations of ``keras.ops`` on whole tensors that work entry by entry."""


def probe(model: Any) -> dict[str, Any]:
    """Give the fields of ``ModelFacts`` that this remedy asks for."""
    return {"rowwise": is_rowwise(model)}


def is_rowwise(model: Any) -> bool:
    """Tell whether a model is made only of Keras's own layers that compute each sample on its own, in inference."""
    try:
        if type(model).__name__ not in ("Functional", "Sequential") or not _is_keras(model):
            return False
        operations = getattr(model, "operations", None) or model.layers
        return all(is_rowwise(one) or _is_rowwise_operation(one) for one in operations)
    except Exception:
        return False


def _is_rowwise_operation(operation: Any) -> bool:
    name = type(operation).__name__
    if not _is_keras(operation):
        return False
    is_layer = ".layers." in f"{type(operation).__module__}."
    if name == "Concatenate" and getattr(operation, "axis", 0) == 0:
        return False
    return name in _LAYERS if is_layer else name in _OPERATIONS


def _is_keras(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "keras"
