"""What the user's code can reach while it is traced: globals that functions name, closures, classes' own attributes."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from tf_mem_magic.facts.frames import is_user_file

LIBRARIES = frozenset({"keras", "tf_keras", "tensorflow", "builtins", "numpy"})

MISSING = object()
"""Stands for a name that was not there."""

_SETS_GLOBAL = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_SETS_ATTRIBUTE = frozenset({"STORE_ATTR", "DELETE_ATTR"})


@dataclass(frozen=True, slots=True)
class Names:
    """What some names of a namespace held; :data:`MISSING` where they were not there."""

    held: dict[str, Any]


@lru_cache(maxsize=4096)
def is_users(module: str) -> bool:
    """Whether a module is the notebook itself, or a file of the user's own."""
    if module == "__main__":
        return True
    if module.partition(".")[0] in LIBRARIES:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return isinstance(file, str) and is_user_file(file)


def users_classes(kind: type) -> list[type]:
    """List a class and those that it inherits from, as far as they are the user's own."""
    return [base for base in kind.__mro__ if is_users(str(base.__module__))]


def of_class(base: type) -> tuple[dict[str, Any], list[Any]]:
    """Give the attributes of a user's class itself, and what is in them: functions under their decorators too."""
    held = dict(vars(base))
    inside: list[Any] = []
    for value in held.values():
        if isinstance(value, (staticmethod, classmethod)):
            inside.append(value.__func__)
        elif isinstance(value, property):
            inside += [one for one in (value.fget, value.fset) if one is not None]
        elif not isinstance(value, type) or is_users(str(value.__module__)):
            inside.append(value)
    return held, inside


def of_function(function: FunctionType) -> tuple[list[tuple[dict[str, Any], Names]], list[Any]]:
    """Give the names that a function may set outside itself, with what they hold; and all that it can reach.

    Of a library's function only what it wraps is looked at.
    """
    inside: list[Any] = [*(function.__closure__ or ()), vars(function)]
    inside += [one for one in (function.__defaults__, function.__kwdefaults__) if one]
    if not is_users(function.__module__ or ""):
        return [], inside
    namespace = function.__globals__
    read, set_here, set_there = _names(function.__code__)
    names = [(namespace, _held(namespace, set_here))]
    for name in read:
        value = namespace.get(name, MISSING)
        if isinstance(value, ModuleType):
            if is_users(value.__name__):
                names.append((vars(value), _held(vars(value), set_there)))
                inside += [vars(value)[one] for one in read if one in vars(value)]
        elif value is not MISSING and (not isinstance(value, type) or is_users(str(value.__module__))):
            inside.append(value)
    return [(where, kept) for where, kept in names if kept.held], inside


def of_cell(cell: CellType) -> Any:
    """Give what a variable of an enclosing function holds; :data:`MISSING`: nothing."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def put_cell_back(cell: CellType, before: Any) -> None:
    """Let a variable of an enclosing function hold what it held."""
    now = of_cell(cell)
    if now is before:
        return
    if before is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = before


def put_names_back(namespace: dict[str, Any], names: Names) -> None:
    """Let names hold what they held."""
    for name, value in names.held.items():
        if value is MISSING:
            namespace.pop(name, None)
        elif namespace.get(name, MISSING) is not value:
            namespace[name] = value


def put_class_back(base: type, before: dict[str, Any]) -> None:
    """Give a class the attributes that it had."""
    now = dict(vars(base))
    for name in now.keys() - before.keys():
        type.__delattr__(base, name)
    for name, value in before.items():
        if now.get(name, MISSING) is not value:
            type.__setattr__(base, name, value)


def _held(namespace: dict[str, Any], names: frozenset[str]) -> Names:
    return Names({name: namespace.get(name, MISSING) for name in names})


@lru_cache(maxsize=4096)
def _names(code: CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Give the names that code has, the globals that it sets, and the attributes that it sets."""
    read: set[str] = set()
    sets: dict[bool, set[str]] = {True: set(), False: set()}
    for one in _codes(code):
        read.update(one.co_names)
        for step in dis.get_instructions(one):
            if step.opname in _SETS_GLOBAL or step.opname in _SETS_ATTRIBUTE:
                sets[step.opname in _SETS_GLOBAL].add(str(step.argval))
    return frozenset(read), frozenset(sets[True]), frozenset(sets[False])


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)
