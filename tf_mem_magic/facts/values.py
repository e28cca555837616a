"""Named values that hold memory: arrays, tensors, variables, tables, and lists of them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tf_mem_magic.core.facts import NamedValue
from tf_mem_magic.facts.models import array_bytes, variable_device

_MOST_ENTRIES = 10_000

_NOTHING_TO_COUNT = frozenset(
    {int, float, complex, bool, str, type(None), type, types.ModuleType, types.FunctionType, list, dict, tuple, set}
)
"""Types known at a glance: a vocabulary or a history holds thousands of such values."""


@dataclass(frozen=True, slots=True)
class _Held:
    """One block of memory: the object that owns it (by id), its bytes, what it is and where."""

    owner: int
    bytes: int
    kind: str
    device: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


def find_values(
    pairs: Iterable[tuple[str, Any]], is_earlier: Callable[[str, Any], bool], counted_elsewhere: Iterable[Any] = ()
) -> tuple[NamedValue, ...]:
    """Describe the values that take memory, largest first; memory shared by two names counts for the first only.

    ``counted_elsewhere`` are the variables of models and optimizers, which are told as theirs.
    """
    counted = {
        id(owner) for one in counted_elsewhere for owner in (one, getattr(one, "_value", None)) if owner is not None
    }
    found = []
    for name, value in pairs:
        blocks = [b for b in _blocks(value) if b.owner not in counted]
        counted.update(b.owner for b in blocks)
        distinct = {b.owner: b for b in blocks}.values()
        total = sum(b.bytes for b in distinct)
        if not total:
            continue
        first = max(distinct, key=lambda b: b.bytes)
        alone = not isinstance(value, (list, tuple, dict))
        kind = first.kind if alone else f"{type(value).__name__} of {first.kind}"
        found.append(
            NamedValue(
                name=name,
                bytes=total,
                kind=kind,
                device=first.device,
                origin="earlier" if is_earlier(name, value) else "cell",
                shape=first.shape if alone else None,
                dtype=first.dtype if alone else None,
            )
        )
    return tuple(sorted(found, key=lambda v: -v.bytes))


def _blocks(value: Any) -> list[_Held]:
    try:
        if isinstance(value, dict):
            return _blocks_of(list(islice(dict.values(value), _MOST_ENTRIES)))
        if isinstance(value, (list, tuple)):
            return _blocks_of(value[:_MOST_ENTRIES])
        return _blocks_of((value,))
    except Exception:
        return []


def _blocks_of(values: Iterable[Any]) -> list[_Held]:
    return [b for one in values if type(one) not in _NOTHING_TO_COUNT and (b := _block(one))]


def _block(value: Any) -> _Held | None:
    if isinstance(value, (bytes, bytearray)):
        return _Held(id(value), len(value), type(value).__name__)
    kind = _kind(type(value))
    if kind is None:
        return None
    if kind == "numpy.ndarray":
        return _array(value)
    if kind == "pandas":
        return _table(value)
    device = variable_device(value)
    return _Held(id(value), array_bytes(value), kind, device, _shape(value), _dtype(value))


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array, a tensor, a variable or a table."""
    return _kind(type(value)) is not None


def _kind(cls: type) -> str | None:
    """Name the kinds that count; only classes of modules that are imported already can match."""
    for module, name, kind in (
        ("numpy", "ndarray", "numpy.ndarray"),
        ("tensorflow.python.framework.ops", "EagerTensor", "tf.Tensor"),
        ("tensorflow.python.ops.resource_variable_ops", "BaseResourceVariable", "tf.Variable"),
        ("keras.src.backend.common.variables", "Variable", "keras.Variable"),
        ("keras.src.backend.common.variables", "KerasVariable", "keras.Variable"),
        ("pandas.core.generic", "NDFrame", "pandas"),
    ):
        known = getattr(sys.modules.get(module), name, None)
        if isinstance(known, type) and issubclass(cls, known):
            return kind
    return None


def _array(value: Any) -> _Held | None:
    """Describe an array by the memory it keeps alive: a view counts as the array it looks into."""
    root = value
    while root.base is not None and _kind(type(root.base)) == "numpy.ndarray":
        root = root.base
    if any(base.__name__ == "memmap" for base in type(root).__mro__):
        return None
    return _Held(id(root), int(root.nbytes), "numpy.ndarray", None, _shape(value), _dtype(value))


def _table(value: Any) -> _Held:
    usage = value.memory_usage(index=True)
    total = int(usage.sum()) if hasattr(usage, "sum") else int(usage)
    return _Held(id(value), total, f"pandas.{type(value).__name__}", None, tuple(map(int, value.shape)))


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        return tuple(int(n) for n in value.shape)
    except Exception:
        return None


def _dtype(value: Any) -> str:
    return str(getattr(value.dtype, "name", value.dtype))
