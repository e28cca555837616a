"""What a running ``fit``, ``evaluate`` or ``predict`` of Keras is doing, read from its frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.facts.data import dataset_batch, leading_size
from tf_mem_magic.facts.kinds import is_a
from tf_mem_magic.facts.names import stored

_METHODS = ("fit", "evaluate", "predict")
_ON_BATCH = ("train_on_batch", "test_on_batch", "predict_on_batch")
_TRAINERS = tuple(
    os.path.join(*parts)
    for parts in (
        ("keras", "src", "backend", "tensorflow", "trainer.py"),
        ("tf_keras", "src", "engine", "training.py"),
    )
)
_WANTED = ("epoch_iterator", "data_handler", "epoch", "begin_step", "step", "end_step", "x")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a ``fit`` got: its epoch (from 0) and the whole ``steps`` of it; ``validating``: all of them."""

    epochs: int | None = None
    steps: int | None = None
    validating: bool = False


def observe_fit(frame: FrameType | None) -> BatchSeen | None:
    """Read the batch size that Keras really uses from a stack whose innermost frame is ``frame``.

    Where a ``fit`` is validating, its own batch size is given, not that of the ``evaluate`` inside. None where no
    Keras call is running yet or its batch size cannot be told. Works from another thread (pass
    ``sys._current_frames()[thread_id]``) and on the frames of a traceback. Never raises.
    """
    seen = observe_all(frame)
    return next((one for one in seen if one.method == "fit"), seen[0] if seen else None)


def observe_all(frame: FrameType | None) -> tuple[BatchSeen, ...]:
    """Read the batch size of every Keras call on the stack, innermost first."""
    found = []
    for one in _keras_frames(frame):
        try:
            seen = _batch_of(one)
        except Exception:
            continue
        if seen is not None:
            found.append(seen)
    return tuple(found)


def observe_progress(frame: FrameType | None) -> Progress:
    """Read how many epochs and steps the ``fit`` on the stack has completed."""
    validating = False
    for one in _keras_frames(frame):
        if one.f_code.co_name != "fit":
            validating = validating or one.f_code.co_name == "evaluate"
            continue
        try:
            found = _locals(one)
        except Exception:
            return Progress()
        # Keras calls the first of the steps of a call ``begin_step``; Keras 3.10 and older ones and tf_keras ``step``.
        epoch, begin, end = found.get("epoch"), found.get("begin_step", found.get("step")), found.get("end_step")
        if type(epoch) is not int:
            return Progress()
        if validating and end is None and type(begin) is int:
            each = stored(found.get("epoch_iterator")).get("steps_per_execution")
            end = begin + (each if type(each) is int else 1) - 1
        steps = end + 1 if validating and type(end) is int else begin
        return Progress(epoch, steps if type(steps) is int else None, validating)
    return Progress()


def observe_validation(frame: FrameType | None) -> BatchSeen | None:
    """Read in which batches the ``fit`` on the stack validates; None: in those of the training, not at all, or unknown.

    A batch holds no more samples than there are.
    """
    for one in _keras_frames(frame):
        if one.f_code.co_name != "fit":
            continue
        try:
            found = _locals(one, ("validation_data", "validation_batch_size"))
            return _batch_of_validation(found.get("validation_data"), found.get("validation_batch_size"))
        except Exception:
            return None
    return None


def _batch_of_validation(data: Any, given: Any) -> BatchSeen | None:
    if is_a(data, (list, tuple)):
        rows = leading_size(data)
        size, source = (min(given, rows) if type(given) is int and rows else None), "arrays"
    else:
        size, source = dataset_batch(data), "tf.data"
        if size is None:
            own = stored(data).get("batch_size")
            size, source = (own if type(own) is int else None), "PyDataset"
    return BatchSeen("validation", size, source) if size else None


def _keras_frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        code = frame.f_code
        if code.co_name in _METHODS + _ON_BATCH and code.co_filename.endswith(_TRAINERS):
            yield frame
        frame = frame.f_back


def running_models(frame: FrameType | None) -> list[Any]:
    """List the models whose ``fit``, ``evaluate`` or ``predict`` is on the stack, innermost first.

    They are live objects of another thread: read what is needed, and let go of them.
    """
    found = (_locals(one, ("self",)).get("self") for one in _keras_frames(frame))
    return [model for model in found if model is not None]


@dataclass(frozen=True)
class KerasCall:
    """A call of Keras's on the stack: the live model, its method, and what it was given (``epoch_iterator``, ``x``)."""

    model: Any
    method: str
    given: dict[str, Any]


def calls_of_keras(frame: FrameType | None) -> list[KerasCall]:
    """List the calls of Keras that compute on the stack, innermost first. They hold live objects: let go of them."""
    wanted = ("self", "epoch_iterator", "x", "y", "sample_weight")
    found = ((one.f_code.co_name, _locals(one, wanted)) for one in _keras_frames(frame))
    return [KerasCall(given.pop("self"), method, given) for method, given in found if given.get("self") is not None]


def _locals(frame: FrameType, wanted: tuple[str, ...] = _WANTED) -> dict[str, Any]:
    """Pick the locals that matter; before Python 3.13 the snapshot behind ``f_locals`` would keep the rest alive."""
    snapshot = frame.f_locals
    found = {name: snapshot[name] for name in wanted if name in snapshot}
    if type(snapshot) is dict and frame.f_trace is None:
        snapshot.clear()
    return found


def _batch_of(frame: FrameType) -> BatchSeen | None:
    method, found = frame.f_code.co_name, _locals(frame)
    if method in _ON_BATCH:
        size = leading_size(found.get("x"))
        return BatchSeen(method, size, "arrays") if size else None
    if "epoch_iterator" in found:
        adapter = stored(found["epoch_iterator"]).get("data_adapter")
    else:
        adapter = stored(found["data_handler"]).get("_adapter") if "data_handler" in found else None
    if adapter is None:
        return None
    held = stored(adapter)
    size, source = _adapter_batch(held)
    rows = held.get("_num_samples") if source == "arrays" else None
    fewer = rows if size and type(rows) is int and rows < size else None
    return BatchSeen(method, size, source, fewer) if size else None


def _adapter_batch(held: dict[str, Any]) -> tuple[int | None, str]:
    """Read the batch size from what one of Keras's data adapters stores."""
    if "py_dataset" in held:
        size = stored(held["py_dataset"]).get("batch_size")
        return (size if type(size) is int else None), "PyDataset"
    if "_first_batches" in held:
        first = held["_first_batches"]
        return (leading_size(first[0]) if is_a(first, (list, tuple)) and first else None), "generator"
    size = held.get("_batch_size")
    if type(size) is int:
        return size, "arrays"
    return dataset_batch(held.get("_dataset")), "tf.data"
