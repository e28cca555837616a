"""The graph that was running when an error arose, found by the name that the error tells."""

from __future__ import annotations

import gc
import re
import sys
from typing import Any

_RAN = re.compile(r"\[Op:(__(?:inference|forward|backward)_\w+)\]")


def function_named_in(message: str) -> str | None:
    """Give the name of the function that an error's text says was running; None: it ran operation by operation."""
    found = _RAN.search(message)
    return found[1] if found else None


def find_graph(name: str) -> Any:
    """Find the graph of a function by TensorFlow's name of it; None where nothing holds it any more."""
    kind = getattr(
        sys.modules.get("tensorflow.python.eager.polymorphic_function.atomic_function"), "AtomicFunction", None
    )
    if not isinstance(kind, type):
        return None
    for value in gc.get_objects():
        if type(value) is kind and _name(value) == name:
            return getattr(value, "graph", None)
    return None


def _name(function: Any) -> str:
    name = getattr(function, "name", b"")
    return name.decode() if isinstance(name, bytes) else str(name)
