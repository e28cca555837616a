"""Which names of the notebook a cell uses without writing them: those that the functions it names read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_WORD = re.compile(r"[^\W\d]\w*")
_MOST_ENTRIES = 64


def used_names(source: str, namespace: Mapping[str, Any]) -> tuple[str, ...]:
    """List the names that ``source`` reaches through the notebook's functions and classes, in alphabetical order.

    A name counts where a function's code reads a global or a closure of that name, or an attribute: one too many
    does no harm, because it is only ever taken for something in use.
    """
    written = {word for word in _WORD.findall(source) if word in namespace}
    found: set[str] = set()
    queue = sorted(written)
    while queue:
        for code in _codes(namespace[queue.pop()]):
            news = {word for word in _words(code) if word in namespace} - found - written
            found |= news
            queue += sorted(news)
    return tuple(sorted(found))


def used_by_others(source: str, namespace: Mapping[str, Any], known: Collection[str]) -> tuple[str, ...]:
    """List the names that ``source`` reaches through other code than the functions ``known``, in alphabetical order.

    ``source`` holds the text of the ``known`` functions; what is left is code that nobody can see there: methods,
    closures, decorated functions.
    """
    found: set[str] = set()
    seen = set(known)
    queue = sorted({word for word in _WORD.findall(source) if word in namespace} - seen)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        for code in _codes(namespace[name]):
            words = {word for word in _words(code) if word in namespace}
            found |= words
            queue += sorted(words - seen)
    return tuple(sorted(found))


def _codes(value: Any) -> Iterator[CodeType]:
    """Yield the code of a function, of what decorators such as ``tf.function`` hold, and of a class's methods."""
    if isinstance(value, MethodType):
        value = value.__func__
    if isinstance(value, FunctionType):
        yield value.__code__
        inner = value.__dict__.get("__wrapped__")
    else:
        inner = _field(value, "_python_function") or _field(value, "__wrapped__")
    if inner is not None and inner is not value:
        yield from _codes(inner)
    yield from (function.__code__ for function in _held(value))
    owner = value if isinstance(value, type) else type(value)
    if owner.__module__ == "__main__":
        for member in list(vars(owner).values()):
            if not isinstance(member, type):
                yield from _codes(member) if isinstance(member, FunctionType) else _wrapped(member)


def _held(value: Any) -> Iterator[FunctionType]:
    """Yield the notebook's functions that a container, its entries, or an object (a callback) holds."""
    if isinstance(value, (type, ModuleType, FunctionType)):
        return
    entries = value.values() if type(value) is dict else value if type(value) in (list, tuple) else (value,)
    for entry in list(islice(entries, _MOST_ENTRIES)):
        try:
            fields = object.__getattribute__(entry, "__dict__").values()
        except AttributeError:
            fields = ()
        for one in (entry, *islice(fields, _MOST_ENTRIES)):
            if isinstance(one, FunctionType) and one.__module__ == "__main__":
                yield one


def _wrapped(member: Any) -> Iterator[CodeType]:
    """Yield the code of a static method, a class method, a property's getter or a decorated method."""
    for name in ("__func__", "fget", "_python_function"):
        held = getattr(member, name, None) if isinstance(member, (staticmethod, classmethod, property)) else None
        held = held or _field(member, name)
        if isinstance(held, FunctionType):
            yield held.__code__


def _field(value: Any, name: str) -> Any:
    """Read what an object itself stores, without running any of its code."""
    try:
        return object.__getattribute__(value, "__dict__").get(name)
    except AttributeError:
        return None


def _words(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
