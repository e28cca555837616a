"""Predict some of the rows at a time, so that the results of all of them lie in the computer's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def predict_in_parts(model: Any, x: Any, rows: int | None = None, **keywords: Any) -> Any:
    """Give ``model.predict(x)``, computed for some of the rows at a time.

    Keras keeps the results of all batches on the device until ``predict`` ends, and joins them there. Here that is so
    for the rows of one part only; its results are NumPy arrays before the next begins.

    Parameters
    ----------
    model : keras.Model
        The model.
    x : numpy.ndarray or tensorflow.Tensor, or lists, tuples or dicts of them; or tf.data.Dataset
        Of arrays the first axis counts the rows. Of a dataset each batch is a part.
    rows : int, optional
        Rows in a part, for arrays; a multiple of the batch size keeps the batches as they were.
    **keywords
        Passed on to ``predict`` for arrays, such as ``batch_size=32`` or ``verbose=0``.

    Returns
    -------
    numpy.ndarray, or lists or dicts of them
        What ``predict`` gives, one entry for each row.

    Raises
    ------
    ValueError
        If ``rows`` is below 1, the arrays have no rows or different numbers of them, or the dataset is empty.

    Examples
    --------
    >>> masks = apply.predict_in_parts(unet, pictures, 64)
    """
    import keras
    import numpy as np
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        parts = [model.predict_on_batch(_inputs(batch)) for batch in x]
    else:
        parts = [model.predict(part, **keywords) for part in _cut(x, rows)]
    if not parts:
        raise ValueError("the dataset has no batches")
    return keras.tree.map_structure(lambda *found: np.concatenate(found, axis=0), *parts)


def _inputs(batch: Any) -> Any:
    """Give what the model is to compute: of ``(x, y)`` and ``(x, y, weights)`` the first, as ``predict`` takes it."""
    return batch[0] if isinstance(batch, tuple) else batch


def _cut(x: Any, rows: int | None) -> Iterator[Any]:
    """Yield the arrays in parts of so many rows."""
    import keras

    if rows is None or rows < 1:
        raise ValueError(f"a part has at least one row; this is {rows}")
    counts = {len(one) for one in keras.tree.flatten(x)}
    if len(counts) != 1 or not all(counts):
        told = ", ".join(map(str, sorted(counts))) or "none"
        raise ValueError(f"the arrays must have the same number of rows; they have {told}")
    for start in range(0, counts.pop(), rows):
        part = slice(start, start + rows)
        yield keras.tree.map_structure(lambda one, part=part: one[part], x)
