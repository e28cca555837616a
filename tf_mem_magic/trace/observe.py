"""The step that was running when memory ran out: found in the process, read into numbers, once and within bounds."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.step import OF_GRAPH, Processor, StepFacts, pack
from tf_mem_magic.diagnose.errortext import read_error
from tf_mem_magic.facts import names
from tf_mem_magic.facts.fit import calls_of_keras
from tf_mem_magic.facts.frames import chain_of, innermost_frames, local_names
from tf_mem_magic.facts.models import array_bytes, built_on, find_models, find_optimizers, training_of
from tf_mem_magic.memory.rewrites import as_run
from tf_mem_magic.notebook.optimizers import KEPT
from tf_mem_magic.trace.flatten import TooLargeError
from tf_mem_magic.trace.functions import find_graph, function_named_in
from tf_mem_magic.trace.read import read_step
from tf_mem_magic.trace.sizes import at_length, batch_in, data_of, failed_shape, fixed, flatten_at
from tf_mem_magic.trace.variables import captured_bytes, handle_of, layers_of, variables_of

SECONDS = 6.0
"""Seconds of processor time after which reading a step is given up; on a busy machine they take longer, and do less.
DenseNet121 was not read in 3 of them where another process ran beside it."""

MOST_VARIABLES = 20_000
_NODE = re.compile(r"\{\{node ([^}]+)\}\}")
_DETECTED = re.compile(r"Detected at node:? '?([^\s']+)'? defined at")
_CALLER = "tensorflow/python/util/traceback_utils.py"


def observe_step(
    error: BaseException | None, namespace: Mapping[str, Any], batches: Iterable[BatchSeen], seconds: float = SECONDS
) -> StepFacts:
    """Read the step that ``error`` ended from the graph that TensorFlow was running. Never raises.

    Parameters
    ----------
    error : BaseException or None
        The out-of-memory error; its frames are only looked at.
    namespace : mapping
        The notebook's names, for the models and optimizers among them.
    batches : iterable of BatchSeen
        The batch sizes that Keras was using, that of the call which failed first.
    seconds : float
        After which to give up.
    """
    began, spent = time.monotonic(), time.thread_time()
    try:
        facts = _observe(error, namespace, tuple(batches), spent + seconds)
    except TooLargeError as stopped:
        facts = StepFacts(why_not=str(stopped))
    except Exception as failed:
        facts = StepFacts(why_not=f"the step's graph could not be read ({type(failed).__name__}: {failed})"[:300])
    return replace(facts, seconds=time.monotonic() - began)


def with_step(recording: Recording, error: BaseException | None, namespace: Mapping[str, Any]) -> Recording:
    """Add the step that was running to the recording of a run that ran out of memory."""
    if recording.status != "oom" or recording.host_full is not None:
        return recording
    step = observe_step(error, namespace, nearest_first(recording.facts.batches, recording.facts.validating))
    return replace(recording, facts=replace(recording.facts, step=step))


def _observe(
    error: BaseException | None, namespace: Mapping[str, Any], batches: tuple[BatchSeen, ...], deadline: float
) -> StepFacts:
    if error is None or "tensorflow" not in sys.modules:
        return StepFacts(why_not="no error tells what was running")
    messages = [str(one) for one in chain_of(error)]
    function = next((name for text in messages if (name := function_named_in(text))), None)
    op = next((name for text in messages if (name := _failed_node(text))), "")
    if any(read_error(text).jit for text in messages):
        # TensorFlow may free memory twice after this: it is asked for nothing more.
        return StepFacts(function or "", op, why_not="XLA had compiled the step: it ran as one program")
    if function is None:
        return StepFacts(op=op, why_not="it ran operation by operation: there is no graph of the step")
    graph = find_graph(function)
    if graph is None:
        return StepFacts(function, op, why_not="TensorFlow no longer has the graph that was running")
    if len({place for op in graph.get_operations() if (place := _accelerator(op))}) > 1:
        return StepFacts(function, op, why_not="the step runs on several devices")
    arguments = _arguments(error, graph)
    batch = batch_in(graph, arguments) or (batches[0].batch if batches else None)
    flat, length = at_length(graph, arguments, batch, failed_shape(messages), deadline, _sample_of(error))
    if flat is None:
        return StepFacts(function, op, batch, why_not="how long the samples of the failing batch were is not known")
    steps = [as_run(read_step(flat))]
    other = batch // 2 if batch is not None and batch >= 2 and _is_of_any_batch(graph) else None
    if other is not None:
        try:
            steps.append(as_run(read_step(flatten_at(graph, arguments, batch, other, deadline, length))))
        except Exception:
            other = None
    variables, layers, optimizers, coming = _keras(error, namespace, graph)
    processor = this_processor() if any("device:CPU" in text for text in messages) else None
    return StepFacts(
        function=function,
        op=op,
        batch=batch,
        packed=pack(steps),
        other=other,
        variables=variables,
        layers=tuple(name for name, _ in layers),
        classes=tuple(kind for _, kind in layers),
        optimizers=optimizers,
        compiled=flat.compiled,
        cache=processor.cache if processor is not None else 0,
        threads=processor.threads if processor is not None else 0,
        onednn=processor is not None and processor.onednn,
        data=data_of(flat),
        length=length if isinstance(length, int) else None,
        coming=coming,
    )


def _sample_of(error: BaseException) -> tuple[int, ...] | None:
    """Give the shape of a sample that the model takes whose method ran; None where it takes several, or any."""
    for frame in innermost_frames(error):
        for call in calls_of_keras(frame):
            shapes = [fixed(t.shape[1:]) for t in getattr(call.model, "inputs", None) or ()]
            return shapes[0] if len(shapes) == 1 else None
    return None


def _accelerator(op: Any) -> str:
    """Give the GPU or TPU that an operation was put on by the user's code; empty where it was not."""
    found = re.search(r"(?:GPU|TPU):\d+", op.device or "", re.IGNORECASE)
    return found.group().upper() if found else ""


_SC_LEVEL3_CACHE_SIZE = 194
"""The number by which the C library of Linux tells the size of the last-level cache; Python has no name for it."""


def this_processor() -> Processor:
    """Give the processor of this computer as TensorFlow's kernels see it: the size of its cache as it tells itself.

    On some that is the whole chip's, of which ``/sys`` shows a part only; the C library asks as Eigen does.
    """
    import tensorflow as tf

    cache = 0
    if sys.platform == "linux":
        try:
            cache = max(os.sysconf(_SC_LEVEL3_CACHE_SIZE), 0)
        except (OSError, ValueError):
            cache = 0
    if not cache:
        try:
            text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text(encoding="ascii").strip()
            cache = int(text.removesuffix("K")) * 1024
        except (OSError, ValueError):
            cache = 0
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return Processor(cache, threads or _usable_threads(), _uses_onednn())


def _uses_onednn() -> bool:
    """Whether TensorFlow computes with oneDNN's kernels here: by default where the processor has such instructions."""
    try:
        from tensorflow.python.util import _pywrap_util_port

        return bool(_pywrap_util_port.IsMklEnabled())
    except Exception:
        return False


def _usable_threads() -> int:
    """Count the processor's threads that this process may use, as TensorFlow does where nothing is set."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _failed_node(message: str) -> str | None:
    found = _NODE.search(message) or _DETECTED.search(message)
    return found[1] if found else None


def _arguments(error: BaseException, graph: Any) -> list[tuple[int, ...] | None]:
    """Give the shapes that the graph's arguments really had, from the call that failed; None where that is unknown."""
    shapes: list[tuple[int, ...] | None] = [None] * len(graph.inputs)
    for values in _called_with(error):
        tensors = [v for v in _flat(values) if hasattr(v, "shape") and hasattr(v, "dtype") and hasattr(v, "device")]
        given = [t for t in graph.inputs if id(t) not in _captured(graph)]
        if len(tensors) < len(given) or not given:
            continue
        found = [fixed(t.shape) for t in tensors[-len(given) :]]
        if all(_agrees(t.shape, shape) for t, shape in zip(given, found)):
            for i, shape in enumerate(found):
                shapes[i] = shape
            break
    return shapes


def _called_with(error: BaseException) -> Iterator[Any]:
    """Yield what TensorFlow's functions were called with on the way to the error, innermost first."""
    for one in chain_of(error):
        trace = one.__traceback__
        frames: list[FrameType] = []
        while trace is not None:
            frames.insert(0, trace.tb_frame)
            trace = trace.tb_next
        for frame in frames:
            code = frame.f_code
            if code.co_name == "error_handler" and code.co_filename.replace("\\", "/").endswith(_CALLER):
                held = frame.f_locals
                values = (held.get("args"), held.get("kwargs"))
                if type(held) is dict and frame.f_trace is None:
                    held.clear()  # before Python 3.13 the snapshot would keep the values alive
                yield values


def _flat(value: Any, depth: int = 0) -> list[Any]:
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted(value, key=str)]
    if isinstance(value, (list, tuple)) and depth < 6:
        return [leaf for one in value for leaf in _flat(one, depth + 1)]
    return [value]


def _captured(graph: Any) -> set[int]:
    return {id(inner) for _, inner in graph.captures}


def _agrees(traced: Any, real: tuple[int, ...] | None) -> bool:
    return real is not None and (traced.rank is None or traced.is_compatible_with(real))


def nearest_first(batches: Iterable[BatchSeen], validating: bool) -> tuple[BatchSeen, ...]:
    """Order the batch sizes that Keras used: first that of the call which failed.

    A ``fit`` that was validating failed in its ``evaluate``; else in its own step.
    """
    failed = ("evaluate", "predict") if validating else ("fit", "train_on_batch")
    return tuple(sorted(batches, key=lambda seen: seen.method not in failed))


def _is_of_any_batch(graph: Any) -> bool:
    """Whether the graph was traced for any batch size, so that its shapes follow from the arguments'."""
    data = [t for op in graph.get_operations() if op.type.startswith("IteratorGetNext") for t in op.outputs]
    captured = _captured(graph)
    data += [t for t in graph.inputs if id(t) not in captured and t.dtype.name not in ("resource", "variant")]
    ranked = [t for t in data if t.shape.rank]
    return bool(ranked) and all(t.shape[0] is None for t in ranked)


def _keras(
    error: BaseException, namespace: Mapping[str, Any], graph: Any
) -> tuple[tuple[tuple[str, str, int], ...], tuple[tuple[str, str], ...], tuple[str, ...], int | None]:
    """List the variables of the models and optimizers, and of the graph; the layers and their classes; the optimizers.

    These, and the layers, by their names. What comes last is :attr:`StepFacts.coming`.
    """
    pairs = [*names.reachable(namespace), *local_names(error)]
    named = find_optimizers(pairs)
    found: dict[int, tuple[str, str, int]] = {}
    trained: dict[int, int] = {}
    layers: dict[str, str] = {}
    optimizers: dict[str, None] = {}
    for name, model in find_models(pairs):
        owners = training_of(model, [one for _, one in named])
        for part, owner in [("weights", model), *(("optimizer", one) for one in owners)]:
            for variable in variables_of(owner):
                found.setdefault(handle_of(variable), (part, name, array_bytes(variable)))
                if part == "weights" and getattr(variable, "trainable", True):
                    trained[handle_of(variable)] = array_bytes(variable)
        optimizers |= {str(getattr(one, "name", "")): None for one in owners}
        layers |= dict(layers_of(model))
    for name, one in named:
        optimizers[str(getattr(one, "name", ""))] = None
        for variable in variables_of(one):
            found.setdefault(handle_of(variable), ("optimizer", name, array_bytes(variable)))
    for outer, inner in graph.captures:
        if inner.dtype.name == "resource" and id(outer) not in found:
            size = captured_bytes(inner)
            if size:
                found[id(outer)] = ("weights", OF_GRAPH, size)
    coming = _coming([one for _, one in named], sum(trained.values()))
    return tuple(found.values())[:MOST_VARIABLES], tuple(layers.items()), tuple(optimizers), coming


def _coming(optimizers: list[Any], weights: int) -> int | None:
    """Give the bytes that optimizers will make for weights at their first update; None where one has made its own."""
    if not optimizers or any(built_on(one) for one in optimizers):
        return None
    return weights * min(KEPT.get(type(one).__name__, 0) for one in optimizers)
