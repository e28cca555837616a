"""What tracing a model's step changes in Python, put back: attributes, globals, counters, random states."""

from __future__ import annotations

import functools
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType
from typing import Any

from tf_mem_magic.facts.names import stored
from tf_mem_magic.trace.reached import (
    MISSING,
    Names,
    of_cell,
    of_class,
    of_function,
    put_cell_back,
    put_class_back,
    put_names_back,
    users_classes,
)

MOST_OBJECTS = 500_000
"""Objects that are looked at; a model with more is not traced."""

MOST_ENTRIES = 5_000_000
"""Entries of lists, dicts and sets that are looked at: a model may hold its data."""

_FUNCTIONS = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
"""Where the class of what ``tf.function`` makes stands; each remembers whether its first call made variables."""

_KERAS = ("keras", "tf_keras", "keras_hub", "keras_cv", "keras_nlp")


_WRAPPERS = ("_DictWrapper", "_TupleWrapper")
"""TensorFlow's own classes around containers that it tracks."""

_PLAIN = (dict, list, set, tuple, frozenset)


class TooManyError(Exception):
    """The model holds more objects than are looked at, so that it could not be put back as it was."""


@contextmanager
def untouched(*roots: Any) -> Iterator[None]:
    """Put back afterwards what a trace sets in Python: whatever happened, also after an error.

    Parameters
    ----------
    *roots : object
        Models, and what they are trained with. All objects of Keras and of the user's own classes that they hold, and
        the lists, dicts and sets between them, get the attributes and entries back that they had; so do the classes
        themselves, and what their functions name outside: globals, variables of enclosing functions, defaults. Values
        of variables are not copied: a trace does not change them. No attribute or entry that was there is missing
        meanwhile: other threads may be reading it.

    Raises
    ------
    TooManyError
        If there are too many objects to remember; nothing was begun then.
    """
    held = _remember([*roots, *_global_states()])
    random_states = _random_states()
    try:
        yield
    finally:
        try:
            _put_all_back(held, random_states)
        except KeyboardInterrupt:  # whoever waits for a plan presses Stop more than once
            _put_all_back(held, random_states)
            raise


def _remember(roots: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    entries = 0
    ahead = list(roots)
    while ahead:
        one = ahead.pop()
        if id(one) in seen:
            continue
        known = _inside(one)
        if known is None:
            continue
        held, inside = known
        seen.add(id(one))
        entries += len(inside)
        if len(seen) > MOST_OBJECTS or entries > MOST_ENTRIES:
            raise TooManyError("the model and what its code reads hold more objects than can be put back as they were")
        # Everything that was seen is held here, so that no other object takes its identity meanwhile.
        found += [(one, None), *held]
        ahead += inside
    return found


def _inside(one: Any) -> tuple[list[tuple[Any, Any]], list[Any]] | None:
    """Give what is to be put back of an object, and what else is in it; None: it is not looked into."""
    kind = type(one)
    inside: list[Any]
    before: Any = MISSING
    if issubclass(kind, dict):
        before = dict(_items(one))
        inside = [*before, *before.values()]
    elif issubclass(kind, list):
        before = list(list.__iter__(one))
        inside = list(before)
    elif issubclass(kind, set):
        before = set(set.__iter__(one))
        inside = list(before)
    elif issubclass(kind, deque):
        before = list(deque.__iter__(one))
        inside = list(before)
    elif issubclass(kind, (tuple, frozenset)):
        inside = list(one)
    elif kind is FunctionType:
        names, inside = of_function(one)
        return list(names), inside
    elif kind is MethodType:
        return [], [one.__self__, one.__func__]
    elif kind is CellType:
        before = of_cell(one)
        return [(one, before)], [] if before is MISSING else [before]
    elif issubclass(kind, type):
        if one not in users_classes(one):
            return None
        attributes, inside = of_class(one)
        return [(one, attributes)], [*inside, *users_classes(one)]
    elif issubclass(kind, functools.partial):
        inside = [one.func, one.args, one.keywords]
    elif kind.__name__ in _WRAPPERS and kind.__module__.startswith("tensorflow."):
        inside = [one.__wrapped__]
    elif _is_kept(kind):
        inside = list(users_classes(kind))
    else:
        return None
    # Lists that TensorFlow tracks keep what is in them a second time.
    inside += [stored(one)] if kind not in _PLAIN else []
    return [] if before is MISSING else [(one, before)], inside


def _is_kept(kind: type) -> bool:
    """Whether objects of a class are part of a model: Keras's, or of a class of the user's own."""
    if _is_function(kind) or issubclass(kind, weakref.WeakKeyDictionary):
        return True
    return any(base.__module__.partition(".")[0] in _KERAS for base in kind.__mro__) or bool(users_classes(kind))


def _is_function(kind: type) -> bool:
    return kind.__name__ == "Function" and kind.__module__ == _FUNCTIONS


def _put_all_back(held: list[tuple[Any, Any]], random_states: list[tuple[Any, Any]]) -> None:
    for one, before in held:
        _put_back(one, before)
    for put_back, state in random_states:
        put_back(state)


def _put_back(one: Any, before: Any) -> None:
    if before is None:
        return
    if isinstance(before, Names):
        put_names_back(one, before)
    elif isinstance(one, CellType):
        put_cell_back(one, before)
    elif isinstance(one, type):
        put_class_back(one, before)
    elif isinstance(before, dict):
        _put_entries_back(one, before)
    elif isinstance(one, deque):
        _put_queue_back(one, before)
    elif isinstance(before, list):
        if len(one) != len(before) or any(a is not b for a, b in zip(list.__iter__(one), before)):
            list.__setitem__(one, slice(None), before)
    elif isinstance(before, set) and set(set.__iter__(one)) != before:
        set.update(one, before)
        set.intersection_update(one, before)


def _put_entries_back(one: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Give a dict the entries that it had, in their order; none of them is missing for another thread meanwhile."""

    def same() -> bool:
        return len(one) == len(before) and all(k is o and v is w for (k, v), (o, w) in zip(_items(one), before.items()))

    if same():
        return
    plain = OrderedDict if isinstance(one, OrderedDict) else dict
    for key in [key for key, _ in _items(one) if key not in before]:
        plain.pop(one, key, None)
    plain.update(one, before)
    if same():
        return
    if isinstance(one, OrderedDict):
        for key in before:
            OrderedDict.move_to_end(one, key)
    else:
        # Taken out and put in again by one call that runs no Python code between, during which no thread takes over.
        keys = list(before)
        deque(
            map(functools.partial(dict.__setitem__, one), keys, map(functools.partial(dict.pop, one), keys)), maxlen=0
        )


def _put_queue_back(one: deque[Any], before: list[Any]) -> None:
    same = 0
    for a, b in zip(list(deque.__iter__(one)), before):
        if a is not b:
            break
        same += 1
    if same == len(one) == len(before):
        return
    if one.maxlen is not None and same < len(before):
        # What it has lost on the left does not come back without the rest.
        deque.extend(one, before)
        return
    for _ in range(len(one) - same):
        deque.pop(one)
    deque.extend(one, before[same:])


def _items(one: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """List the entries; an ordered dict keeps its order beside them."""
    return OrderedDict.items(one) if isinstance(one, OrderedDict) else dict.items(one)


def _global_states() -> list[dict[str, Any]]:
    """Give what Keras keeps for the whole process: the counters from which it makes names, scopes that are open."""
    module = sys.modules.get("keras.src.backend.common.global_state")
    tracker = getattr(module, "GLOBAL_STATE_TRACKER", None)
    settings = getattr(module, "GLOBAL_SETTINGS_TRACKER", None)
    return [vars(one) for one in (tracker, settings) if one is not None]


def _random_states() -> list[tuple[Any, Any]]:
    """Give the states of the generators that Python code draws from, each with what puts it back."""
    found: list[tuple[Any, Any]] = []
    python = sys.modules.get("random")
    if python is not None:
        found.append((python.setstate, python.getstate()))
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        found.append((numpy.set_state, numpy.get_state()))
    context = sys.modules.get("tensorflow.python.eager.context")
    seeds = getattr(context.context(), "_rng", None) if context is not None else None
    if seeds is not None:
        found.append((seeds.setstate, seeds.getstate()))
    return found
