"""What the outputs of a trained Keras model mean, and whether a narrower one can learn from them; it is only read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from tf_mem_magic.core.units import named_kind
from tf_mem_magic.remedies.deploy._widths import check_widths

_CLASSES = frozenset({"categorical_crossentropy", "sparse_categorical_crossentropy"})
_BINARY = frozenset({"binary_crossentropy"})
_VALUES = frozenset(
    {
        "mean_squared_error",
        "mean_absolute_error",
        "huber",
        "log_cosh",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
    }
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a model's outputs mean: ``classes``, ``binary`` or ``values``, and whether they are logits."""

    kind: str
    logits: bool = False


def why_not(teacher: Any) -> str:
    """Say why a narrower student cannot be built from the teacher and learn from it; empty: it can, as far as seen."""
    try:
        check_widths(teacher)
        check_teacher(teacher)
        meaning_of(teacher)
    except (TypeError, ValueError) as reason:
        return str(reason)
    return ""


def check_teacher(teacher: Any) -> None:
    base = model_class()
    if base is None or not isinstance(teacher, base):
        raise TypeError(f"apply.distill needs models of Keras 3; this is {named_kind(teacher)}")
    if not teacher.built:
        raise ValueError(f"`{teacher.name}` is not built yet: call it once on data")
    if not teacher.compiled or teacher.loss is None:
        raise ValueError("the teacher is not compiled with a loss, so it is not known what its outputs mean")
    if isinstance(teacher.output_shape, (list, dict)) or isinstance(teacher.loss, (list, dict)):
        raise ValueError("the teacher has several outputs, and only one is distilled")
    if type(teacher).train_step is not base.train_step or type(teacher).compute_loss is not base.compute_loss:
        raise ValueError("the teacher has a training step or a loss of its own, which is not known here")


def model_class() -> Any:
    return getattr(sys.modules.get("keras.src.models.model"), "Model", None)


def meaning_of(teacher: Any) -> Meaning:
    """Tell from the loss, and see that the last layer fits it."""
    keras = sys.modules["keras"]
    loss = keras.losses.get(teacher.loss)
    plain = getattr(loss, "fn", loss)
    name = getattr(plain, "__name__", "")
    if name in _VALUES:
        return Meaning("values")
    if name not in _CLASSES | _BINARY:
        raise ValueError(f"what the outputs mean under the loss `{name or loss}` is not known here")
    logits = bool(getattr(loss, "from_logits", False))
    wanted = "softmax" if name in _CLASSES else "sigmoid"
    layers = getattr(teacher, "layers", ())
    last = layers[-1] if layers else None
    activation = "softmax" if type(last).__name__ == "Softmax" else getattr(last, "activation", None)
    found = getattr(activation, "__name__", activation)
    if found is not None and (found == wanted) is logits:
        what = "logits" if logits else "probabilities"
        raise ValueError(f"the loss expects {what}, but the last layer's activation is `{found}`")
    return Meaning("classes" if name in _CLASSES else "binary", logits)
