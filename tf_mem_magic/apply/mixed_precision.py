"""Mixed precision for a Keras model that is built already."""

from __future__ import annotations

import sys
import weakref
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from tf_mem_magic.core.units import named_kind
from tf_mem_magic.remedies.mixed_precision.probe import layers_to_change, rounds_ids

POLICIES = ("mixed_float16", "mixed_bfloat16", "float32")


@dataclass(frozen=True)
class _Original:
    """How a model was before ``policy`` was applied.

    ``policies`` by layer that was changed, ``factors`` each optimizer's own fixed loss scale, ``scaled`` the models
    that had a ``LossScaleOptimizer`` already.
    """

    policy: str = "float32"
    policies: weakref.WeakKeyDictionary[Any, Any] = field(default_factory=weakref.WeakKeyDictionary)
    factors: weakref.WeakKeyDictionary[Any, Any] = field(default_factory=weakref.WeakKeyDictionary)
    scaled: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)


_originals: weakref.WeakKeyDictionary[Any, _Original] = weakref.WeakKeyDictionary()


def mixed_precision(model: Any, policy: str) -> Any:
    """Change a built Keras 3 model, in place, to compute in 16 bits; ``"float32"`` takes it back.

    Weights stay the same float32 variables, bit for bit, and so does the optimizer's state: with ``"mixed_float16"``
    the same optimizer object is wrapped in Keras's ``LossScaleOptimizer``, with ``"float32"`` it is unwrapped again.
    Layers that produce the model's outputs keep computing in float32; of a subclassed model these are the last layers
    of the models that it holds, and softmax layers. Loss, metrics, ``jit_compile`` and the other settings of
    ``compile`` stay as they are; the compiled train, test and predict functions are dropped, because they would go on
    with the old precision.

    Layers that other models share change for those models too: call this on the model that you train.

    Parameters
    ----------
    model : keras.Model
        A built model of Keras 3.
    policy : {"mixed_float16", "mixed_bfloat16", "float32"}
        The precision to compute in.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    TypeError
        If ``model`` is not a model of Keras 3.
    ValueError
        If the policy is none of the three, the model is not built, it holds quantized layers, it would round the ids
        that it looks up, or float16 was asked for a model whose own ``train_step`` does not scale its loss.
    """
    _check(model, policy)
    if model in _originals and _originals[model].policy == policy:
        return model
    if model in _originals or policy == "float32":
        _restore(model)
    if policy != "float32":
        try:
            _convert(model, policy)
        except BaseException:
            _restore(model)  # a layer of the user's own refused: all or nothing
            raise
    for trainer in _trainers(model):
        trainer.train_function = trainer.test_function = trainer.predict_function = None
    return model


def _check(model: Any, policy: str) -> None:
    if policy not in POLICIES:
        raise ValueError(f"the policy must be one of {', '.join(POLICIES)}; it is {policy!r}")
    keras = sys.modules.get("keras")
    known = getattr(sys.modules.get("keras.src.models.model"), "Model", None)
    if keras is None or known is None or not isinstance(model, known):
        if type(model).__module__.startswith("tf_keras") or any(
            "tf_keras" in b.__module__ for b in type(model).__mro__
        ):
            raise TypeError("this is a model of tf_keras (Keras 2); set its policy before it is built instead")
        raise TypeError(f"apply.mixed_precision changes a Keras 3 model; this is {named_kind(model)}")
    if not _is_there(model):
        raise ValueError(
            "the model is not built yet, so layers that it makes later would stay in float32; "
            f'write keras.config.set_dtype_policy("{policy}") before the model is made instead'
        )
    if any(layer.dtype_policy.quantization_mode for layer in model._flatten_layers()):
        raise ValueError("the model holds quantized layers, whose precision is fixed")
    if policy != "float32" and rounds_ids(model):
        raise ValueError(
            "ids reach an Embedding of this model as float32, through a layer that would round them in 16 bits: "
            'give the model\'s Input dtype="int32"'
        )
    if policy == "mixed_float16":
        for trainer in _trainers(model):
            if trainer.compiled and not _scales_loss(trainer):
                raise ValueError(
                    f"{type(trainer).__name__} has its own train_step, which does not call optimizer.scale_loss: "
                    'float16 gradients would underflow; use "mixed_bfloat16", which needs no loss scaling'
                )


def _is_there(model: Any) -> bool:
    """Whether all layers that compute are built: also those of a model that only trains others, and is never called."""
    inside = list(model._flatten_layers(include_self=False))
    return bool(model.built or (inside and all(layer.built for layer in inside)))


def _scales_loss(model: Any) -> bool:
    """Whether ``fit`` scales the loss: Keras's own training step does, another must say so by name."""
    step = type(model).train_step
    own = step.__module__.startswith("keras.src.")
    return own or "scale_loss" in getattr(getattr(step, "__code__", None), "co_names", ())


def _convert(model: Any, policy: str) -> None:
    original = _originals[model] = _Original(policy)
    for layer in layers_to_change(model):
        original.policies[layer] = layer.dtype_policy
        layer.dtype_policy = policy
    if policy == "mixed_float16":
        for trainer in _trainers(model):
            _scale_loss(trainer, original)


def _scale_loss(trainer: Any, original: _Original) -> None:
    """Wrap the trainer's optimizer for dynamic loss scaling; its state and step count stay."""
    from keras.optimizers import LossScaleOptimizer

    inner = trainer.optimizer if trainer.compiled else None
    if inner is None:
        return
    if isinstance(inner, LossScaleOptimizer):
        original.scaled.add(trainer)
        return
    original.factors[inner] = inner.loss_scale_factor
    strategy = getattr(trainer, "_distribute_strategy", None)
    with strategy.scope() if strategy is not None else nullcontext():
        outer = LossScaleOptimizer(inner, name="loss_scale_optimizer")
        if inner.built:
            outer.build(inner._trainable_variables)
    _set_optimizer(trainer, outer)


def _restore(model: Any) -> None:
    """Take policies and optimizers back to what they were; without a record, mixed layers become float32."""
    original = _originals.pop(model, None)
    for layer in model._flatten_layers():
        before = "float32" if original is None else original.policies.get(layer)
        if before is not None and layer.dtype_policy.name.startswith("mixed_"):
            layer.dtype_policy = before
    for trainer in _trainers(model):
        inner = getattr(trainer.optimizer, "inner_optimizer", None) if trainer.compiled else None
        if inner is None or (original is not None and trainer in original.scaled):
            continue
        if original is not None:
            inner.loss_scale_factor = original.factors.get(inner)
        _set_optimizer(trainer, inner)


def _set_optimizer(trainer: Any, optimizer: Any) -> None:
    """Set the optimizer as ``compile`` does: untracked, so that the model's state is the same as after ``compile``."""
    from keras.src.utils.tracking import DotNotTrackScope

    with DotNotTrackScope():
        trainer.optimizer = optimizer


def _trainers(model: Any) -> list[Any]:
    """List the model and the models inside it: each has its own compiled functions and perhaps an optimizer."""
    from keras import Model

    return [layer for layer in model._flatten_layers() if isinstance(layer, Model)]
