"""Gradient accumulation for a Keras optimizer that exists already."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

from tf_mem_magic.core.units import named_kind


def accumulate_gradients(model: Any, steps: int) -> Any:
    """Let an optimizer update the weights after every ``steps`` batches, by the mean of their gradients.

    With batches divided by ``steps`` the effective batch stays what it was. The optimizer is changed in place: its
    moments, its learning rate and the number of updates it has made stay, bit for bit. Keras counts every batch as a
    step of a learning-rate schedule; here a schedule goes on counting updates. Each call begins a new group of
    batches: gradients that a failed run has left are dropped. ``1`` takes everything back.

    It keeps one running sum for each trainable weight. An optimizer that saw no weights yet makes them when it does.
    A ``tf.function`` of your own that has run with this optimizer keeps what it was traced with: call this before.

    Parameters
    ----------
    model : keras.Model or keras.optimizers.Optimizer
        A compiled model of Keras 3, or the optimizer of your own training loop.
    steps : int
        How many batches make one update; 1: each.

    Returns
    -------
    keras.Model or keras.optimizers.Optimizer
        What was given.

    Raises
    ------
    TypeError
        If it is neither, or ``steps`` is no integer.
    ValueError
        If the model is not compiled, ``steps`` is below 1, the optimizer keeps a moving average of the weights
        (``use_ema``, which would count every batch), it belongs to a distribution strategy of several devices, or
        the loss sums over the batch, so that a mean of parts is not the whole.
    """
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an integer; it is {steps!r}")
    if steps < 1:
        raise ValueError(f"steps must be 1 or more; it is {steps}")
    optimizer = _optimizer_of(model)
    is_model = optimizer is not model
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if steps > 1:
        _check(model if is_model else None, optimizer)
    _stop(optimizer, empty=is_model)
    if steps > 1:
        _start(optimizer, steps)
    if is_model:
        model.train_function = None
    return model


def _optimizer_of(given: Any) -> Any:
    optimizer_class = getattr(sys.modules.get("keras.src.optimizers.base_optimizer"), "BaseOptimizer", None)
    model_class = getattr(sys.modules.get("keras.src.models.model"), "Model", None)
    if optimizer_class is not None and isinstance(given, optimizer_class):
        return given
    if model_class is None or not isinstance(given, model_class):
        raise TypeError(f"this takes a model or an optimizer of Keras 3; it is {named_kind(given)}")
    if not isinstance(getattr(given, "optimizer", None), optimizer_class or ()):
        raise ValueError("the model is not compiled: call this after compile")
    return given.optimizer


def _check(model: Any, optimizer: Any) -> None:
    if optimizer.use_ema:
        raise ValueError("the optimizer keeps a moving average of the weights (use_ema), which would count every batch")
    if getattr(optimizer._distribution_strategy, "num_replicas_in_sync", 1) > 1:
        raise ValueError("the optimizer belongs to a distribution strategy, where Keras cannot accumulate gradients")
    if model is not None and any(getattr(loss, "reduction", None) == "sum" for loss in _losses(model)):
        raise ValueError('the loss sums over the batch (reduction="sum"): the mean of parts is not the whole')


def _losses(model: Any) -> list[Any]:
    from keras import tree

    return list(tree.flatten(getattr(model, "loss", None)))


def _stop(optimizer: Any, empty: bool) -> None:
    """Make the optimizer update at every batch again; ``empty``: give the sums' memory back."""
    steps = optimizer.gradient_accumulation_steps
    if not steps:
        return
    optimizer._iterations.assign(optimizer._iterations // steps)
    optimizer.gradient_accumulation_steps = None
    schedule = optimizer._learning_rate
    if isinstance(schedule, _schedule_class()):
        optimizer._learning_rate = schedule.schedule
    sums = optimizer.__dict__.pop("_accumulated_gradients", ())
    gone = {id(v) for v in sums}
    _set_variables(optimizer, [v for v in optimizer._variables if id(v) not in gone])
    if empty:
        for variable in sums:
            _empty(variable)


def _start(optimizer: Any, steps: int) -> None:
    optimizer._iterations.assign(optimizer._iterations * steps)
    optimizer.gradient_accumulation_steps = steps
    schedule = optimizer._learning_rate
    if _is_schedule(schedule):
        optimizer._learning_rate = _schedule_class()(schedule, steps)
    if optimizer.built:
        _add_sums(optimizer)


def _add_sums(optimizer: Any) -> None:
    """Add a sum for each weight where a new optimizer has it: files keep an optimizer's variables by their order."""
    from keras.src.utils.tracking import DotNotTrackScope

    before = list(optimizer._variables)
    weights = list(optimizer._trainable_variables)
    sums = [optimizer.add_variable_from_reference(v, name="gradient_accumulator") for v in weights]
    with DotNotTrackScope():
        optimizer._accumulated_gradients = sums
    first = [v for v in before if v is optimizer._iterations or v is optimizer._learning_rate]
    rest = [v for v in before if all(v is not one for one in first)]
    _set_variables(optimizer, [*first, *sums, *rest])


def _set_variables(optimizer: Any, variables: list[Any]) -> None:
    """Replace the list of the optimizer's variables; changing it in place would forbid TensorFlow's checkpoints."""
    from keras.src.utils.tracking import DotNotTrackScope

    tracker = optimizer._tracker
    with DotNotTrackScope():
        optimizer._variables = list(variables)
    is_variable, _ = tracker.config["variables"]
    tracker.config["variables"] = (is_variable, optimizer._variables)
    tracker.stored_ids["variables"] = {id(v) for v in variables}


def _empty(variable: Any) -> None:
    """Give a variable's memory back: a graph that Keras has traced may keep the variable itself for good."""
    import tensorflow as tf

    inner = variable._value
    tf.raw_ops.AssignVariableOp(resource=inner.handle, value=tf.zeros((0,), inner.dtype), validate_shape=False)


def _is_schedule(rate: Any) -> bool:
    from keras.optimizers.schedules import LearningRateSchedule

    return isinstance(rate, LearningRateSchedule)


@lru_cache(maxsize=1)
def _schedule_class() -> Any:
    """Make the class of a schedule that counts updates where Keras counts batches."""
    import keras

    @keras.saving.register_keras_serializable(package="tf_mem_magic")
    class CountingUpdates(keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self, schedule: Any, steps: int) -> None:
            self.schedule, self.steps = schedule, steps

        def __call__(self, step: Any) -> Any:
            return self.schedule(keras.ops.floor_divide(step, self.steps))

        def get_config(self) -> dict[str, Any]:
            return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "steps": self.steps}

        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
            inner = keras.optimizers.schedules.deserialize(config["schedule"], custom_objects)
            return cls(inner, config["steps"])

    return CountingUpdates
