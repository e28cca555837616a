"""A training step that has not run yet, traced and read into numbers. Nothing is run, nothing is left changed.

Keras's own ``train_step`` is traced inside a graph of its own: variables that training would make (the optimizer's,
the metrics', the weights of a model that was never called) are made there as names without memory. What tracing sets
in Python is put back (:mod:`.untouched`).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

from tf_mem_magic.core.step import WIDTHS, Step
from tf_mem_magic.core.units import named_kind
from tf_mem_magic.diagnose.planning.values import Ahead
from tf_mem_magic.facts.data import leading_size
from tf_mem_magic.facts.models import array_bytes, find_models, is_keras_2, optimizers_of
from tf_mem_magic.facts.names import stored
from tf_mem_magic.memory.rewrites import as_run
from tf_mem_magic.trace.flatten import TooLargeError
from tf_mem_magic.trace.given import CannotPlanError, specs_of_data, specs_of_model, specs_of_targets
from tf_mem_magic.trace.observe import this_processor
from tf_mem_magic.trace.quiet import quiet
from tf_mem_magic.trace.read import read_step
from tf_mem_magic.trace.sizes import flatten_at
from tf_mem_magic.trace.untouched import TooManyError, untouched
from tf_mem_magic.trace.variables import captured_bytes, handle_of, layer_names, variables_of

SECONDS = 60.0
"""Seconds of processor time after which reading a step is given up."""

USUAL_BATCH = 32
"""The batch size of ``fit`` where none is given (Keras's default)."""


def observe_ahead(
    name: str,
    model: Any,
    data: Sequence[tuple[str, Any]] = (),
    batch: int | None = None,
    shape: tuple[int, ...] = (),
    seconds: float = SECONDS,
    batch_from: str = "given",
) -> Ahead:
    """Trace one training step of a model and read it, without running it.

    Parameters
    ----------
    name : str
        The model's name.
    model : keras.Model
        A compiled model of Keras 3.
    data : sequence of (str, object)
        What it is trained on, by name: arrays of inputs, targets and sample weights, or a batched dataset. Only
        shapes are looked at. Without it they are what the model's inputs, outputs and loss tell.
    batch : int, optional
        Samples in a step; else the dataset's, else Keras's default.
    shape : tuple of int
        The shape of one sample, where the model does not tell it.
    seconds : float
        After which to give up.
    batch_from : str
        Where ``batch`` is from, in words.

    Raises
    ------
    CannotPlanError
        With a sentence that says why: not compiled, not Keras 3, shapes unknown, Python code that cannot be traced.
    """
    _check(name, model)
    if batch is not None:
        if not hasattr(batch, "__index__") or batch < 1:
            raise CannotPlanError(f"{batch!r} is not a batch size")
        batch = int(batch)
    deadline = time.thread_time() + seconds
    import tensorflow as tf
    from tensorflow.python.eager import context

    try:
        with untouched(model, stored(model)), tf.Graph().as_default() as outer, quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outer.seed = context.global_seed()
            return _observe(name, model, tuple(data), (batch, batch_from), shape, deadline)
    except (TooLargeError, TooManyError) as stopped:
        raise CannotPlanError(str(stopped)) from None
    except CannotPlanError:
        raise
    except Exception as failed:
        told = " ".join(str(failed).split())[:200]
        raise CannotPlanError(f"the step of `{name}` could not be read ({type(failed).__name__}: {told})") from None


def _check(name: str, model: Any) -> None:
    if not find_models([(name, model)]):
        raise CannotPlanError(f"`{name}` is {named_kind(model)}, no Keras model")
    if is_keras_2(model):
        raise CannotPlanError(f"`{name}` is a model of Keras 2 (tf_keras); only those of Keras 3 are planned")
    import keras

    if keras.backend.backend() != "tensorflow":
        raise CannotPlanError(f"Keras runs on {keras.backend.backend()}; only steps of TensorFlow are planned")
    if not model.compiled:
        raise CannotPlanError(f"`{name}` is not compiled: its optimizer and loss are not known; call {name}.compile(…)")
    if model.run_eagerly or _functions_run_eagerly():
        raise CannotPlanError(f"`{name}` runs operation by operation (run_eagerly): there is no graph of its step")
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1:
        raise CannotPlanError(
            f"`{name}` trains on {strategy.num_replicas_in_sync} devices at once; only one is planned"
        )


def _functions_run_eagerly() -> bool:
    import tensorflow as tf

    return bool(tf.config.functions_run_eagerly())


def _observe(
    name: str,
    model: Any,
    data: tuple[tuple[str, Any], ...],
    asked: tuple[int | None, str],
    shape: tuple[int, ...],
    deadline: float,
) -> Ahead:
    import keras

    batch, batch_from = asked
    if data and shape:
        raise CannotPlanError("name the data or give a shape, not both: the data tell theirs")
    if data:
        given, own = specs_of_data(data)
        only = None
    else:
        inputs, only = specs_of_model(model, shape)
        targets = specs_of_targets(model, _outputs(model, inputs))
        given, own = keras.utils.pack_x_y_sample_weight(inputs, targets), None
    if batch is None:
        batch, batch_from = (own, f"that of `{data[0][0]}`") if own else (USUAL_BATCH, "Keras's default")
    if only is not None and batch != only:
        batch, batch_from = only, "the only one that the model takes"
    graph = _traced(name, model, given, bool(data))
    steps = _steps(graph, batch, only is not None, deadline)
    variables, made = _variables(model, graph)
    weights, slots = (sum(size for part, size in variables if part == wanted) for wanted in ("weights", "optimizer"))
    sample = sum(_bytes(spec, 1) for spec in keras.tree.flatten(given))
    return Ahead(
        model=name,
        batch=batch,
        steps=steps,
        weights=weights,
        slots=slots,
        variables=tuple(size for _, size in variables if size),
        made=made,
        data=sample,
        arrays=sample * (leading_size(data[0][1]) or 0) if data and own is None else 0,
        trainable=sum(array_bytes(v) for v in model.trainable_variables),
        optimizer=" and ".join(dict.fromkeys(type(_inner(one)).__name__ for one in optimizers_of(model))),
        policy=str(model.dtype_policy.name),
        layers=tuple(layer_names(model)),
        blocks=_blocks(model),
        processor=this_processor(),
        jit=bool(model.jit_compile),
        batch_from=batch_from,
    )


def _traced(name: str, model: Any, given: Any, with_data: bool) -> Any:
    """Trace the model's step to a graph, as Keras does."""
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import func_graph_from_py_func

    step = tf.autograph.experimental.do_not_convert(lambda data: model.train_step(data))
    is_empty = not model.variables
    try:
        return func_graph_from_py_func("planned", step, (given,), {})
    except Exception as failed:
        told = " ".join(str(failed).split())[:200]
        hint = (
            "; it has no weights yet: call it on a few samples first"
            if is_empty and isinstance(failed, ValueError)
            else ""
        )
        hint = hint if with_data else "; name the data if it takes others than its inputs and loss tell"
        raise CannotPlanError(
            f"the training step of `{name}` could not be traced ({type(failed).__name__}: {told}){hint}"
        ) from None


def _outputs(model: Any, inputs: Any) -> Any:
    """Give the model's outputs for inputs, as symbolic tensors."""
    from tensorflow.python.framework.func_graph import func_graph_from_py_func

    known = getattr(model, "_outputs_struct", None)
    if known is not None:
        return known
    found: list[Any] = []

    def call(x: Any) -> None:
        found.append(model(x, training=True) if model._call_has_training_arg else model(x))

    try:
        func_graph_from_py_func("outputs", call, (inputs,), {})
    except Exception as failed:
        told = " ".join(str(failed).split())[:200]
        raise CannotPlanError(
            f"the model could not be called on its inputs ({type(failed).__name__}: {told})"
        ) from None
    return found[0]


def _steps(graph: Any, batch: int, fixed: bool, deadline: float) -> tuple[Step, ...]:
    """Read the step at the batch, and at twice that where the model takes any."""
    arguments: list[tuple[int, ...] | None] = [None] * len(graph.inputs)
    sizes = (batch,) if fixed else (batch, 2 * batch)
    return tuple(as_run(read_step(flatten_at(graph, arguments, batch, size, deadline))) for size in sizes)


def _variables(model: Any, graph: Any) -> tuple[tuple[tuple[str, int], ...], int]:
    """Give the bytes of each variable that training needs, by what it is, and of those that are there already."""
    found: dict[int, tuple[str, int]] = {}
    made = 0
    held = [("optimizer", v) for one in optimizers_of(model) for v in variables_of(one)]
    held += [("weights", v) for v in variables_of(model)]
    for part, variable in held:
        key = handle_of(variable)
        if key not in found:
            found[key] = (part, array_bytes(variable))
            made += found[key][1] if _is_there(variable) else 0
    for outer, inner in graph.captures:
        if id(outer) not in found:
            size = captured_bytes(inner) if inner.dtype.name == "resource" else _bytes(inner, 1)
            found[id(outer)] = ("weights", size)
            made += size if _is_eager(outer) else 0
    return tuple(found.values()), made


def _is_there(variable: Any) -> bool:
    inner = getattr(variable, "_value", variable)
    return _is_eager(getattr(inner, "handle", inner))


def _is_eager(tensor: Any) -> bool:
    return type(tensor).__name__ == "EagerTensor"


def _bytes(spec: Any, batch: int) -> int:
    from math import prod

    if spec.shape.rank is None:
        return 0
    return prod(batch if n is None else n for n in spec.shape) * WIDTHS.get(spec.dtype.name, 0)


def _inner(optimizer: Any) -> Any:
    return stored(optimizer).get("inner_optimizer", optimizer)


def _blocks(model: Any) -> tuple[str, ...]:
    """Name the model's layers of the user's own classes that hold other layers, outermost only."""
    import keras

    found: list[str] = []

    def look(owner: Any) -> None:
        for layer in owner._layers:
            own = type(layer).__module__.partition(".")[0] != "keras"
            if own and layer._layers and not isinstance(layer, keras.Model):
                found.append(str(layer.name))
            elif isinstance(layer, keras.Model):
                look(layer)

    look(model)
    return tuple(found)
