"""What of a frozen value can be written to a file: the rest is left out and named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import lru_cache
from math import isfinite
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

LONGEST_TEXT = 4 << 20
"""Characters of a text that are kept."""

_LARGEST = 1 << 63


class _LostError(Exception):
    """A value that cannot be written, nor what it is a part of without it."""


def writable(value: Any) -> tuple[Any, tuple[str, ...]]:
    """Give what of a frozen dataclass can be written, and what was left out or cut, by the names of its fields.

    A field falls back to its default; an entry of a tuple that cannot be written, or has no default for what it lacks,
    goes whole. Where nothing can be left out the value is given as it is.
    """
    lost: list[str] = []
    try:
        kept = _kept(value, Any, "", lost)
    except _LostError:
        return value, ()
    return kept, tuple(dict.fromkeys(lost))


def _kept(value: Any, hint: Any, place: str, lost: list[str]) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value, place, lost)
    if value is None or kind is bool:
        return value
    if kind is int or kind is float:
        return _number(value, place, lost)
    if kind is tuple or kind is list:
        return _entries(value, hint, place, lost)
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value, place, lost)
    lost.append(place)
    raise _LostError


def _text(value: str, place: str, lost: list[str]) -> str:
    if len(value) > LONGEST_TEXT:
        lost.append(f"the end of {place}")
        value = value[:LONGEST_TEXT] + "…"
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        lost.append(f"characters of {place}")
        return value.encode("utf-8", "replace").decode()
    return value


def _number(value: float, place: str, lost: list[str]) -> float:
    if isfinite(value) if type(value) is float else -_LARGEST <= value < _LARGEST:
        return value
    lost.append(place)
    raise _LostError


def _entries(values: Any, hint: Any, place: str, lost: list[str]) -> Any:
    if _are_plain_numbers(values):
        return values
    inner = _entry_hint(hint)
    if inner is None:
        # A pair, or any other tuple whose entries have their places: nothing of it can be missing.
        return tuple(_kept(one, Any, place, lost) for one in values)
    kept, is_same = [], True
    for one in values:
        try:
            new = _kept(one, inner, place, lost)
        except _LostError:
            if type(one) is int or type(one) is float:
                raise  # one of a series, whose other half would be longer
            is_same = False
            continue
        is_same = is_same and new is one
        kept.append(new)
    return values if is_same else tuple(kept)


def _are_plain_numbers(values: Any) -> bool:
    kinds = set(map(type, values))
    if kinds == {int}:
        return bool(min(values) >= -_LARGEST and max(values) < _LARGEST)
    return kinds == {float} and all(map(isfinite, values))


def _fields(value: Any, place: str, lost: list[str]) -> Any:
    kind: Any = type(value)
    hints, news = _hints(kind), {}
    for field in fields(value):
        old = getattr(value, field.name)
        inside = f"{place}.{field.name}" if place else field.name
        try:
            new = _kept(old, hints.get(field.name, Any), inside, lost)
        except _LostError:
            if type(old) is tuple:
                raise
            new = field.default if field.default_factory is MISSING else field.default_factory()
            if new is MISSING:
                raise
        if new is not old:
            news[field.name] = new
    return replace(value, **news) if news else value


@lru_cache(maxsize=256)
def _hints(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except Exception:  # a name that only the type checker imports
        return {}


def _entry_hint(hint: Any) -> Any:
    """Give the hint of the entries of a tuple of any length; None where each entry has its place."""
    for one in _alternatives(hint):
        arguments = get_args(one)
        if get_origin(one) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return arguments[0]
    return None


def _alternatives(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        yield from get_args(hint)
    else:
        yield hint
