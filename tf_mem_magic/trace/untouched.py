"""What tracing a model's step changes in Python, put back: attributes of Keras's objects, counters, random states."""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tf_mem_magic.facts.names import stored

MOST_OBJECTS = 500_000
"""Objects that are looked at; a model with more is not traced."""

MOST_ENTRIES = 5_000_000
"""Entries of lists, dicts and sets that are looked at: a model may hold its data."""

_FUNCTIONS = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
"""Where the class of what ``tf.function`` makes stands; each remembers whether its first call made variables."""

_LIBRARIES = frozenset({"keras", "tf_keras", "tensorflow", "builtins"})

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
        Models, and what they are trained with. All objects of Keras and of the notebook's own classes that they hold,
        and the lists, dicts and sets between them, get the attributes and entries back that they had. Values of
        variables are not copied: a trace does not change them.

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
        kind = type(one)
        copy: Any = None
        if issubclass(kind, dict):
            copy = dict(_items(one))
            inside = [*copy, *copy.values()]
        elif issubclass(kind, list):
            copy = list(list.__iter__(one))
            inside = list(copy)
        elif issubclass(kind, set):
            copy = set(set.__iter__(one))
            inside = list(copy)
        elif issubclass(kind, deque):
            copy = list(deque.__iter__(one))
            inside = list(copy)
        elif issubclass(kind, (tuple, frozenset)):
            inside = list(one)
        elif _is_kept(kind):
            inside = _functions_of(kind)
        elif kind.__name__ in _WRAPPERS and kind.__module__.startswith("tensorflow."):
            inside = [one.__wrapped__]
        else:
            continue
        # Lists that TensorFlow tracks keep what is in them a second time.
        inside += [stored(one)] if kind not in _PLAIN else []
        seen.add(id(one))
        entries += len(inside)
        if len(seen) > MOST_OBJECTS or entries > MOST_ENTRIES:
            raise TooManyError("the model holds more objects than can be put back as they were")
        # Everything that was seen is held here, so that no other object takes its identity meanwhile.
        found.append((one, copy))
        ahead += inside
    return found


def _is_kept(kind: type) -> bool:
    """Whether objects of a class are part of a model: Keras's, or of a class that stands in the notebook."""
    if _is_function(kind) or issubclass(kind, weakref.WeakKeyDictionary):
        return True
    return any(base.__module__.partition(".")[0] in (*_KERAS, "__main__") for base in kind.__mro__)


def _is_function(kind: type) -> bool:
    return kind.__name__ == "Function" and kind.__module__ == _FUNCTIONS


def _functions_of(kind: type) -> list[Any]:
    """List the methods under ``tf.function`` of a class of the user's own."""
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in _LIBRARIES]
    return [value for base in own for value in list(vars(base).values()) if _is_function(type(value))]


def _put_all_back(held: list[tuple[Any, Any]], random_states: list[tuple[Any, Any]]) -> None:
    for one, before in held:
        _put_back(one, before)
    for put_back, state in random_states:
        put_back(state)


def _put_back(one: Any, before: Any) -> None:
    if isinstance(before, dict):
        same = len(one) == len(before) and all(k is o and v is w for (k, v), (o, w) in zip(_items(one), before.items()))
        if not same:
            plain = OrderedDict if isinstance(one, OrderedDict) else dict
            plain.clear(one)
            plain.update(one, before)
    elif isinstance(one, deque):
        if len(one) != len(before) or any(a is not b for a, b in zip(deque.__iter__(one), before)):
            deque.clear(one)
            deque.extend(one, before)
    elif isinstance(before, list):
        if len(one) != len(before) or any(a is not b for a, b in zip(list.__iter__(one), before)):
            list.__setitem__(one, slice(None), before)
    elif isinstance(before, set) and set(set.__iter__(one)) != before:
        set.clear(one)
        set.update(one, before)


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
