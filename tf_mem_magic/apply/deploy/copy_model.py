"""A copy of a trained Keras 3 model that can go on training on its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tf_mem_magic.core.units import named_kind


def copy_model(model: Any) -> Any:
    """Copy a compiled Sequential or functional model: layers, weights, settings of ``compile``, optimizer state.

    The copy shares no variable with the model. What is trainable stays so; the optimizer goes on from the steps,
    learning rate and moments that the model's own has. Metrics are new objects; a loss is the same object.

    Parameters
    ----------
    model : keras.Model
        A built and compiled model of Keras 3.

    Returns
    -------
    keras.Model
        Another model of the same class.

    Raises
    ------
    TypeError
        If it is not a Sequential or functional model of Keras 3, or its class cannot be made anew.
    ValueError
        If it is not built or compiled, is compiled in a way of its own, belongs to a distribution strategy of
        several devices, or a layer, the optimizer or a metric cannot be copied.
    """
    _check(model)
    import keras

    # Classes of the notebook are not registered with Keras; these are their owner's own.
    rate = getattr(_inner(model.optimizer), "_learning_rate", None)
    own = {type(one).__name__: type(one) for one in (*model._flatten_layers(), model.optimizer, rate)}
    with keras.saving.custom_object_scope(own):
        copied = _copied_layers(model)
        _check_same(model, copied)
        copied.set_weights(model.get_weights())
        _compile_like(model, copied)
    return copied


def _check(model: Any) -> None:
    keras = sys.modules.get("keras")
    functional = getattr(sys.modules.get("keras.src.models.functional"), "Functional", None)
    if keras is None or functional is None or not isinstance(model, (functional, keras.Sequential)):
        raise TypeError(
            f"only Sequential and functional models of Keras 3 can be copied for sure; this is {named_kind(model)}"
        )
    if not model.built:
        raise ValueError("the model is not built: train it first")
    if not model.compiled or model.optimizer is None:
        raise ValueError("the model is not compiled with an optimizer, so its copy could not be trained")
    if type(model).compile is not keras.Model.compile:
        raise ValueError(f"{type(model).__name__} has a compile of its own, which cannot be done again for a copy")
    if getattr(model.distribute_strategy, "num_replicas_in_sync", 1) > 1:
        raise ValueError("the model is spread over several devices by a distribution strategy")
    if any(isinstance(layer, keras.layers.Lambda) for layer in model._flatten_layers()):
        raise ValueError("the model has a Lambda layer, whose function Keras cannot copy")


def _copied_layers(model: Any) -> Any:
    import keras

    try:
        with _not_compiled(model):
            copied = keras.models.clone_model(model, recursive=True)
    except Exception as error:
        raise ValueError(f"Keras cannot copy this model ({type(error).__name__}: {error})") from error
    if type(copied) is not type(model):
        raise TypeError(f"Keras copies {named_kind(model)} as a plain {type(copied).__name__}")
    return copied


@contextmanager
def _not_compiled(model: Any) -> Iterator[None]:
    """Keep ``clone_model`` from compiling: it fails for a loss that is a function of the notebook."""
    compiled = [one for one in model._flatten_layers() if getattr(one, "compiled", False)]
    for one in compiled:
        one.compiled = False
    try:
        yield
    finally:
        for one in compiled:
            one.compiled = True


def _check_same(model: Any, copied: Any) -> None:
    """Give the copy the same trainable layers and variables; refuse where it has other weights."""
    if [w.shape for w in model.weights] != [w.shape for w in copied.weights]:
        raise ValueError("a copy of this model would have other weights; a layer keeps something outside its config")
    for one, other in zip(model._flatten_layers(), copied._flatten_layers()):
        if one.trainable != other.trainable:
            other.trainable = one.trainable
    for one, other in zip(model.weights, copied.weights):
        if one.trainable != other.trainable:
            other.trainable = one.trainable
    if [w.shape for w in model.trainable_weights] != [w.shape for w in copied.trainable_weights]:
        raise ValueError("a copy of this model would train other weights")


def _compile_like(model: Any, copied: Any) -> None:
    given = model._compile_config.config
    copied.compile(
        optimizer=_copied_optimizer(model.optimizer),
        loss=given["loss"],
        loss_weights=given["loss_weights"],
        metrics=_fresh(given["metrics"]),
        weighted_metrics=_fresh(given["weighted_metrics"]),
        run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
        jit_compile=model.jit_compile,
        # Whether the loss is scaled was decided when the model was compiled: its optimizer does it or not.
        auto_scale_loss=False,
    )
    if model.optimizer.built:
        copied.optimizer.build(copied.trainable_variables)
        before, after = model.optimizer.variables, copied.optimizer.variables
        if [v.shape for v in before] != [v.shape for v in after]:
            raise ValueError("the optimizer was built for other weights than the model trains")
        for one, other in zip(before, after):
            other.assign(one)


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)


def _copied_optimizer(optimizer: Any) -> Any:
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise ValueError("some weights are excluded from the optimizer's weight decay, which a copy would not know")
    config = optimizer.get_config()
    if _inner(optimizer) is not optimizer:
        config["inner_optimizer"] = _copied_optimizer(optimizer.inner_optimizer)
        return type(optimizer)(**config)
    try:
        return type(optimizer).from_config(config)
    except Exception as error:
        raise ValueError(f"the optimizer cannot be copied ({type(error).__name__}: {error})") from error


def _fresh(metrics: Any) -> Any:
    """Make metric objects anew, in the same lists and dictionaries; names and functions stay."""
    import keras

    if isinstance(metrics, dict):
        return {key: _fresh(one) for key, one in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        return [_fresh(one) for one in metrics]
    if not isinstance(metrics, keras.metrics.Metric):
        return metrics
    try:
        return type(metrics).from_config(metrics.get_config())
    except Exception as error:
        raise ValueError(f"the metric {metrics.name} cannot be copied ({type(error).__name__}: {error})") from error
