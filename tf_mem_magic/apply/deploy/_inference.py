"""What a model's inference takes and gives, measured on a small batch: for functions that make models smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from tf_mem_magic.core.units import named_kind
from tf_mem_magic.facts.models import variable_device

MOST_SAMPLES = 32
"""Samples on which outputs and peaks are compared."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """Outputs as a flat list of float64 arrays, and the most bytes that ``predict`` itself took (None: not counted)."""

    outputs: tuple[Any, ...]
    took: int | None


def first_inputs(data: Any, most: int) -> Any:
    """Give the inputs of the first samples: of arrays the first ``most``, of a dataset those of its first batch.

    Raises
    ------
    TypeError
        If ``data`` is a generator, whose batch would be lost.
    """
    import keras

    if hasattr(data, "element_spec"):
        batch = next(iter(data.take(1)))
    elif isinstance(data, keras.utils.PyDataset):
        batch = data[0]
    elif hasattr(data, "__next__"):
        raise TypeError("the data are a generator, whose next batch would be lost: give arrays or a dataset")
    else:
        return keras.tree.map_structure(lambda one: _cut(one, most), data)
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def first_samples(sample: Any) -> Any:
    """Give the inputs of at most 32 samples.

    Raises
    ------
    TypeError
        If ``sample`` is a generator, or nothing that Keras takes.
    """
    import keras

    return keras.tree.map_structure(lambda one: _cut(one, MOST_SAMPLES), first_inputs(sample, MOST_SAMPLES))


def _cut(array: Any, most: int) -> Any:
    if not getattr(array, "shape", ()):
        raise TypeError(f"the data must be arrays of samples, and hold {named_kind(array)}")
    return getattr(array, "iloc", array)[:most]


def count_samples(inputs: Any) -> int:
    """Count the samples of a batch of inputs."""
    import keras

    return int(keras.tree.flatten(inputs)[0].shape[0])


def predict(model: Any, inputs: Any) -> Predicted:
    """Predict once to compile, then once more and count what that takes beyond what was in use before."""
    size = count_samples(inputs)
    model.predict(inputs, batch_size=size, verbose=0)
    outputs, took = count_taken(model, lambda: model.predict(inputs, batch_size=size, verbose=0))
    return Predicted(flat_outputs(outputs), took)


def count_taken(model: Any, call: Callable[[], Any]) -> tuple[Any, int | None]:
    """Call, and count the most bytes that takes on the model's device beyond what was in use (None: not counted).

    Starts TensorFlow's own counter anew: its peak of what came before is lost.
    """
    import tensorflow as tf

    device = next((d for d in map(variable_device, model.weights) if d), "")
    try:
        before = tf.config.experimental.get_memory_info(device)["current"]
        tf.config.experimental.reset_memory_stats(device)
    except (ValueError, TypeError, tf.errors.OpError):
        return call(), None
    result = call()
    return result, max(int(tf.config.experimental.get_memory_info(device)["peak"]) - before, 0)


def flat_outputs(outputs: Any) -> tuple[Any, ...]:
    """Give outputs of any structure as a flat tuple of float64 arrays."""
    import keras
    import numpy as np

    return tuple(np.asarray(one, dtype="float64") for one in keras.tree.flatten(outputs))


def weight_bytes(model: Any) -> int:
    """Add up the bytes of a model's variables, each once."""
    variables = {id(v): v for v in model.variables}
    return sum(prod(v.shape) * _item_bytes(v) for v in variables.values())


def _item_bytes(variable: Any) -> int:
    from keras.src.backend import standardize_dtype
    from numpy import dtype

    name = standardize_dtype(variable.dtype)
    return 2 if name == "bfloat16" else dtype(name).itemsize


def describe_error(expected: Iterable[Any], seen: Iterable[Any]) -> str:
    """Say how far outputs are from those expected: root mean square over root mean square, and the classes that agree.

    Of several outputs, the one that is furthest off. Their first dimension counts the samples.
    """
    pairs = [(a, b) for a, b in zip(expected, seen) if a.size]
    if not pairs or any(a.shape != b.shape for a, b in pairs):
        return "output error: not comparable"
    worst = max(_relative_error(a, b) for a, b in pairs)
    words = f"output error on {len(pairs[0][0])} samples: {100 * worst:.2g} % (root mean square, relative)"
    first, second = pairs[0]
    if first.ndim == 2 and first.shape[1] > 1:
        agree = int((first.argmax(1) == second.argmax(1)).sum())
        words += f"; the same largest output for {agree} of {len(first)}"
    return words


def _relative_error(expected: Any, seen: Any) -> float:
    scale = float((expected**2).mean()) ** 0.5
    off = float(((seen - expected) ** 2).mean()) ** 0.5
    if not off:
        return 0.0
    return off / scale if scale else float("inf")
