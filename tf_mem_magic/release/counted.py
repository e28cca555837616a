"""What comes back when memory is released, as the allocators count it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping

from tf_mem_magic.core.units import size
from tf_mem_magic.release.gradient_registry import tie_gradients_to_graphs


def bytes_in_use() -> Mapping[str, int]:
    """Read what TensorFlow's allocators hand out now, by series name; nothing where they do not tell."""
    from tf_mem_magic.sources import Unavailable
    from tf_mem_magic.sources import tensorflow as allocators

    source = allocators.open()
    if isinstance(source, Unavailable):
        return {}
    try:
        return dict(source.read())
    finally:
        source.close()


def collect() -> None:
    """Collect garbage, and what TensorFlow's registry of gradients would keep alive for ever."""
    tie_gradients_to_graphs()
    gc.collect()


def gained(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Give the bytes that came back between two readings, by series name."""
    return tuple((name, value - after[name]) for name, value in before.items() if name in after)


def words(back: Iterable[tuple[str, int]]) -> str:
    """Say how much came back on which device; empty where nothing did."""
    parts = [f"{size(value)} of {name.partition(':')[2]}" for name, value in back if value > 0]
    return " and ".join(parts) + " came back" if parts else ""


def listed(names: tuple[str, ...]) -> str:
    """List up to four names in words."""
    shown = [f"`{name}`" for name in names[:4]]
    if len(names) > 4:
        shown.append(f"{len(names) - 4} more")
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
