"""Which names of the notebook a cell uses without writing them: those that the functions it names read."""

from __future__ import annotations

import ast
import dis
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from tf_mem_magic.facts.kinds import is_a, is_exactly
from tf_mem_magic.facts.names import stored

_WORD = re.compile(r"[^\W\d]\w*")
_MOST_ENTRIES = 64
_MOST_WRAPPERS = 16


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


def defined_names(source: str) -> frozenset[str]:
    """Give the names of the functions and classes that ``source`` (plain Python) defines: their text is in it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(s.name for s in tree.body if isinstance(s, kinds))


def used_by_others(source: str, namespace: Mapping[str, Any], known: Collection[str]) -> tuple[str, ...]:
    """List the names that ``source`` reaches through other code than the functions ``known``, in alphabetical order.

    ``source`` holds the text of the ``known`` functions; what is left is code that nobody can see there: methods,
    closures, decorated functions. Only what reads the global counts, not an attribute or a local of that name.
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
            words = {word for word in _globals(code) if word in namespace}
            found |= words
            queue += sorted(words - seen)
    return tuple(sorted(found))


def _codes(value: Any) -> list[CodeType]:
    """List the code of a function, of what decorators such as ``tf.function`` hold, and of a class's methods."""
    try:
        return list(_each_code(value))
    except Exception:  # a class that answers for its attributes
        return []


def _each_code(value: Any) -> Iterator[CodeType]:
    yield from _unwrapped(value)
    yield from (function.__code__ for function in _held(value))
    owner = value if is_a(value, type) else type(value)
    if owner.__module__ == "__main__":
        for member in list(vars(owner).values()):
            if type(member) is FunctionType:
                yield from _unwrapped(member)
            elif not is_a(member, type):
                yield from _wrapped(member)


def _unwrapped(value: Any) -> Iterator[CodeType]:
    """Yield the code of a function and of what it wraps; ``__wrapped__`` may lead in a circle."""
    for _ in range(_MOST_WRAPPERS):
        if type(value) is MethodType:
            value = value.__func__
        if type(value) is FunctionType:
            yield value.__code__
            value = value.__dict__.get("__wrapped__")
        else:
            value = stored(value).get("_python_function") or stored(value).get("__wrapped__")
        if value is None:
            return


def _held(value: Any) -> Iterator[FunctionType]:
    """Yield the notebook's functions that a container, its entries, or an object (a callback) holds."""
    if is_a(value, (type, ModuleType, FunctionType)):
        return
    entries = value.values() if type(value) is dict else value if is_exactly(value, list, tuple) else (value,)
    for entry in list(islice(entries, _MOST_ENTRIES)):
        for one in (entry, *islice(stored(entry).values(), _MOST_ENTRIES)):
            if type(one) is FunctionType and one.__module__ == "__main__":
                yield one


def _wrapped(member: Any) -> Iterator[CodeType]:
    """Yield the code of a static method, a class method, a property's getter or a decorated method."""
    for name in ("__func__", "fget", "_python_function"):
        known = is_exactly(member, staticmethod, classmethod, property)
        held = getattr(member, name, None) if known else None
        held = stored(member).get(name) if held is None else held
        if type(held) is FunctionType:
            yield held.__code__


def _words(code: CodeType) -> Iterator[str]:
    todo = [code]
    while todo:
        one = todo.pop()
        yield from one.co_names
        yield from one.co_freevars
        todo += (constant for constant in one.co_consts if type(constant) is CodeType)


def _globals(code: CodeType) -> Iterator[str]:
    """Yield the global names of a code and of those within it; an attribute or a local of the same name is another."""
    todo = [code]
    while todo:
        one = todo.pop()
        for instruction in dis.get_instructions(one):
            if instruction.opname.endswith(("_GLOBAL", "_NAME", "_GLOBALS")):
                yield str(instruction.argval)
        todo += (constant for constant in one.co_consts if type(constant) is CodeType)
