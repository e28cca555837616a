"""Predict some of the rows at a time, so that the results of all of them lie in the computer's memory."""

from __future__ import annotations

from typing import Any


def predict_in_parts(model: Any, x: Any, rows: int, **keywords: Any) -> Any:
    """Give ``model.predict(x)``, computed for ``rows`` rows at a time.

    Keras keeps the results of all batches on the device until ``predict`` ends, and joins them there. Here that is so
    for the rows of one part only; its results are NumPy arrays before the next begins.

    Parameters
    ----------
    model : keras.Model
        The model.
    x : numpy.ndarray or tensorflow.Tensor, or lists, tuples or dicts of them
        The first axis counts the rows.
    rows : int
        Rows in a part; a multiple of the batch size keeps the batches as they were.
    **keywords
        Passed on to ``predict``, such as ``batch_size=32`` or ``verbose=0``.

    Returns
    -------
    numpy.ndarray, or lists or dicts of them
        What ``predict`` gives, one entry for each row.

    Raises
    ------
    ValueError
        If ``rows`` is below 1, or the arrays have no rows or different numbers of them.

    Examples
    --------
    >>> masks = apply.predict_in_parts(unet, pictures, 64)
    """
    import keras
    import numpy as np

    if rows < 1:
        raise ValueError(f"a part has at least one row; this is {rows}")
    counts = {len(one) for one in keras.tree.flatten(x)}
    if len(counts) != 1 or not all(counts):
        told = ", ".join(map(str, sorted(counts))) or "none"
        raise ValueError(f"the arrays must have the same number of rows; they have {told}")
    parts = [
        model.predict(keras.tree.map_structure(lambda one: one[start : start + rows], x), **keywords)  # noqa: B023
        for start in range(0, counts.pop(), rows)
    ]
    return keras.tree.map_structure(lambda *found: np.concatenate(found, axis=0), *parts)
