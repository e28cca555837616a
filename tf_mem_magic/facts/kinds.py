"""What kind of thing a live object is, told by its type alone: no code of the object, nor of its class, is run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

Place = tuple[str, str]
"""A module and the name of a class in it; only modules that are imported already are looked at."""


def is_a(value: Any, classes: type | tuple[type, ...]) -> bool:
    """Whether the type of ``value`` is one of ``classes`` or derived from one.

    ``isinstance`` asks the object's ``__class__`` as well, which may raise or never return: a dead ``weakref.proxy``
    raises, a lazy module or a mock computes.
    """
    try:
        return issubclass(type(value), classes)
    except Exception:  # a metaclass answers, and its answer is no
        return False


def is_exactly(value: Any, *classes: type) -> bool:
    """Whether the type of ``value`` is one of ``classes`` itself; a metaclass may answer for what equals its class."""
    kind = type(value)
    for one in classes:  # noqa: SIM110 - called for every name: any() would make it cost three times as much
        if kind is one:
            return True
    return False


def classes_of(*places: Place) -> tuple[type, ...]:
    """Give those of the classes that exist, without importing anything."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in places)
    return tuple(one for one in found if isinstance(one, type))


def one_of_each_type(values: Sequence[Any]) -> dict[int, Any]:
    """Give one object of each type among ``values``, by the identity of the type; without a call for each."""
    return dict(zip(map(id, map(type, values)), values))


class Kinds:
    """Sorts objects by their types: each type is asked once, however many objects there are.

    Parameters
    ----------
    places : iterable of (Place, str)
        Where a class is found, and what its objects are called; the first that fits wins.
    """

    def __init__(self, places: Iterable[tuple[Place, str]]) -> None:
        self._classes = [(cls, kind) for place, kind in places for cls in classes_of(place)]
        # By identity: a metaclass may refuse to be hashed. The types are kept so that no other takes the place of one.
        self._known: dict[int, tuple[type, str | None]] = {}

    def __bool__(self) -> bool:
        """Whether any object can be of a kind: its class exists."""
        return bool(self._classes)

    def of(self, value: Any) -> str | None:
        """Give the kind of an object; None: it is of none."""
        if not self._classes:
            return None
        cls = type(value)
        known = self._known.get(id(cls))
        if known is None:
            known = self._known[id(cls)] = (cls, self._ask(value))
        return known[1]

    def pick(self, pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """List the distinct objects among named values that are of a kind, each under the first name that holds it."""
        if not self._classes:
            return []
        pairs = list(pairs)
        wanted = {key for key, value in one_of_each_type([v for _, v in pairs]).items() if self.of(value) is not None}
        found: dict[int, tuple[str, Any]] = {}
        for name, value in pairs if wanted else ():
            if id(type(value)) in wanted:
                found.setdefault(id(value), (name, value))
        return list(found.values())

    def _ask(self, value: Any) -> str | None:
        return next((kind for cls, kind in self._classes if is_a(value, cls)), None)
