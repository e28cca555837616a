"""Free what trained models held that nothing uses any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_DEEPEST = 3
"""Levels of lists and dicts in which results of ``fit`` are looked for."""


def collect_garbage(*results: Any) -> None:
    """Collect garbage, and with it what TensorFlow keeps of models that nothing refers to any more.

    Python frees a Keras model only when its collector runs, and TensorFlow's registry of gradients keeps the graph of a
    trained one alive even then. Here the registry is made to let go of graphs that nobody else holds; models that are
    still referred to are not touched. It takes a moment, so it belongs before a model is made, not into each step.

    Parameters
    ----------
    *results : History, or lists, tuples or dicts of them
        What ``fit`` gave for models that have been trained: each refers to its model, and lets go of it here. What it
        tells (``history``, ``epoch``, ``params``) stays.
    """
    from tf_mem_magic.release.counted import collect

    for one in _callbacks(results, _DEEPEST):
        for name in ("_model", "model"):
            if name in vars(one):
                setattr(one, name, None)
    collect()


def _callbacks(values: Any, depth: int) -> Iterator[Any]:
    for value in list(values.values()) if isinstance(values, dict) else values:
        if isinstance(value, (list, tuple, dict)):
            if depth:
                yield from _callbacks(value, depth - 1)
        elif type(value).__name__ == "History" and type(value).__module__.partition(".")[0] in ("keras", "tf_keras"):
            yield value
