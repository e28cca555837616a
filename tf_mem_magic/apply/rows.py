"""Look samples up in arrays while a ``tf.data`` pipeline runs, so that it keeps no copy of the arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def rows(data: Any) -> Callable[[Any], Any]:
    """Make a function for ``Dataset.map`` that turns the numbers of samples into the samples of ``data``.

    ``tf.data.Dataset.from_tensor_slices(data)`` keeps a copy of the arrays, and a shuffle buffer a further one of the
    samples in it. ``tf.data.Dataset.range(len(x))``, shuffled and batched like those, is the same order in numbers;
    ``.map(apply.rows(data))`` then looks up the samples of one batch at a time. It gives the values, types and shapes
    that ``from_tensor_slices`` gives. The arrays must not change while the pipeline is in use.

    Parameters
    ----------
    data : numpy.ndarray, or tuples or dicts of them
        The first axis counts the samples; a memory-mapped file will do.

    Raises
    ------
    ValueError
        If the arrays have different numbers of samples.
    """
    import numpy as np
    import tensorflow as tf

    arrays = tf.nest.flatten(data)
    lengths = {len(one) for one in arrays}
    if len(lengths) != 1:
        raise ValueError(f"the arrays have different numbers of samples: {', '.join(map(str, sorted(lengths)))}")

    def look_up(numbers: Any) -> list[Any]:
        # `take` copies: TensorFlow may reuse the memory of what it is handed.
        return [np.asarray(np.take(one, numbers, axis=0)) for one in arrays]

    def samples(numbers: Any) -> Any:
        found = tf.numpy_function(look_up, [numbers], [tf.as_dtype(one.dtype) for one in arrays])
        for one, array in zip(found, arrays):
            one.set_shape(numbers.shape.concatenate(array.shape[1:]))
        return tf.nest.pack_sequence_as(data, found)

    return samples
