"""What grew while a cell ran: lists and dicts of tensors, and functions that ``tf.function`` traced again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from tf_mem_magic.core.facts import GrownFacts, TracedFacts
from tf_mem_magic.facts.kinds import Kinds, is_exactly, one_of_each_type
from tf_mem_magic.facts.models import array_bytes, variable_device
from tf_mem_magic.facts.names import stored
from tf_mem_magic.facts.values import ARRAYS

_LEAST = 2
"""Tensors by which a container must have grown: one more is a result that was kept."""

_MOST_ENTRIES = 10_000
_MOST_CONTAINERS = 200
_FUNCTIONS = (
    (("tensorflow.python.eager.polymorphic_function.polymorphic_function", "Function"), "tf.function"),
    (("tensorflow.python.eager.def_function", "Function"), "tf.function"),
)
_CONTAINERS = frozenset(map(id, (list, dict, deque)))


def find_grown(pairs: Iterable[tuple[str, Any]], before: Mapping[str, tuple[int, int]]) -> tuple[GrownFacts, ...]:
    """Describe the containers that hold more arrays or tensors than when the cell began, the most bytes first.

    ``before`` maps a name to the identity and the length of what it held; a container that the cell made held nothing.
    Their entries are taken to be added at the end, as ``append`` and a new key do.
    """
    kinds, found, seen = Kinds(ARRAYS), [], set[int]()
    for name, value in pairs:
        if id(type(value)) not in _CONTAINERS or id(value) in seen:
            continue
        seen.add(id(value))
        identity, length = before.get(name, (0, 0))
        count = max(length, 0) if identity == id(value) else 0
        if len(value) - count < _LEAST:
            continue
        inner = _inner(value, count)
        grown = _describe(name, value, count, kinds, inner)
        if grown is not None:
            found.append(grown)
            seen.update(map(id, inner))  # what is in it is told by it
            if len(found) == _MOST_CONTAINERS:
                break
    return tuple(sorted(found, key=lambda one: -one.bytes))


def length_of(value: Any) -> int:
    """Give the length of a container that is a plain one; -1 for everything else."""
    return len(value) if is_exactly(value, list, dict, tuple, deque) else -1


def _entries(value: Any, first: int = 0) -> list[Any]:
    """List the entries of a plain container from the place ``first`` on; empty where another thread fills it."""
    try:
        return list(islice(value.values() if type(value) is dict else value, first, first + _MOST_ENTRIES))
    except Exception:
        return []


def _inner(value: Any, count: int) -> list[Any]:
    """List the plain containers among the new entries: the gradients of one step, say."""
    return [one for one in _entries(value, count) if is_exactly(one, list, dict, tuple, deque)]


def _describe(name: str, value: Any, count: int, kinds: Kinds, inner: list[Any]) -> GrownFacts | None:
    held = _entries(value, count)
    for one in inner:
        if len(held) < _MOST_ENTRIES:
            held += _entries(one)
    wanted = {key for key, one in one_of_each_type(held).items() if kinds.of(one) is not None}
    tensors = [one for one in held if id(type(one)) in wanted] if wanted else []
    if len(tensors) < _LEAST:
        return None
    distinct = {id(one): one for one in tensors}.values()
    return GrownFacts(
        name=name,
        before=count,
        after=len(value),
        bytes=sum(map(array_bytes, distinct)),
        kind=kinds.of(tensors[-1]) or "",
        device=variable_device(tensors[-1]),
    )


def count_traces(pairs: Iterable[tuple[str, Any]]) -> dict[int, int]:
    """Count how often each ``tf.function`` that a name reaches was traced, by its identity."""
    return {id(function): count for _, function, count in _traced(pairs)}


def find_traced(pairs: Iterable[tuple[str, Any]], before: Mapping[int, int]) -> tuple[TracedFacts, ...]:
    """Describe the functions that were traced while the cell ran, the most often traced first."""
    found = [TracedFacts(name, before.get(id(one), 0), count) for name, one, count in _traced(pairs)]
    grown = [one for one in found if one.after > one.before]
    return tuple(sorted(grown, key=lambda one: one.before - one.after))


def _traced(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any, int]]:
    kinds, found = Kinds(_FUNCTIONS), []
    if not kinds:
        return []
    pairs = list(pairs)
    for name, function in kinds.pick([*pairs, *_methods(pairs, kinds)]):
        try:
            count = int(function.experimental_get_tracing_count())
        except Exception:
            continue
        found.append((name, function, count))
    return found


def _methods(pairs: list[tuple[str, Any]], kinds: Kinds) -> list[tuple[str, Any]]:
    """List the methods under ``tf.function`` of the user's own objects: TensorFlow keeps one for each object."""
    shown = one_of_each_type([value for _, value in pairs])
    methods = {key: found for key, value in shown.items() if (found := _staged_methods(type(value), kinds))}
    found = list[tuple[str, Any]]()
    for name, value in pairs if methods else ():
        for method, function in methods.get(id(type(value)), ()):
            try:
                one = stored(function)["_descriptor_cache"].get(value)
            except Exception:  # an object that cannot be hashed
                continue
            found += [(f"{name}.{method}", one)] if one is not None else []
    return found


def _staged_methods(cls: type, kinds: Kinds) -> list[tuple[str, Any]]:
    """List the functions under ``tf.function`` in the body of a class of the notebook's own."""
    try:
        if cls.__module__ != "__main__":
            return []
        return [(name, one) for name, one in list(vars(cls).items()) if kinds.of(one) is not None]
    except Exception:  # a class that answers for its attributes
        return []
