"""Which names of the notebook a cell uses without writing them: those that the functions it names read."""

from __future__ import annotations

import ast
import dis
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from tf_mem_magic.facts.kinds import is_a, is_exactly
from tf_mem_magic.facts.names import stored

_WORD = re.compile(r"[^\W\d]\w*")
_MOST_ENTRIES = 64
_MOST_WRAPPERS = 16
_MOST_HELD = 5000
"""Objects that are looked at behind one name."""

_MOST_PARTS = 512
_KERAS = ("keras", "tf_keras")
_NO_CODE = frozenset({"Variable", "KerasVariable", "KerasTensor", "Node", "Tracker", "DTypePolicy", "SeedGenerator"})
"""Objects of Keras, by class, behind which is no code of the notebook."""


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
    held = list(_held(value))
    yield from (one.__code__ for one in held if type(one) is FunctionType)
    own = value if is_a(value, type) else type(value)
    owners = dict.fromkeys((own, *(type(one) for one in held if type(one) is not FunctionType)))
    for owner in owners:
        if _module(owner) != "__main__":
            continue
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


def _held(value: Any) -> Iterator[Any]:
    """Yield the notebook's functions, and objects of its classes, that an object or a container holds.

    A model holds its layers, its loss and its metrics, and they hold others; what else a library holds is followed one
    step far (a callback).
    """
    if is_a(value, (type, ModuleType, FunctionType)):
        return
    seen: set[int] = {id(value)}
    ahead: deque[tuple[Any, bool]] = deque([(value, True)])
    while ahead and len(seen) < _MOST_HELD:
        holder, is_first = ahead.popleft()
        for one in _parts(holder, is_first):
            if id(one) in seen:
                continue
            seen.add(id(one))
            if _module(one if type(one) is FunctionType else type(one)) == "__main__":
                yield one
            ahead.append((one, False))


def _parts(holder: Any, is_first: bool) -> Iterable[Any]:
    """List what an object holds: the entries of a container, the attributes of an object that may hold code."""
    if is_a(holder, dict):
        return list(islice(dict.values(holder), _MOST_PARTS))
    if is_a(holder, list) or is_exactly(holder, tuple):
        kind = list if is_a(holder, list) else tuple
        return list(islice(kind.__iter__(holder), _MOST_ENTRIES if is_first else _MOST_PARTS))
    owner = type(holder)
    if is_a(holder, (type, ModuleType, FunctionType)) or owner.__name__ in _NO_CODE:
        return ()
    followed = is_first or _module(owner).partition(".")[0] in ("__main__", *_KERAS)
    return list(islice(stored(holder).values(), _MOST_PARTS)) if followed else ()


def _module(value: type | FunctionType) -> str:
    found = value.__module__
    return found if type(found) is str else ""


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
