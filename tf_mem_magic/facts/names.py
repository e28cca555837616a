"""What the names of a notebook hold: the walk that finds models, datasets and values without touching them.

Nothing here calls a property, ``__getattr__``, ``__class__``, ``__len__`` or any other code of the objects it looks at,
and what it looks into is bounded, however many names there are and however much they hold.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from tf_mem_magic.facts.kinds import is_a, is_exactly, one_of_each_type

_HIDDEN = re.compile(r"_i+\d*|_i\d+|_ih|_oh|_dh|__\w+__|_+|_\d+")
_IPYTHONS = frozenset({"In", "Out", "exit", "quit", "get_ipython"})
_PLAIN: tuple[type, ...] = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_PLAIN += (str, bytes, int, float, complex, type(None))
_NOTHING_INSIDE = frozenset(map(id, (*_PLAIN, bool)))
_LIBRARIES = frozenset(
    {"keras", "tf_keras", "tensorflow", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "IPython"}
    | {
        "ipykernel",
        "ipywidgets",
        "traitlets",
        "builtins",
        "collections",
        "threading",
        "logging",
        "asyncio",
        "weakref",
        "tf_mem_magic",
    }
)
_MOST_ENTRIES = 64
_MOST_INSIDE = 20_000
"""Entries looked at in all containers and objects together; where there are many of them, each has fewer."""

_FEWEST_ENTRIES = 4
_LONGEST_KEY = 100
_LARGEST_KEY = 1 << 63


def own_names(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the names that the user gave, with their values; IPython's own names are left out."""
    pairs = list(namespace.items())
    return [(n, v) for n, v in pairs if type(n) is str and n not in _IPYTHONS and not (n[:1] == "_" and _is_hidden(n))]


def _is_hidden(name: str) -> bool:
    return _HIDDEN.fullmatch(name) is not None


def history(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the results that IPython keeps, named ``Out[3]`` as the user sees them."""
    kept: Any = namespace.get("Out")
    found = [(f"Out[{key}]", value) for key, value in list(dict.items(kept))] if is_a(kept, dict) else []
    return found + [(n, namespace[n]) for n in ("_", "__", "___") if n in namespace]


def reachable(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List every name with its value, then what lies one level inside containers and the user's own objects.

    Plain numbers and text inside those are left out.
    """
    top = own_names(namespace)
    holding = _holding(top)
    most = share(len(holding), _MOST_INSIDE, _FEWEST_ENTRIES, _MOST_ENTRIES)
    inside = [pair for name, value in holding for pair in _inside(name, value, most)]
    return top + inside


def _holding(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """List the values that may hold others; each type is judged once."""
    shown = one_of_each_type([value for _, value in pairs])
    holding = {key for key, value in shown.items() if _may_hold(value)}
    return [pair for pair in pairs if id(type(pair[1])) in holding]


def _may_hold(value: Any) -> bool:
    if is_a(value, _PLAIN):
        return False
    try:
        return is_a(value, (dict, list, tuple)) or type(value).__module__.partition(".")[0] not in _LIBRARIES
    except Exception:  # a class that answers for its attributes
        return False


def share(count: int, budget: int, fewest: int, most: int) -> int:
    """Give how many entries each of ``count`` containers may show, so that all of them stay within a budget."""
    return min(most, max(fewest, budget // max(count, 1)))


def _inside(name: str, value: Any, most: int) -> list[tuple[str, Any]]:
    try:
        return [(n, entry) for n, entry in _entries(name, value, most) if id(type(entry)) not in _NOTHING_INSIDE]
    except Exception:  # a class that answers for its attributes, a dict that another thread fills
        return []


def _entries(name: str, value: Any, most: int) -> Iterator[tuple[str, Any]]:
    if is_a(value, dict):
        for key, entry in list(islice(dict.items(value), most)):
            if _is_written(key) or (type(key) is tuple and len(key) < most and all(map(_is_written, key))):
                yield f"{name}[{key!r}]", entry
    elif is_exactly(value, list, tuple):
        for index, entry in enumerate(value[:most]):
            yield f"{name}[{index}]", entry
    elif type(value).__module__.partition(".")[0] not in _LIBRARIES:
        for field, entry in fields(value, most):
            yield f"{name}.{field}", entry


def _is_written(key: Any) -> bool:
    """Whether a key, or a part of one, is written as it prints itself."""
    kind = type(key)
    if kind is str:
        return len(key) <= _LONGEST_KEY
    return is_exactly(key, float, bool, type(None)) or (kind is int and -_LARGEST_KEY < key < _LARGEST_KEY)


def fields(value: Any, most: int = _MOST_INSIDE) -> list[tuple[str, Any]]:
    """List the attributes that an object itself stores: its ``__dict__``, slots, and named-tuple fields."""
    if is_a(value, tuple):
        names = getattr(type(value), "_fields", ())
        return list(islice(zip(names, tuple.__iter__(value)), most)) if type(names) is tuple else []
    found: list[tuple[str, Any]] = []
    for base in type(value).__mro__:
        for name, slot in list(vars(base).items()):
            if type(slot) is types.MemberDescriptorType and name != "__dict__":
                try:
                    found.append((name, slot.__get__(value)))
                except AttributeError:
                    continue
    return [*found, *islice(stored(value).items(), most)][:most]


def stored(value: Any) -> dict[str, Any]:
    """Give the ``__dict__`` of an object without running any of its code; empty: it has none, or makes it up."""
    try:
        for base in type(value).__mro__:
            found = vars(base).get("__dict__")
            if found is not None:
                plain = is_exactly(found, types.GetSetDescriptorType, types.MemberDescriptorType)
                held = found.__get__(value) if plain else None
                return held if type(held) is dict else {}
    except Exception:  # a class that answers for its attributes
        pass
    return {}
