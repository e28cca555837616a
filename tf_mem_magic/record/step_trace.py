"""``--trace``: TensorFlow's profiler, run for two or three steps in the middle of a cell, by a thread of its own."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.recording import Series
from tf_mem_magic.core.step import TracedSteps
from tf_mem_magic.facts.fit import Progress, observe_progress, running_models
from tf_mem_magic.facts.models import (
    array_bytes,
    find_models,
    find_optimizers,
    optimizer_names,
    training_of,
    variable_device,
    variables_of,
)
from tf_mem_magic.facts.names import reachable
from tf_mem_magic.memory.events import traced_steps
from tf_mem_magic.record.dumps import make_folder
from tf_mem_magic.sources import Unavailable
from tf_mem_magic.sources._context import initialised_context
from tf_mem_magic.trace.events import MOST_BYTES, NoAllocationError, read_events
from tf_mem_magic.trace.variables import layer_names

STEPS = 4
"""Steps that a ``fit`` goes on before the trace ends: the first of them is caught in its middle."""

LONGEST = 10.0
"""Seconds after which a trace ends in any case."""

_LOOP_AFTER = 0.3
"""Seconds for which a cell without ``fit`` runs before it is traced."""

_LOOP_FOR = 2.0
"""Seconds for which what is no ``fit`` is traced at least, whose steps nobody counts."""

_TURNS = 2 * STEPS
"""How often a loop is seen to begin or end a call of TensorFlow before it is believed to have gone on by some steps."""

_POLL = 0.02
_END_WITHIN = 30.0

_PROFILES = re.compile(r"\bprofiler\s*\.|\bprofile_batch\b|\bprofiler_v2\b|\bimport profiler\b")
"""Code that may run TensorFlow's profiler itself: a second one would be refused, and perhaps the notebook's own."""

_FIT = os.path.join("keras", "src", "backend", "tensorflow", "trainer.py")
_TRACING = frozenset({"func_graph_from_py_func", "trace_function", "_create_concrete_function"})
"""Functions of TensorFlow during which a graph is made, and no step runs."""


class StepTrace:
    """Traces a few steps of one run; :meth:`start` and :meth:`stop` are called by the thread that runs the code.

    Parameters
    ----------
    sources : iterable of str
        The cell and those before it: where they use the profiler themselves it is left to them.
    folder : Path or None
        A folder to make for what the profiler writes. Default: one in the temp folder. Nothing of it stays.
    """

    def __init__(self, sources: Iterable[str], folder: Path | None = None) -> None:
        self._thread, self._wanted = 0, folder
        self._why_not = ""
        self._saw_fit = self._began_in_fit = False
        if any(_PROFILES.search(source) for source in sources):
            self._why_not = "the notebook runs a profiler itself; were it TensorFlow's, a second one would be refused"
        self._end = threading.Event()
        self._worker: threading.Thread | None = None
        self._began_at = self._started_at = time.monotonic()
        self._data: bytes | None = None
        self._is_whole = False
        self._layers: set[str] = set()
        self._optimizers: set[str] = set()
        self._variables: dict[int, tuple[str, str | None, int]] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether it will run the profiler: nothing speaks against it so far."""
        return not self._why_not

    def start(self, thread: int) -> None:
        """Begin to wait for the moment at which a trace is worth it; ``thread`` runs the user's code."""
        self._thread = thread
        self._began_at = time.monotonic()
        if self._why_not:
            return
        self._worker = threading.Thread(target=self._run, name="tfmem-trace", daemon=True)
        try:
            self._worker.start()
        except RuntimeError as error:
            self._worker, self._why_not = None, f"no thread could be started ({error})"

    def stop(self) -> None:
        """End the trace, and leave nothing behind; idempotent."""
        self._end.set()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.join(_END_WITHIN)
            if worker.is_alive():
                self._why_not = f"TensorFlow's profiler did not end within {_END_WITHIN:.0f} s"

    def tell(self, facts: Facts, namespace: Mapping[str, Any], failed: bool) -> TracedSteps:
        """Read what was traced, after :meth:`stop`. Never raises."""
        data, self._data = self._data, None
        if data is None:
            why = self._why_not or _none_seen(self._saw_fit, failed)
            return TracedSteps(why_not=why)
        try:
            return self._told(data, facts, namespace, failed)
        except Exception as error:
            if isinstance(error, NoAllocationError) and self._saw_only_an_end(failed):
                return TracedSteps(why_not=_none_seen(saw_fit=True, failed=False))
            why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            return TracedSteps(why_not=why[:300])

    def _told(self, data: bytes, facts: Facts, namespace: Mapping[str, Any], failed: bool) -> TracedSteps:
        gpus = [device.name for device in facts.devices if device.kind == "GPU"]
        events = read_events(data, gpus[0] if len(gpus) == 1 else "")
        pairs = reachable(namespace)
        self._note(
            [model for _, model in find_models(pairs)],
            [one for _, one in find_optimizers(pairs)],
        )
        here = [m for m in facts.models if m.device == events.device]
        told = traced_steps(
            events,
            layers=frozenset(self._layers),
            optimizers=self._optimizers,
            weights=self._held("weights", events.device),
            slots=self._held("optimizer", events.device),
            began=self._started_at - self._began_at,
            failed=failed and not self._is_whole,
        )
        if not told.steps and self._saw_only_an_end(failed):
            return TracedSteps(why_not=_none_seen(saw_fit=True, failed=False))
        if any(m.jit_compile for m in here):
            note = "XLA compiles this model's step: what runs as one program is one piece, without its layers."
            told = replace(told, notes=(*told.notes, note))
        return told

    def _saw_only_an_end(self, failed: bool) -> bool:
        """Whether all that it saw of a ``fit`` was the end of its first step, or what follows it."""
        return (self._began_in_fit or self._saw_fit) and not (failed or self._is_whole)

    def _run(self) -> None:
        try:
            if self._wait():
                self._trace()
        except Exception as error:
            self._why_not = self._why_not or f"TensorFlow's profiler failed ({type(error).__name__}: {error})"[:300]

    def _wait(self) -> bool:
        """Wait until a step has ended; whether to trace."""
        while not self._end.wait(_POLL):
            if isinstance(initialised_context("trace"), Unavailable):
                continue
            frame = sys._current_frames().get(self._thread)
            progress = observe_progress(frame)
            self._saw_fit = self._saw_fit or progress.epochs is not None or _is_in_fit(frame)
            if progress.steps is not None:
                if (progress.epochs or progress.steps) and not progress.validating:
                    self._began_in_fit = True
                    return True
            elif time.monotonic() - self._began_at > _LOOP_AFTER and not _is_making_ready(frame):
                return True
        return False

    def _trace(self) -> None:
        profiler = sys.modules["tensorflow"].profiler.experimental
        folder = make_folder(self._wanted, "tfmem-trace-")
        try:
            options = profiler.ProfilerOptions(host_tracer_level=2, python_tracer_level=0, device_tracer_level=0)
            try:
                profiler.start(str(folder), options)
            except Exception as error:
                if type(error).__name__ != "AlreadyExistsError":
                    raise
                self._why_not = "another profiler was running, which was left alone"
                return
            self._started_at = time.monotonic()
            try:
                # A function may have made them: no name of the notebook holds them then.
                self._note(running_models(sys._current_frames().get(self._thread)), [])
                self._watch()
            finally:
                profiler.stop()
            self._take(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _watch(self) -> None:
        """Wait until enough steps have been seen, or long enough."""
        last, done, turns, was_in = None, 0, 0, False
        while not self._end.wait(_POLL):
            spent = time.monotonic() - self._started_at
            frame = sys._current_frames().get(self._thread)
            progress, is_in = observe_progress(frame), _is_executing(frame)
            done += steps_between(last, progress)
            turns += is_in != was_in
            last, was_in = progress, is_in
            is_long = progress.steps is None and spent > _LOOP_FOR and turns >= _TURNS
            if spent > LONGEST or done >= STEPS or is_long:
                self._is_whole = True
                return

    def _note(self, models: list[Any], optimizers: list[Any]) -> None:
        """Note the names of layers and optimizers, which are scopes of operations, and the variables' bytes."""
        held = [*optimizers, *(one for model in models for one in training_of(model))]
        self._layers |= {name for model in models for name in layer_names(model)}
        self._optimizers |= optimizer_names(held)
        variables = [("optimizer", one) for one in variables_of([], held)]
        variables += [("weights", one) for one in variables_of([("", model) for model in models], [])]
        for kind, one in variables:
            self._variables.setdefault(id(one), (kind, variable_device(one), array_bytes(one)))

    def _held(self, kind: str, device: str) -> int:
        """Add up the bytes of the variables of one kind on a device."""
        return sum(held for each, where, held in self._variables.values() if (each, where) == (kind, device))

    def _take(self, folder: Path) -> None:
        found = sorted(folder.rglob("*.xplane.pb"))
        if not found:
            self._why_not = "the profiler wrote nothing"
        elif sum(path.stat().st_size for path in found) > MOST_BYTES:
            self._why_not = "the profiler wrote more than is read"
        else:
            self._data = found[-1].read_bytes()


def with_limit(series: Series, traced: TracedSteps) -> Series:
    """Give a series the limit that its allocator told of while it was traced, where none is known."""
    if series.limit is not None or traced.limit is None or series.name != f"allocator:{traced.device}":
        return series
    return replace(series, limit=traced.limit, limit_basis="trace")


def steps_between(before: Progress | None, now: Progress) -> int:
    """Count the steps that a ``fit`` went on between two looks, as far as they tell."""
    if before is None or before.steps is None or now.steps is None or before.epochs is None or now.epochs is None:
        return 0
    if now.epochs == before.epochs:
        return max(now.steps - before.steps, 0)
    return now.steps + max(now.epochs - before.epochs, 0)


def _none_seen(saw_fit: bool, failed: bool) -> str:
    """Say why no step was traced, and what would help."""
    if not saw_fit:
        return (
            f"none was seen: a trace begins after the first step of a `fit`, or {_LOOP_AFTER} s into another loop;"
            " let the cell train for longer"
        )
    if failed:
        return "`fit` ended in its first step, which makes the graph too and is not traced"
    return (
        "`fit` was over before a step after its first was seen, and the first, which makes the graph too, is not"
        f" traced; let it train for {STEPS + 1} steps or more: more epochs, or smaller batches"
    )


def _is_in_fit(frame: FrameType | None) -> bool:
    """Whether a thread is in a ``fit`` of Keras 3."""
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_code.co_filename.endswith(_FIT):
            return True
        frame = frame.f_back
    return False


def _is_making_ready(frame: FrameType | None) -> bool:
    """Whether a thread is in a ``fit`` of Keras 3 that has not begun its first step, or making a graph."""
    if _is_in_fit(frame):
        return True
    while frame is not None:
        if frame.f_code.co_name in _TRACING:
            return True
        frame = frame.f_back
    return False


def _is_executing(frame: FrameType | None) -> bool:
    """Whether a thread is in a call of TensorFlow that runs operations."""
    while frame is not None:
        if frame.f_code.co_name in ("quick_execute", "call_function") and "tensorflow" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
