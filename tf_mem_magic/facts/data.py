"""Datasets and generators: their batch size and length, without drawing an element."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from numbers import Number
from typing import Any

from tf_mem_magic.core.facts import DatasetFacts
from tf_mem_magic.facts.kinds import Kinds, is_a, is_exactly
from tf_mem_magic.facts.names import stored
from tf_mem_magic.facts.values import is_array

_KEEP_BATCH = frozenset(
    {"Map", "ParallelMap", "Prefetch", "Cache", "MemoryCache", "Shuffle", "Options", "Repeat", "Take", "Skip"}
    | {
        "Shard",
        "Filter",
        "Snapshot",
        "IgnoreErrors",
        "AssertCardinality",
        "TakeWhile",
        "Unique",
        "Save",
        "Zip",
        "Concatenate",
    }
)


_MOST_ENTRIES = 64
_DEEPEST = 4
_DATA = (
    (("tensorflow.python.data.ops.dataset_ops", "DatasetV2"), "tf.data"),
    (("keras.src.trainers.data_adapters.py_dataset_adapter", "PyDataset"), "PyDataset"),
    (("tf_keras.src.utils.data_utils", "Sequence"), "PyDataset"),
    (("types", "GeneratorType"), "generator"),
)


def dataset_batch(dataset: Any) -> int | None:
    """Find the batch size of a ``tf.data.Dataset``; None where it was never batched or cannot be told.

    Walks from the end of the pipeline to the last ``batch``, through steps that keep batches whole. Where the
    element's static shape knows its leading size, that wins.
    """
    try:
        static = _static_batch(dataset)
        return static if static is not None else _walked_batch(dataset)
    except Exception:
        return None


def _walked_batch(dataset: Any, known: dict[int, tuple[Any, int | None]] | None = None) -> int | None:
    """Find the last ``batch`` by its step; every step is looked at once, however often a pipeline joins it in."""
    known = {} if known is None else known
    if id(dataset) not in known:
        # Kept with its answer, so that no other object takes its identity meanwhile.
        known[id(dataset)] = (dataset, _batch_after(dataset, known))
    return known[id(dataset)][1]


def _batch_after(dataset: Any, known: dict[int, tuple[Any, int | None]]) -> int | None:
    name = _step_name(dataset)
    size = getattr(dataset, "_batch_size", None)
    if size is not None and "Batch" in name:
        return int(size)
    if name in ("Rebatch", "LegacyRebatch"):
        sizes = {int(n) for n in _flat(getattr(dataset, "_batch_sizes", ()))}
        return sizes.pop() if len(sizes) == 1 else None
    if name not in _KEEP_BATCH:
        return None
    found = {_walked_batch(source, known) for source in dataset._inputs()}
    return found.pop() if len(found) == 1 else None


def _static_batch(dataset: Any) -> int | None:
    """Give the leading size that all components of a batched element share, where it is static."""
    if _walked_batch(dataset) is None:
        return None
    sizes = {spec.shape[0] for spec in _specs(dataset.element_spec) if spec.shape.rank}
    return int(next(iter(sizes))) if len(sizes) == 1 and None not in sizes else None


def _specs(spec: Any) -> list[Any]:
    if isinstance(spec, dict):
        return [leaf for one in spec.values() for leaf in _specs(one)]
    if isinstance(spec, (tuple, list)):
        return [leaf for one in spec for leaf in _specs(one)]
    return [spec] if hasattr(spec, "shape") else []


def _flat(value: Any) -> Iterable[Any]:
    numbers = value.numpy() if hasattr(value, "numpy") else value
    return [numbers] if getattr(numbers, "ndim", 1) == 0 else list(numbers)


def leading_size(data: Any, depth: int = 0) -> int | None:
    """Give the leading size of the first array in a nested structure; None where none is near its beginning."""
    if is_a(data, (list, tuple, dict)):
        if depth == _DEEPEST:
            return None
        entries = list(islice(dict.values(data) if is_a(data, dict) else data, _MOST_ENTRIES >> 2 * depth))
        return next((size for size in (leading_size(one, depth + 1) for one in entries) if size), None)
    try:
        shape = getattr(data, "shape", None)
        return int(shape[0]) if shape is not None and len(shape) else None
    except Exception:
        return None


def find_datasets(
    pairs: Iterable[tuple[str, Any]], initialised: bool, counts: bool = True
) -> list[tuple[DatasetFacts, Any]]:
    """Describe each distinct dataset among named values; give the facts beside the object.

    ``counts``: their batches and samples too, which TensorFlow or the person's own class is asked for.
    """
    kinds = Kinds(_DATA)
    found = kinds.pick(pairs)
    return [(_describe(name, kinds.of(value) or "", value, initialised, counts), value) for name, value in found]


def is_repeatable(value: Any) -> bool:
    """Whether ``value`` is data that can be read again: an array, dataset, or collection of arrays and numbers."""
    if is_exactly(value, list, tuple, dict):
        if not 0 < len(value) <= _MOST_ENTRIES:
            return False
        entries = list(value.values()) if type(value) is dict else list(value)
        return all(is_array(one) or is_a(one, Number) for one in entries)
    return is_array(value) or Kinds(_DATA[:-1]).of(value) is not None


def _describe(name: str, kind: str, value: Any, initialised: bool, counts: bool) -> DatasetFacts:
    if kind == "tf.data" and initialised:
        batch = dataset_batch(value)
        if not counts:
            return DatasetFacts(name, kind, batch)
        return DatasetFacts(name, kind, batch, _cardinality(value), samples=dataset_samples(value))
    if kind == "PyDataset":
        size = stored(value).get("batch_size")
        return DatasetFacts(name, kind, size if type(size) is int else None, _length(value) if counts else None)
    return DatasetFacts(name, kind)


_ONE_TO_ONE = frozenset({"Map", "ParallelMap", "Prefetch", "Cache", "MemoryCache", "Shuffle", "Options"})


def dataset_samples(dataset: Any) -> int | None:
    """Count the samples of one pass over a batched ``tf.data.Dataset``; None where that is not exactly known.

    Only steps that hand on every batch may follow ``batch``, and what is batched must know its own size.
    """
    try:
        while (name := _step_name(dataset)) in _ONE_TO_ONE:
            (dataset,) = dataset._inputs()
        if name not in ("Batch", "ParallelBatch", "PaddedBatch"):
            return None
        (source,) = dataset._inputs()
        count, size = int(source.cardinality()), int(dataset._batch_size)
        kept = count - count % size if bool(dataset._drop_remainder) else count
        return kept if kept > 0 and -(-kept // size) == int(dataset.cardinality()) else None
    except Exception:
        return None


def _step_name(dataset: Any) -> str:
    return type(dataset).__name__.strip("_").removesuffix("V2").removesuffix("V1").removesuffix("Dataset")


def _cardinality(dataset: Any) -> int | None:
    try:
        count = int(dataset.cardinality())
    except Exception:
        return None
    return count if count >= 0 else None


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except Exception:
        return None
