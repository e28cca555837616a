"""Objects that cannot be looked at by the usual means: each raises, where another would never return."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar


class AskedError(Exception):
    """What an object of the zoo raises."""


class Nasty:
    """Raises whatever is asked of it, and notes that it was asked."""

    asked: ClassVar[list[str]] = []

    def __getattribute__(self, name: str) -> Any:
        Nasty.asked.append(name)
        raise AskedError(name)


def _refuse(name: str) -> Any:
    def method(self: Any, *args: Any) -> Any:
        Nasty.asked.append(name)
        raise AskedError(name)

    return method


SPECIAL = (
    "__len__", "__eq__", "__bool__", "__repr__", "__str__", "__hash__", "__iter__", "__getitem__", "__getattr__",
    "__contains__", "__call__", "__index__", "__int__", "__array__", "__sizeof__", "__format__", "__reduce__",
)  # fmt: skip


def _with_properties() -> type:
    names = ("__class__", "shape", "dtype", "nbytes", "base", "numpy", "variables", "weights", "batch_size", "__dict__")
    return type("Properties", (), {name: property(_refuse(name)) for name in names})


class Meta(type):
    """A class that does not answer either."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__name__", "__qualname__"):
            raise AskedError(name)
        return super().__getattribute__(name)

    def __hash__(cls) -> int:
        raise AskedError("hash of a class")

    def __eq__(cls, other: object) -> bool:
        raise AskedError("eq of a class")

    def __instancecheck__(cls, instance: Any) -> bool:
        raise AskedError("instancecheck")

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise AskedError("subclasscheck")


def dead_proxy() -> Any:
    """A ``weakref.proxy`` whose object is gone."""

    class Gone:
        pass

    gone = Gone()
    return weakref.proxy(gone)


def an_array() -> Any:
    """An array whose own class lies about everything."""
    import numpy as np

    names = ("shape", "nbytes", "base", "dtype", "size", "ndim", "__class__")
    kind = type("Lying", (np.ndarray,), {name: property(_refuse(name)) for name in names})
    return np.zeros((10, 2), "float32").view(kind)


def containers() -> dict[str, Any]:
    """Lists and dicts of a class of their own, and some that hold themselves."""
    hidden = {name: _refuse(name) for name in ("__len__", "__iter__", "__getitem__", "items", "values", "keys", "get")}
    own_list, own_dict = type("OwnList", (list,), hidden), type("OwnDict", (dict,), hidden)
    own_tuple = type("OwnTuple", (tuple,), {**hidden, "_fields": ("a", "b")})
    loop: list[Any] = []
    loop += [loop, loop]
    ring: dict[str, Any] = {}
    ring["ring"] = ring
    deep: Any = []
    for _ in range(5000):
        deep = [deep, deep]
    return {
        "own_list": own_list([1, 2]), "own_dict": own_dict(a=1), "own_tuple": own_tuple((1, 2)), "loop": loop,
        "ring": ring, "deep": deep, "huge_key": {10**5000: 1, "k" * 10**6: 2, ("t",) * 10**5: 3}, "huge": 10**5000,
        "surrogate": "\ud800", "nan": float("nan"), "keys": {None: 1, b"x": 2, frozenset({1}): 3},
    }  # fmt: skip


def zoo() -> dict[str, Any]:
    """Everything, by name."""
    found: dict[str, Any] = {"nasty": Nasty(), "properties": _with_properties()()}
    for name in SPECIAL:
        found[f"no{name.strip('_')}"] = type("No" + name.strip("_"), (), {name: _refuse(name)})()
    found |= {"meta": Meta("Odd", (), {})(), "meta_class": Meta("Odd", (), {}), "dead": dead_proxy()}
    return {**found, "array": an_array(), **containers()}
