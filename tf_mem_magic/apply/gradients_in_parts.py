"""The gradients of a mean over many samples, computed for a few of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any


def gradients_in_parts(
    loss_of: Callable[..., Any], data: Sequence[Any], weights: Any, batch_size: int
) -> tuple[Any, Any]:
    """Compute ``loss_of(*data)`` and its gradients for ``batch_size`` samples at a time.

    A mean over samples is the mean of the means of its parts, each weighed by its share of the samples, and so are its
    gradients: they differ from those of the whole by rounding only. Of the operations between, only those of one part
    are in memory at a time, beside the gradients themselves (twice while they are added).

    Parameters
    ----------
    loss_of : callable
        Gives the loss of the samples that it is given, a mean over them; it is run under a tape.
    data : sequence of numpy.ndarray or tensorflow.Tensor
        Its arguments. The first axis of each counts the samples, of which all have as many.
    weights : tensorflow.Variable, or lists, tuples or dicts of them
        What the gradients are taken for.
    batch_size : int
        Samples of a part; the last one may have fewer.

    Returns
    -------
    loss : tensorflow.Tensor
        The loss of all samples.
    gradients : list of tensorflow.Tensor
        The gradients, arranged as ``weights`` are; None for what the loss does not depend on.

    Raises
    ------
    ValueError
        If ``batch_size`` is below 1, or the data have no samples or different numbers of them.
    """
    import tensorflow as tf

    lengths = {len(one) for one in data}
    if batch_size < 1:
        raise ValueError(f"a part has at least one sample, not {batch_size}")
    if len(lengths) != 1 or not max(lengths):
        told = ", ".join(map(str, sorted(lengths))) or "none"
        raise ValueError(f"the data must have one and the same number of samples, not {told}")
    (total,) = lengths
    loss: Any = None
    sums: Any = None

    def added(one: Any, other: Any) -> Any:
        return other if one is None else one if other is None else one + other

    def scaled(one: Any, share: float) -> Any:
        return None if one is None else share * tf.convert_to_tensor(one)

    for start in range(0, total, batch_size):
        part = tuple(one[start : start + batch_size] for one in data)
        share = len(part[0]) / total  # of all samples
        with tf.GradientTape() as tape:
            of_part = loss_of(*part)
        found = tape.gradient(of_part, weights)
        of_whole = tf.nest.map_structure(partial(scaled, share=share), found)
        sums = of_whole if sums is None else tf.nest.map_structure(added, sums, of_whole)
        loss = added(loss, share * of_part)
    return loss, sums
