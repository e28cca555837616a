"""Call a model on a few samples at a time instead of on all at once."""

from __future__ import annotations

from typing import Any


def in_batches(model: Any, x: Any, batch_size: int, **keywords: Any) -> Any:
    """Call ``model(x[i:i + batch_size])`` for all of ``x``, and join the results.

    ``model(x)`` computes all samples at once, however many there are; only the results of a few samples need the
    memory of the layers between at the same time here. The results are tensors, as those of ``model(x)`` are; until
    all are there they lie in the computer's memory, so that the device holds them once. No gradient flows through.

    Parameters
    ----------
    model : callable
        A Keras model, or any function of a batch whose results have one entry for each sample.
    x : numpy.ndarray or tensorflow.Tensor, or lists, tuples or dicts of them
        The first axis of each counts the samples.
    batch_size : int
        Samples in a call; the last one may have fewer.
    **keywords
        Passed on to every call, such as ``training=False``.

    Returns
    -------
    tensorflow.Tensor, or lists, tuples or dicts of them
        The results of the calls, joined along the first axis.

    Raises
    ------
    ValueError
        If ``batch_size`` is below 1, ``x`` has no samples or different numbers of them, or a result does not have one
        entry for each sample.
    """
    import numpy as np
    import tensorflow as tf

    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1; this is {batch_size}")
    counts = {len(one) for one in tf.nest.flatten(x)}
    if len(counts) > 1:
        raise ValueError(f"the inputs have different numbers of samples: {', '.join(map(str, sorted(counts)))}")
    count = counts.pop() if counts else 0
    if count == 0:
        raise ValueError("there are no samples")
    results = []
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        result = model(tf.nest.map_structure(lambda one, part=part: one[part], x), **keywords)
        expected = min(batch_size, count - start)
        for leaf in tf.nest.flatten(result):
            length = leaf.shape[0] if leaf.shape.rank else None
            if length != expected:
                raise ValueError(f"a result has {length} entries for {expected} samples, so the calls cannot be joined")
        # A copy: on a CPU what `numpy` gives is the tensor's own memory, which would stay in use.
        results.append(tf.nest.map_structure(lambda leaf: np.array(leaf.numpy()), result))
        del result, leaf
    return tf.nest.map_structure(lambda *parts: tf.convert_to_tensor(np.concatenate(parts)), *results)
