"""Give arrays to Keras batch by batch, so that it does not copy them whole."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


def stream(x: Any, y: Any = None, sample_weight: Any = None, *, batch_size: int = 32, shuffle: bool = True) -> Any:
    """Make a ``keras.utils.PyDataset`` that cuts arrays into batches when ``fit`` asks for them.

    ``fit`` with NumPy arrays first turns them into tensors: whole copies in host memory. Here only the batches that
    are in use are copied. The arrays may be memory-mapped files (``np.load(..., mmap_mode="r")``): then only what a
    batch needs is read. Floating-point values come in Keras's own precision (``float32`` unless it was changed), as
    ``fit`` gives them too.

    Parameters
    ----------
    x, y, sample_weight : numpy.ndarray
        As ``fit`` takes them; the first axis counts the samples.
    batch_size : int
        Samples in a batch; the last one may have fewer.
    shuffle : bool
        Draw the samples in a new random order in every epoch (NumPy's global random state, which
        ``keras.utils.set_random_seed`` sets). Otherwise they keep their order, given that ``fit`` has
        ``shuffle=False`` too.

    Raises
    ------
    ValueError
        If the arrays have different numbers of samples, or the batch size is below 1.
    """
    arrays = [one for one in (x, y, sample_weight) if one is not None]
    lengths = {len(one) for one in arrays}
    if len(lengths) != 1:
        raise ValueError(f"the arrays have different numbers of samples: {', '.join(map(str, sorted(lengths)))}")
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1; this is {batch_size}")
    if y is None and sample_weight is not None:
        raise ValueError("sample weights need targets")
    return _batches_class()(arrays, batch_size, shuffle)


@lru_cache(maxsize=1)
def _batches_class() -> type[Any]:
    import keras
    import numpy as np

    class Batches(keras.utils.PyDataset):
        """Arrays cut into batches; ``order`` is None where the samples keep theirs."""

        def __init__(self, arrays: list[Any], batch_size: int, shuffle: bool) -> None:
            super().__init__()
            self.arrays, self.batch_size, self.count = arrays, batch_size, len(arrays[0])
            self.order = np.random.permutation(self.count) if shuffle else None

        def __len__(self) -> int:
            return -(-self.count // self.batch_size)

        def __getitem__(self, index: int) -> tuple[Any, ...]:
            if not 0 <= index < len(self):
                raise IndexError(index)
            chosen: Any = slice(index * self.batch_size, (index + 1) * self.batch_size)
            if self.order is not None:
                chosen = self.order[chosen]
            return tuple(_in_own_precision(array[chosen]) for array in self.arrays)

        def on_epoch_end(self) -> None:
            if self.order is not None:
                self.order = np.random.permutation(self.count)

    def _in_own_precision(values: Any) -> Any:
        # float64 would be cast by Keras anyway; a copy, so that no batch is a view into a mapped file.
        kind = keras.config.floatx() if np.issubdtype(values.dtype, np.floating) else values.dtype
        return np.array(values, dtype=kind)

    return Batches
