"""``%tfmem free``: let go of what a person names."""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from tf_mem_magic.facts.kinds import is_a
from tf_mem_magic.facts.names import own_names, reachable
from tf_mem_magic.release.counted import bytes_in_use, collect, gained, listed, words
from tf_mem_magic.release.errors import forget_error
from tf_mem_magic.release.release import SMALL, forget_results

_RESULT = re.compile(r"Out\[(\d+)\]|_(\d+)")


def free(shell: Any, names: Iterable[str]) -> str:
    """Let go of what ``names`` hold, other names and ``Out`` entries for the same objects included.

    A Keras model that something else still refers to is emptied: its variables and its optimizer's give their
    memory back, and it cannot be used any more.

    Returns
    -------
    str
        One sentence for the user: what was let go and the bytes that came back as the allocator counts them.
    """
    wanted = tuple(dict.fromkeys(names))
    found = _find(shell, wanted)
    missing = [_why_missing(shell, name) for name in wanted if name not in found]
    if not found:
        return " ".join(missing) or "Name what to let go of: %tfmem free NAME."
    counted = bytes_in_use()
    aliases = _let_go(shell, found)
    trained = {name: _Trained(value) for name, value in found.items() if _is_keras(value)}
    freed = tuple(found)
    found.clear()
    forget_error(shell)
    collect()
    others = [value for _, value in reachable(shell.user_ns)]
    emptied = tuple(name for name, one in trained.items() if one.empty(others))
    others.clear()
    trained.clear()
    collect()
    return " ".join([_say(freed, aliases, counted, emptied), *missing])


class _Trained:
    """A model, layer or optimizer that was let go: known weakly, so that it can be seen to die."""

    def __init__(self, value: Any) -> None:
        self._value = weakref.ref(value)

    def empty(self, others: Iterable[Any]) -> bool:
        """Give back the memory of its variables where something still refers to it; tell whether that was needed.

        What another model or layer of the notebook shares keeps its values.
        """
        value = self._value()
        if value is None:
            return False
        kept = {id(v) for other in others if other is not value and _is_keras(other) for v in _variables(other)}
        mine = [v for v in _variables(value) if id(v) not in kept]
        for variable in mine:
            _empty_variable(variable)
        return bool(mine)


def _empty_variable(variable: Any) -> None:
    """Assign an empty tensor: the only thing that gives a variable's memory back while something refers to it."""
    tf = sys.modules["tensorflow"]
    handle = variable.handle
    with tf.device(handle.device):
        nothing = tf.zeros((0,), variable.dtype)
    tf.raw_ops.AssignVariableOp(resource=handle, value=nothing, validate_shape=False)


def _variables(value: Any) -> Iterator[Any]:
    """Yield the TensorFlow variables of a Keras object and of its optimizer."""
    try:
        owners = (value, getattr(value, "optimizer", None))
        held = [variable for owner in owners for variable in getattr(owner, "variables", None) or ()]
    except Exception:  # a class with attributes of its own making
        return
    for variable in held:
        inner = getattr(variable, "_value", variable)
        if hasattr(inner, "handle"):
            yield inner


def _is_keras(value: Any) -> bool:
    return any(
        base.__name__ in ("Layer", "Optimizer", "BaseOptimizer")
        and base.__module__.partition(".")[0] in ("keras", "tf_keras")
        for base in type(value).__mro__
    )


_NOTHING = object()


def _look_up(shell: Any, name: str) -> Any:
    result = _RESULT.fullmatch(name)
    if result:
        return shell.user_ns.get("Out", {}).get(int(result[1] or result[2]), _NOTHING)
    return dict(own_names(shell.user_ns)).get(name, _NOTHING)


def _find(shell: Any, names: tuple[str, ...]) -> dict[str, Any]:
    looked_up = {name: _look_up(shell, name) for name in names}
    return {name: value for name, value in looked_up.items() if value is not _NOTHING}


def _why_missing(shell: Any, name: str) -> str:
    if name in shell.user_ns and not name.startswith("_"):
        return f"`{name}` belongs to IPython and stays."
    holder = re.match(r"(\w+)[.\[]", name)
    if holder and holder[1] in shell.user_ns and holder[1] != "Out":
        return f"`{name}` is a part of `{holder[1]}`: free that, or delete the part yourself."
    return f"There is no `{name}` in this notebook."


def _let_go(shell: Any, found: dict[str, Any]) -> tuple[str, ...]:
    """Unbind the names, every other name of the same objects, and IPython's own; give those other names."""
    ids = {id(value) for value in found.values() if not is_a(value, SMALL)}
    same = [name for name, value in own_names(shell.user_ns) if name in found or id(value) in ids]
    for name in same:
        del shell.user_ns[name]
        shell.user_ns_hidden.pop(name, None)
    forget_results(shell, list(found.values()))
    return tuple(name for name in same if name not in found)


def _say(names: tuple[str, ...], aliases: tuple[str, ...], counted: Any, emptied: tuple[str, ...]) -> str:
    after = bytes_in_use()
    also = f" (and {listed(aliases)}, the same object)" if aliases else ""
    text = f"Let go of {listed(names)}{also}"
    back = words(gained(counted, after))
    if back:
        text += f": {back}."
    elif counted:
        text += ": nothing came back, so something else still holds the memory or it held none on a device."
    else:
        text += "; TensorFlow's allocator tells no figures here."
    if not emptied:
        return text
    was = "it was" if len(emptied) == 1 else "they were"
    return f"{text} Something still refers to {listed(emptied)}, so {was} emptied and cannot be used any more."
