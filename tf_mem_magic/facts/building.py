"""Which weight a layer of Keras is making, read from a running stack: the error itself may leave these frames out."""

from __future__ import annotations

import os
from types import FrameType
from typing import Any

from tf_mem_magic.core.facts import BuildingFacts
from tf_mem_magic.facts.kinds import is_exactly
from tf_mem_magic.facts.names import stored

_LAYER = os.path.join("keras", "src", "layers", "layer.py")
_VARIABLES = tuple(
    os.path.join("keras", "src", "backend", *parts) for parts in (("tensorflow", "core.py"), ("common", "variables.py"))
)
_MAKES = "add_weight"
_MAKES_LATER = "_deferred_initialize"
"""A model that is built while its step is traced gets its weights' values after that, without its layers' frames."""

_WANTED = ("self", "shape", "name", "dtype")
_MOST_FRAMES = 400


def observe_building(frame: FrameType | None) -> BuildingFacts | None:
    """Read which weight is being made on a stack whose innermost frame is ``frame``; None where none is. Never raises.

    Works from another thread (pass ``sys._current_frames()[thread_id]``).
    """
    try:
        for _ in range(_MOST_FRAMES):
            if frame is None:
                return None
            if frame.f_code.co_name == _MAKES and frame.f_code.co_filename.endswith(_LAYER):
                return _described(frame)
            if frame.f_code.co_name == _MAKES_LATER and frame.f_code.co_filename.endswith(_VARIABLES):
                return _of_a_variable(frame)
            frame = frame.f_back
    except Exception:  # the stack moves on while it is read
        return None
    return None


def _described(frame: FrameType) -> BuildingFacts | None:
    snapshot = frame.f_locals
    found = {name: snapshot.get(name) for name in _WANTED}
    if type(snapshot) is dict and frame.f_trace is None:
        snapshot.clear()  # before Python 3.13 the snapshot would keep the values alive
    layer = found["self"]
    name = getattr(layer, "name", None)
    if type(name) is not str:
        return None
    weight, dtype = found["name"], found["dtype"]
    return BuildingFacts(
        name=name,
        kind=type(layer).__name__,
        weight=weight if type(weight) is str else "",
        shape=_shape(found["shape"]),
        dtype=dtype if type(dtype) is str else None,
    )


def _of_a_variable(frame: FrameType) -> BuildingFacts | None:
    """Describe a variable by its path: ``net/dense/kernel``."""
    snapshot = frame.f_locals
    variable = snapshot.get("self")
    if type(snapshot) is dict and frame.f_trace is None:
        snapshot.clear()
    held = stored(variable)
    path, shape, dtype = (held.get(name) for name in ("_path", "_shape", "_dtype"))
    parts = path.split("/") if type(path) is str else []
    if len(parts) < 2:
        return None
    return BuildingFacts(parts[-2], "", parts[-1], _shape(shape), dtype if type(dtype) is str else None)


def _shape(given: Any) -> tuple[int, ...] | None:
    if not is_exactly(given, tuple, list) or not all(type(n) is int for n in given):
        return None
    return tuple(given)
