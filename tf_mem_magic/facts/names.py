"""What the names of a notebook hold: the walk that finds models, datasets and values without touching them.

Nothing here calls a property, ``__getattr__`` or any other code of the objects it looks at.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_HIDDEN = re.compile(r"_i+\d*|_i\d+|_ih|_oh|_dh|In|Out|exit|quit|get_ipython|__\w+__|_+|_\d+")
_CODE = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_PLAIN = (*_CODE, str, bytes, int, float, complex, type(None))
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
        "tf_mem_magic",
    }
)
_MOST_ENTRIES = 64
_WRITTEN = (str, int, float, bool, type(None))
"""What a key of several parts may consist of."""


def own_names(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the names that the user gave, with their values; IPython's own names are left out."""
    return [(n, v) for n, v in list(namespace.items()) if isinstance(n, str) and not _HIDDEN.fullmatch(n)]


def history(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the results that IPython keeps, named ``Out[3]`` as the user sees them."""
    kept = namespace.get("Out")
    found = [(f"Out[{key}]", value) for key, value in list(kept.items())] if isinstance(kept, dict) else []
    return found + [(n, namespace[n]) for n in ("_", "__", "___") if n in namespace]


def reachable(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List every name with its value, then what lies one level inside containers and the user's own objects."""
    top = own_names(namespace)
    inside = [pair for name, value in top for pair in _inside(name, value)]
    return top + inside


def _inside(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _PLAIN):
        return
    if isinstance(value, dict):
        for key, entry in list(islice(dict.items(value), _MOST_ENTRIES)):
            if isinstance(key, (str, int, float)) or (type(key) is tuple and all(type(k) in _WRITTEN for k in key)):
                yield f"{name}[{key!r}]", entry
    elif type(value) in (list, tuple):
        for index, entry in enumerate(value[:_MOST_ENTRIES]):
            yield f"{name}[{index}]", entry
    elif type(value).__module__.partition(".")[0] not in _LIBRARIES:
        for field, entry in fields(value)[:_MOST_ENTRIES]:
            yield f"{name}.{field}", entry


def fields(value: Any) -> list[tuple[str, Any]]:
    """List the attributes that an object itself stores: its ``__dict__``, slots, and named-tuple fields."""
    if isinstance(value, tuple):
        names = getattr(type(value), "_fields", ())
        return list(zip(names, value)) if isinstance(names, tuple) else []
    found: list[tuple[str, Any]] = []
    for base in type(value).__mro__:
        for name, slot in list(vars(base).items()):
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    found.append((name, slot.__get__(value)))
                except AttributeError:
                    continue
    try:
        found += list(object.__getattribute__(value, "__dict__").items())
    except AttributeError:
        pass
    return found
