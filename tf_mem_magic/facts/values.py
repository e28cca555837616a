"""Named values that hold memory: arrays, tensors, variables, tables, and lists of them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from tf_mem_magic.core.facts import NamedValue
from tf_mem_magic.facts.kinds import Kinds, is_a, one_of_each_type
from tf_mem_magic.facts.models import array_bytes, variable_device
from tf_mem_magic.facts.names import share

_MOST_ENTRIES = 10_000
_MOST_INSIDE = 200_000
"""Entries looked at in all containers together; where there are many containers, each shows fewer."""

_FEWEST_ENTRIES = 64
_MOST_TOLD = 256
"""Entries of one container whose types are told."""

ARRAYS = (
    (("numpy", "ndarray"), "numpy.ndarray"),
    (("tensorflow.python.framework.ops", "EagerTensor"), "tf.Tensor"),
    (("tensorflow.python.ops.resource_variable_ops", "BaseResourceVariable"), "tf.Variable"),
    (("keras.src.backend.common.variables", "Variable"), "keras.Variable"),
    (("keras.src.backend.common.variables", "KerasVariable"), "keras.Variable"),
    (("pandas.core.generic", "NDFrame"), "pandas"),
)

_BYTES = ((("builtins", "bytes"), "bytes"), (("builtins", "bytearray"), "bytearray"))
_CONTAINERS = tuple((("builtins", name), name) for name in ("list", "tuple", "dict"))
_PLAIN: tuple[type, ...] = (int, float, complex, bool, str, type(None), list, dict, tuple, set, type)
_PLAIN += (types.ModuleType, types.FunctionType)
_NOTHING_TO_COUNT = frozenset(map(id, _PLAIN))
"""Types known at a glance, by identity: a vocabulary or a history holds thousands of such values."""

_SINGLE = _NOTHING_TO_COUNT - set(map(id, (list, dict, tuple)))
"""Those of them that hold nothing else: names of them are passed over."""

_MOST_VALUES = 500
"""Values that are described, the largest: a report names a few."""

_Held = tuple[int, int, str, Any]
"""One block of memory: the identity of the object that owns it, its bytes, what it is, and the object that shows it."""


def find_values(
    pairs: Iterable[tuple[str, Any]], is_earlier: Callable[[str, Any], bool], counted_elsewhere: Iterable[Any] = ()
) -> tuple[NamedValue, ...]:
    """Describe the values that take memory, largest first; memory shared by two names counts for the first only.

    An array that is a part of one that another name counts comes after these, with 0 bytes: its shape is its own.
    ``counted_elsewhere`` are the variables of models and optimizers, which are told as theirs.
    """
    pairs = list(pairs)
    counted = {id(owner) for one in counted_elsewhere for owner in (one, _inner(one)) if owner is not None}
    kinds = Kinds((*ARRAYS, *_BYTES))
    dull = set(_NOTHING_TO_COUNT)
    most = share(len(Kinds(_CONTAINERS).pick(pairs)), _MOST_INSIDE, _FEWEST_ENTRIES, _MOST_ENTRIES)
    found: list[tuple[int, str, Any, _Held]] = []
    parts: list[tuple[int, str, Any, _Held]] = []
    whole: set[int] = set()
    for name, value in pairs:
        if id(type(value)) in _SINGLE:
            continue
        held = _blocks(value, kinds, dull, most)
        blocks = {one[0]: one for one in held if one[0] not in counted}
        if held and not blocks and held[0][3] is value and held[0][2] == "numpy.ndarray" and id(value) not in whole:
            parts.append((0, name, value, held[0]))
        whole.add(id(value))
        if blocks:
            counted.update(blocks)
            largest = max(blocks.values(), key=_bytes)
            found.append((sum(map(_bytes, blocks.values())), name, value, largest))
    found.sort(key=lambda one: -one[0])
    told = [*(one for one in found if one[0]), *parts][:_MOST_VALUES]
    described = (_describe(*one, is_earlier) for one in told)
    return tuple(one for one in described if one is not None)


def _bytes(held: _Held) -> int:
    return held[1]


def _describe(
    total: int, name: str, value: Any, largest: _Held, is_earlier: Callable[[str, Any], bool]
) -> NamedValue | None:
    _, _, kind, shown = largest
    alone = not is_a(value, (list, tuple, dict))
    try:
        return NamedValue(
            name=name,
            bytes=total,
            kind=kind if alone else f"{type(value).__name__} of {kind}",
            device=variable_device(shown),
            origin="earlier" if is_earlier(name, value) else "cell",
            shape=_shape(shown, kind) if alone else None,
            dtype=_dtype(shown, kind) if alone else _dtypes(value),
        )
    except Exception:
        return None


def describe(name: str, value: Any) -> NamedValue | None:
    """Describe one array, tensor or variable; None where it is something else."""
    held = _block(value, Kinds(ARRAYS))
    return None if held is None else _describe(held[1], name, value, held, lambda *_: True)


def _inner(variable: Any) -> Any:
    """Give the variable of TensorFlow that one of Keras holds."""
    try:
        return getattr(variable, "_value", None)
    except Exception:
        return None


def _blocks(value: Any, kinds: Kinds, dull: set[int], most: int) -> list[_Held]:
    """Weigh an object, or what a container holds; ``dull`` are the types that count for nothing, by identity."""
    try:
        entries = _entries(value, most)
    except Exception:  # a dict that another thread fills
        return []
    shown = one_of_each_type(entries)
    dull.update(key for key in shown.keys() - dull if kinds.of(shown[key]) is None)
    if shown.keys() <= dull:
        return []
    found = (_block(one, kinds) for one in entries if id(type(one)) not in dull)
    return [held for held in found if held is not None]


def _entries(value: Any, most: int) -> list[Any]:
    """List what a container holds, or the object itself; what a class derived from a container says is not asked."""
    if is_a(value, dict):
        return list(islice(dict.values(value), most))
    if is_a(value, (list, tuple)):
        return list(islice((list if is_a(value, list) else tuple).__iter__(value), most))
    return [value]


def _block(value: Any, kinds: Kinds) -> _Held | None:
    """Weigh one object; None where it holds nothing that counts, or cannot be asked."""
    try:
        kind = kinds.of(value)
        if kind is None:
            return None
        if kind == "numpy.ndarray":
            return _array(value)
        if kind in ("bytes", "bytearray"):
            base = bytes if kind == "bytes" else bytearray
            return (id(value), base.__len__(value), type(value).__name__, value)
        if kind == "pandas":
            return (id(value), _table_bytes(value), f"pandas.{type(value).__name__}", value)
        return (id(value), array_bytes(value), kind, value)
    except Exception:
        return None


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array, a tensor, a variable or a table."""
    return Kinds(ARRAYS).of(value) is not None


def _array(value: Any) -> _Held | None:
    """Weigh an array by the memory it keeps alive: a view counts as the array it looks into.

    What a class derived from ``ndarray`` says of itself is not asked.
    """
    ndarray: Any = sys.modules["numpy"].ndarray
    if type(value) is ndarray and value.base is None:
        return (id(value), int(value.nbytes), "numpy.ndarray", value)
    root = value
    while is_a(base := _own(root, "base"), ndarray):
        root = base
    if any(base.__name__ == "memmap" for base in type(root).__mro__):
        return None
    return (id(root), int(_own(root, "nbytes")), "numpy.ndarray", value)


def _own(array: Any, name: str) -> Any:
    """Read what NumPy itself says of an array, whatever its class says."""
    ndarray = sys.modules["numpy"].ndarray
    return getattr(ndarray, name).__get__(array)


def _table_bytes(value: Any) -> int:
    usage = value.memory_usage(index=True)
    return int(usage.sum()) if hasattr(usage, "sum") else int(usage)


def _shape(value: Any, kind: str) -> tuple[int, ...] | None:
    if kind.startswith("byte"):
        return None
    try:
        return tuple(int(n) for n in (_own(value, "shape") if kind == "numpy.ndarray" else value.shape))
    except Exception:
        return None


def _dtype(value: Any, kind: str) -> str | None:
    if kind.startswith(("byte", "pandas")):
        return None
    dtype = _own(value, "dtype") if kind == "numpy.ndarray" else value.dtype
    return str(getattr(dtype, "name", dtype))


def _dtypes(container: Any) -> str:
    """Name what a container holds, each once: the types of arrays' numbers, else the kinds of entries, or ``other``."""
    kinds = Kinds(ARRAYS)
    told = dict[str, None]()
    for one in _entries(container, _MOST_TOLD):
        kind = kinds.of(one) or "other"
        told[(_dtype(one, kind) or kind) if kind == "numpy.ndarray" else kind] = None
    return ", ".join(told)
