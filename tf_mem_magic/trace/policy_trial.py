"""16-bit compute tried on a model that ran out of memory: traced without data, and put back. Nothing of it is run."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.step import PolicyTrial
from tf_mem_magic.diagnose.cause import diagnose
from tf_mem_magic.diagnose.errortext import read_error
from tf_mem_magic.facts import names
from tf_mem_magic.facts.fit import KerasCall, calls_of_keras
from tf_mem_magic.facts.frames import chain_of, innermost_frames, local_names
from tf_mem_magic.facts.models import find_models, is_keras_2
from tf_mem_magic.facts.names import stored
from tf_mem_magic.remedies.mixed_precision.policy import choose_policy
from tf_mem_magic.remedies.mixed_precision.probe import layers_to_change
from tf_mem_magic.trace.given import CannotPlanError, specs_of_model
from tf_mem_magic.trace.kernels import without_kernel
from tf_mem_magic.trace.quiet import quiet
from tf_mem_magic.trace.untouched import TooManyError, untouched

SECONDS = 1.0
"""Seconds of processor time after which a trace is given up."""

MOST_SECONDS = 2.0
"""After so long no other model is tried; those come first whose method was running."""

QUICK = 0.2
"""A forward pass that took this share of the time is followed by a whole step, which takes several times as long."""

_STEPS = {"fit": "train_step", "train_on_batch": "train_step", "evaluate": "test_step", "test_on_batch": "test_step"}
_PREFIX = re.compile(r"^Exception encountered when calling .*?\.\w+\(\)\.\s*", re.DOTALL)
_CALLED = re.compile(r"when calling (\w+)\.call\(\)")
_ARGUMENTS = re.compile(r"\s*Arguments received by .*", re.DOTALL)
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 200


class _OutOfTime(BaseException):
    """The trace takes longer than it may: no error of a layer's, which Keras or the user's code would catch."""


@dataclass(frozen=True)
class _Given:
    """What a model is traced on: a whole batch as tensors without values, and the step's method (empty: only a call).

    ``inputs`` are what its ``call`` takes of that.
    """

    batch: Any
    inputs: Any
    step: str


def with_policy_tried(recording: Recording, error: BaseException | None, namespace: Mapping[str, Any]) -> Recording:
    """Try 16-bit compute on the models of a run that ran out of memory, where their code is not all Keras's own.

    Only symbolic tensors are made, in graphs of their own that are dropped: no variable, no memory of a device, no
    random number, nothing drawn from data. What it sets in Python is put back, after an error too.

    Parameters
    ----------
    recording : Recording
        The run; returned as it is unless it ran out of a device's memory.
    error : BaseException or None
        The out-of-memory error, for the frames that it has.
    namespace : mapping
        The notebook's names, for the models among them.
    """
    facts = recording.facts
    asked = [one for one in facts.models if _asks_for_it(one)]
    if not asked or error is None or recording.status != "oom" or recording.host_full is not None:
        return recording
    if sys.modules.get("keras") is None or any(read_error(str(one)).jit for one in chain_of(error)):
        return recording  # after an error of XLA's TensorFlow is asked for nothing more
    diagnosis = diagnose(recording)
    if diagnosis is None or diagnosis.device == "host":
        return recording
    policy, _ = choose_policy(facts, diagnosis.device)
    calls = [call for frame in innermost_frames(error) for call in calls_of_keras(frame)]
    tried: dict[str, PolicyTrial] = {}
    live, began = _live(asked, error, namespace), time.monotonic()
    for name, model in sorted(live.items(), key=lambda pair: all(call.model is not pair[1] for call in calls)):
        if time.monotonic() - began < MOST_SECONDS:
            running = [call for call in calls if call.model is model]
            tried[name] = try_policy(model, policy, min(running, key=_training_first, default=None))
    models = tuple(replace(one, trial=tried.get(one.name)) for one in facts.models)
    return replace(recording, facts=replace(facts, models=models))


def _training_first(call: KerasCall) -> bool:
    return call.method != "fit"


def _asks_for_it(model: ModelFacts) -> bool:
    """Whether something in a model is not Keras's own, so that reading its layers' names does not tell."""
    own = model.own_layers or model.own_step or "Lambda" in model.layers
    return bool(own) and not model.dtype_policy.startswith("mixed_") and model.weight_bytes > 0


def _live(asked: list[ModelFacts], error: BaseException, namespace: Mapping[str, Any]) -> dict[str, Any]:
    pairs = names.reachable(namespace)
    inner = list(local_names(error))
    found: dict[str, Any] = {}
    for one in asked:
        for name, value in inner if one.local else pairs:
            if name == one.name and find_models([(name, value)]) and not is_keras_2(value):
                found[name] = value
                break
    return found


def try_policy(model: Any, policy: str, running: KerasCall | None = None, seconds: float = SECONDS) -> PolicyTrial:
    """Trace what a model computes under a dtype policy, and tell whether it can.

    Parameters
    ----------
    model : keras.Model
        A model of Keras 3 with weights, whose layers compute in 32 bits.
    policy : str
        The policy to try.
    running : KerasCall, optional
        The call of Keras's that was running, with its data; else the model's own inputs are taken.
    seconds : float
        Of processor time, for each trace.
    """
    began = time.monotonic()
    trial = _tried(model, policy, running, seconds)
    return replace(trial, seconds=time.monotonic() - began)


def _tried(model: Any, policy: str, running: KerasCall | None, seconds: float) -> PolicyTrial:
    def not_tried(why: str) -> PolicyTrial:
        return PolicyTrial(policy, "not tried", told=why)

    try:
        given = _given(model, running)
    except CannotPlanError as unknown:
        return not_tried(str(unknown))
    except Exception as failed:
        return not_tried(f"what it takes could not be told ({_told(failed)})")
    if given is None:
        return not_tried("it trains on several devices, or by another backend")
    try:
        return _trace_both(model, policy, given, seconds)
    except _OutOfTime:
        return not_tried(f"tracing it takes longer than {seconds:g} s")
    except TooManyError as many:
        return not_tried(str(many))
    except Exception as failed:
        return not_tried(f"it could not be traced ({_told(failed)})")


def _trace_both(model: Any, policy: str, given: _Given, seconds: float) -> PolicyTrial:
    """Trace the forward pass, and the whole step where that is the model's own or does not take long.

    A model that only trains others (a GAN, a distiller) has no forward pass of its own.
    """
    own = bool(given.step) and not _is_of_keras(type(model), given.step)
    passes = not (own and model.compiled and _has_no_call(type(model)))
    failed = _trace(model, policy, given, "", seconds) if passes else _Ended()
    traced_step = False
    if failed.kind == "" and given.step and model.compiled and (own or failed.seconds < QUICK * seconds):
        try:
            failed = _trace(model, policy, given, given.step, seconds)
            traced_step = True
        except _OutOfTime:
            if own:
                raise
    if failed.kind == "":
        return PolicyTrial(policy, "ok", "step" if traced_step else "call")
    if failed.kind == "error":
        as_it_is = _trace(model, "", given, given.step if traced_step else "", seconds)
        if as_it_is.kind:
            return PolicyTrial(policy, "not tried", told=f"it cannot be traced as it is either ({as_it_is.told})")
    in_model = failed.where == type(model).__name__
    return PolicyTrial(policy, "failed", "step" if traced_step else "call", failed.where, failed.told, in_model)


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a trace ended: ``kind`` is empty where it went well, ``"error"``, or ``"kernel"`` for a missing one."""

    kind: str = ""
    where: str = ""
    told: str = ""
    seconds: float = 0.0


def _trace(model: Any, policy: str, given: _Given, step: str, seconds: float) -> _Ended:
    """Trace a call of the model, or a step; under ``policy``, or as it is where that is empty. All is put back."""
    import tensorflow as tf
    from tensorflow.python.eager import context
    from tensorflow.python.framework.func_graph import func_graph_from_py_func

    began = time.thread_time()
    with untouched(model, stored(model)), tf.Graph().as_default() as outer, quiet(), _no_warnings():
        outer.seed = context.global_seed()
        if policy:
            for layer in layers_to_change(model):
                layer.dtype_policy = policy
        compute = tf.autograph.experimental.do_not_convert(_computation(model, step))
        graph = _bounded_graph(time.thread_time() + seconds)
        try:
            func_graph_from_py_func("tried", compute, (given.batch if step else given.inputs,), {}, func_graph=graph)
        except Exception as failed:
            where, told = _class_in(failed), _told(failed)
            failed.__traceback__ = None
            return _Ended("error", where, told)
        missing = without_kernel(graph) if policy else ""
        if missing:
            return _Ended("kernel", "", f"TensorFlow has no {missing} here")
    return _Ended(seconds=time.thread_time() - began)


def _computation(model: Any, step: str) -> Callable[[Any], Any]:
    if step:
        return lambda batch: getattr(model, step)(batch)
    if model._call_has_training_arg:
        return lambda inputs: model(inputs, training=True)
    return lambda inputs: model(inputs)


def _bounded_graph(deadline: float) -> Any:
    """Make a graph that refuses to grow past a time of this thread's processor."""
    from tensorflow.python.framework.func_graph import FuncGraph

    class Bounded(FuncGraph):  # type: ignore[misc]
        def _create_op_internal(self, *given: Any, **more: Any) -> Any:
            if time.thread_time() > deadline:
                raise _OutOfTime
            return super()._create_op_internal(*given, **more)

    return Bounded("tried")


def _given(model: Any, running: KerasCall | None) -> _Given | None:
    """Tell what the model computes on, as tensors without values: what it was given, or what it says that it takes."""
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow" or model.distribute_strategy.num_replicas_in_sync > 1:
        return None
    batch = None if running is None else _batch_of(running)
    if running is not None and batch is not None:
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return _Given(batch, inputs, _STEPS.get(running.method, ""))
    shapes = getattr(model, "_build_shapes_dict", None)
    if getattr(model, "_inputs_struct", None) is None and isinstance(shapes, dict) and len(shapes) == 1:
        (shape,) = shapes.values()
        if isinstance(shape, (tuple, list)) and all(n is None or isinstance(n, int) for n in shape):
            spec = tf.TensorSpec((None, *shape[1:]), model.input_dtype)
            return _Given(None, spec, "")
    inputs, _ = specs_of_model(model, ())
    return _Given(None, inputs, "")


def _batch_of(running: KerasCall) -> Any:
    """Give a batch of what a call of Keras was given, as tensors without values; nothing is drawn."""
    import keras
    import tensorflow as tf

    held = running.given
    if "epoch_iterator" in held:
        data = stored(held["epoch_iterator"]).get("_distributed_dataset")
        spec = getattr(data, "element_spec", None)
    elif "x" in held:
        spec = keras.utils.pack_x_y_sample_weight(held["x"], held.get("y"), held.get("sample_weight"))
    else:
        spec = None
    return None if spec is None else tf.nest.map_structure(lambda one: tf.TensorSpec(one.shape, one.dtype), spec)


def _has_no_call(cls: type) -> bool:
    base = getattr(sys.modules.get("keras.src.models.model"), "Model", None)
    return base is not None and getattr(cls, "call", None) is base.call


def _is_of_keras(cls: type, method: str) -> bool:
    return str(getattr(getattr(cls, method, None), "__module__", "")).partition(".")[0] == "keras"


def _class_in(failed: BaseException) -> str:
    """Name the class of the innermost layer whose code failed: the user's own, where one is on the way."""
    base = getattr(sys.modules.get("keras.src.layers.layer"), "Layer", None)
    found: list[type] = []
    trace = failed.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(base, type) and issubclass(type(owner), base):
            found.append(type(owner))
        trace = trace.tb_next
    own = [cls for cls in found if cls.__module__.partition(".")[0] != "keras" or cls.__name__ == "Lambda"]
    named = _CALLED.search(str(failed))  # of a Lambda, Keras leaves only the function's own frame
    return own[-1].__name__ if own else named[1] if named else ""


def _told(failed: BaseException) -> str:
    """Give an error's text in short: what Keras puts around it left out."""
    text = _ARGUMENTS.sub("", _PREFIX.sub("", _TERMINAL.sub("", str(failed)))).strip()
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep from stderr what this thread warns of meanwhile: it was said when the cell ran, or is about the trial."""
    thread = threading.get_ident()
    logger = logging.getLogger("tensorflow")

    def is_of_another(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_of_another)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(is_of_another)
