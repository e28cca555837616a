"""Give arrays to Keras batch by batch, so that it does not copy them whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any


def stream(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int = 32,
    shuffle: bool = True,
    last: float | None = None,
    but_last: float | None = None,
) -> Any:
    """Make a ``keras.utils.PyDataset`` that cuts arrays into batches when Keras asks for them.

    ``fit``, ``evaluate`` and ``predict`` with NumPy arrays first turn them into tensors: whole copies in host memory.
    Here only the batches that are in use are copied. The arrays may be memory-mapped files
    (``np.load(..., mmap_mode="r")``): then only what a batch needs is read. Floating-point values come in Keras's own
    precision (``float32`` unless it was changed), as ``fit`` gives them too.

    Parameters
    ----------
    x, y, sample_weight : numpy.ndarray, or lists, tuples or dicts of them
        As ``fit`` takes them; the first axis counts the samples. One array of weights stands for every output.
    batch_size : int
        Samples in a batch; the last one may have fewer.
    shuffle : bool
        Draw the samples in a new random order in every epoch (NumPy's global random state, which
        ``keras.utils.set_random_seed`` sets). Otherwise they keep their order, given that ``fit`` has
        ``shuffle=False`` too.
    last, but_last : float
        Only the samples that ``fit`` would hold back under ``validation_split`` of this fraction, or only the others.

    Raises
    ------
    ValueError
        If the arrays have different numbers of samples, the batch size is below 1, or a part has no samples.
    """
    if y is None and sample_weight is not None:
        raise ValueError("sample weights need targets")
    if isinstance(y, (list, tuple, dict)) and hasattr(sample_weight, "shape"):
        weights = sample_weight
        sample_weight = _mapped(lambda _: weights, y)
    parts = [one for one in (x, y, sample_weight) if one is not None]
    lengths = {len(leaf) for part in parts for leaf in _leaves(part)}
    if len(lengths) != 1:
        raise ValueError(f"the arrays have different numbers of samples: {', '.join(map(str, sorted(lengths)))}")
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1; this is {batch_size}")
    if last is not None or but_last is not None:
        parts = [_mapped(lambda leaf: leaf[_part(len(leaf), last, but_last)], part) for part in parts]
    return _batches_class()(parts, batch_size, shuffle)


def _part(count: int, last: float | None, but_last: float | None) -> slice:
    """Give the samples of one side of a split, which Keras rounds in favour of the validation data."""
    if last is not None and but_last is not None:
        raise ValueError("`last` and `but_last` exclude each other")
    at = math.floor(count * (1.0 - (last or but_last or 0.0)))
    if not 0 < at < count:
        raise ValueError(f"a split of {count} samples by {last or but_last} leaves one side without any")
    return slice(at, None) if last is not None else slice(at)


def _leaves(part: Any) -> Iterator[Any]:
    if isinstance(part, (list, tuple, dict)):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _leaves(inner)
    else:
        yield part


def _mapped(function: Callable[[Any], Any], part: Any) -> Any:
    """Apply a function to every array of a structure; lists become tuples, as a batch of Keras has them."""
    if isinstance(part, dict):
        return {key: _mapped(function, inner) for key, inner in part.items()}
    if isinstance(part, (list, tuple)):
        return tuple(_mapped(function, inner) for inner in part)
    return function(part)


@lru_cache(maxsize=1)
def _batches_class() -> type[Any]:
    import keras
    import numpy as np

    class Batches(keras.utils.PyDataset):
        """Arrays cut into batches; ``order`` is None where the samples keep theirs."""

        def __init__(self, parts: list[Any], batch_size: int, shuffle: bool) -> None:
            super().__init__()
            self.parts, self.batch_size, self.count = parts, batch_size, len(next(_leaves(parts)))
            self.order = np.random.permutation(self.count) if shuffle else None

        def __len__(self) -> int:
            return -(-self.count // self.batch_size)

        def __getitem__(self, index: int) -> tuple[Any, ...]:
            if not 0 <= index < len(self):
                raise IndexError(index)
            chosen: Any = slice(index * self.batch_size, (index + 1) * self.batch_size)
            if self.order is not None:
                chosen = self.order[chosen]
            return tuple(_mapped(lambda leaf: _in_own_precision(leaf[chosen]), part) for part in self.parts)

        def on_epoch_end(self) -> None:
            if self.order is not None:
                self.order = np.random.permutation(self.count)

    def _in_own_precision(values: Any) -> Any:
        # float64 would be cast by Keras anyway; a copy, so that no batch is a view into a mapped file.
        kind = keras.config.floatx() if np.issubdtype(values.dtype, np.floating) else values.dtype
        return np.array(values, dtype=kind)

    return Batches
