"""Distillation: a smaller model learns from a trained one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from tf_mem_magic.apply.deploy._inference import first_inputs
from tf_mem_magic.apply.deploy._side_by_side import compare, evaluated_data, measure

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


def distill(
    teacher: Any,
    student: Any,
    x: Any,
    y: Any = None,
    *,
    temperature: float = 4.0,
    hard: float = 0.1,
    **fit: Any,
) -> Any:
    """Train ``student`` on data and on what ``teacher`` says of them; print what both take and how good they are.

    For classes it is the distillation of Hinton, Vinyals and Dean (2015, "Distilling the Knowledge in a Neural
    Network", arXiv:1503.02531): ``hard`` times the teacher's own loss, and ``1 - hard`` times the cross entropy between
    both models' probabilities, both softened by ``temperature``, times its square, so that its gradients stay as large.
    (As a divergence: it is zero where both agree.) Outputs that are probabilities are turned back into logits by their
    logarithm first. For numbers, the second part is the mean squared error to the teacher's outputs, and the
    temperature does nothing.

    The student is compiled as the teacher is: the same kind of optimizer, loss and metrics, new and unused. The
    teacher's weights, its optimizer and what of it is trainable stay as they are; it runs as in ``predict``. Printed
    numbers are measured: seconds and the peak of one predicted batch by TensorFlow's own counter, which is reset for
    that, and the results on the validation data, where there are some, else on the training data.

    Parameters
    ----------
    teacher : keras.Model
        A trained, compiled model of Keras 3 with one output.
    student : keras.Model
        A built model with the same inputs and output, such as :func:`narrower` gives.
    x, y
        What ``fit`` takes: arrays, a ``tf.data.Dataset``, a ``keras.utils.PyDataset``.
    temperature : float
        Above 1 it tells the student more of what the teacher holds for unlikely.
    hard : float
        Share of the data's own loss, 0 to 1.
    **fit
        More arguments of ``fit``: ``epochs``, ``batch_size``, ``validation_data``, ...

    Returns
    -------
    keras.callbacks.History
        What ``fit`` gives. ``loss`` is the sum of both parts, ``val_loss`` the data's own loss alone.

    Raises
    ------
    TypeError
        If one of the two is not a model of Keras 3.
    ValueError
        If the temperature or the share is out of range, the teacher is not compiled, the two have other outputs, or
        it is not certain what the teacher's outputs mean: its loss is not a plain one, or does not fit its last layer.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be more than 0; it is {temperature}")
    if not 0 <= hard <= 1:
        raise ValueError(f"the share of the data's own loss must be 0 to 1; it is {hard}")
    _check(teacher)
    _check_pair(teacher, student)
    meaning = _meaning(teacher)
    settings = _settings(teacher)
    student.compile(**settings)
    batch = first_inputs(x, fit.get("batch_size") or 32)
    before, after = measure((teacher, student), batch)
    history = _train(teacher, student, meaning, _settings(teacher), (temperature, hard), (x, y), fit)
    data, which = evaluated_data(x, y, fit)
    results = [model.evaluate(**data, verbose=0, return_dict=True) for model in (teacher, student)]
    print(compare(before, after, results, which))
    return history


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a model's outputs mean: ``classes``, ``binary`` or ``values``, and whether they are logits."""

    kind: str
    logits: bool = False


def why_not(teacher: Any) -> str:
    """Say why a narrower student cannot be built from the teacher and learn from it; empty: it can, as far as seen."""
    from tf_mem_magic.apply.deploy.narrower import check_widths

    try:
        check_widths(teacher)
        _check(teacher)
        _meaning(teacher)
    except (TypeError, ValueError) as reason:
        return str(reason)
    return ""


def _check(teacher: Any) -> None:
    base = _model_class()
    if base is None or not isinstance(teacher, base):
        raise TypeError(f"apply.distill needs models of Keras 3; this is a {type(teacher).__name__}")
    if not teacher.built:
        raise ValueError(f"`{teacher.name}` is not built yet: call it once on data")
    if not teacher.compiled or teacher.loss is None:
        raise ValueError("the teacher is not compiled with a loss, so it is not known what its outputs mean")
    if isinstance(teacher.output_shape, (list, dict)) or isinstance(teacher.loss, (list, dict)):
        raise ValueError("the teacher has several outputs, and only one is distilled")
    if type(teacher).train_step is not base.train_step or type(teacher).compute_loss is not base.compute_loss:
        raise ValueError("the teacher has a training step or a loss of its own, which is not known here")


def _check_pair(teacher: Any, student: Any) -> None:
    if not isinstance(student, _model_class()):
        raise TypeError(f"the student must be a model of Keras 3; this is a {type(student).__name__}")
    if not student.built:
        raise ValueError(f"`{student.name}` is not built yet: call it once on data")
    if {id(v) for v in teacher.variables} & {id(v) for v in student.variables}:
        raise ValueError("the student shares weights with the teacher, which would change them")
    if teacher.output_shape != student.output_shape:
        raise ValueError(f"the outputs differ: {teacher.output_shape} and {student.output_shape}")


def _model_class() -> Any:
    return getattr(sys.modules.get("keras.src.models.model"), "Model", None)


def _meaning(teacher: Any) -> _Meaning:
    """Tell from the loss, and see that the last layer fits it."""
    import keras

    loss = keras.losses.get(teacher.loss)
    plain = getattr(loss, "fn", loss)
    name = getattr(plain, "__name__", "")
    if name in _VALUES:
        return _Meaning("values")
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
    return _Meaning("classes" if name in _CLASSES else "binary", logits)


def _settings(teacher: Any) -> dict[str, Any]:
    """Give what the teacher was compiled with, made anew: an optimizer and metrics of its own."""
    import keras

    config = teacher.get_compile_config()
    if not config:
        raise ValueError("how the teacher was compiled cannot be told, so the student cannot be compiled alike")
    try:
        settings: dict[str, Any] = keras.saving.deserialize_keras_object(config)
    except Exception as error:
        raise ValueError(f"Keras cannot make the teacher's optimizer, loss or metrics again: {error}") from error
    return settings


def _train(
    teacher: Any,
    student: Any,
    meaning: _Meaning,
    settings: dict[str, Any],
    weighting: tuple[float, float],
    data: tuple[Any, Any],
    fit: dict[str, Any],
) -> Any:
    """Train the student by ``fit`` of a model around it; the teacher is no part of that model."""
    import keras
    import tensorflow as tf

    temperature, hard = weighting
    soft = _soft_loss(meaning, temperature)

    class Distillation(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.student = student

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            return self.student(inputs, training=training)

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            own = super().compute_loss(x, y, y_pred, sample_weight, training)
            if not training:
                return own
            told = tf.stop_gradient(teacher(x, training=False))
            return hard * own + (1 - hard) * soft(told, y_pred, sample_weight)

    distillation = Distillation()
    distillation.compile(**settings | {"optimizer": student.optimizer})
    return distillation.fit(*data, **fit)


def _soft_loss(meaning: _Meaning, temperature: float) -> Any:
    """Make the loss between the teacher's outputs and the student's, one number a sample, weighted as Keras does."""
    import keras
    import tensorflow as tf

    def softened(outputs: Any) -> Any:
        outputs = tf.cast(outputs, tf.float32)
        if not meaning.logits:
            tiny = keras.backend.epsilon()
            outputs = tf.clip_by_value(outputs, tiny, 1 - tiny)
            outputs = tf.math.log(outputs)
            if meaning.kind == "binary":
                outputs -= tf.math.log(-tf.math.expm1(outputs))
        return outputs / temperature

    class Soft(keras.losses.Loss):
        def call(self, told: Any, said: Any) -> Any:
            if meaning.kind == "values":
                return tf.reduce_mean(tf.square(tf.cast(told, tf.float32) - tf.cast(said, tf.float32)), axis=-1)
            told, said = softened(told), softened(said)
            if meaning.kind == "classes":
                of_told, of_said = tf.nn.log_softmax(told), tf.nn.log_softmax(said)
                return temperature**2 * tf.reduce_sum(tf.exp(of_told) * (of_told - of_said), axis=-1)
            chance = tf.sigmoid(told)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(chance, told)
            cross = tf.nn.sigmoid_cross_entropy_with_logits(chance, said)
            return temperature**2 * tf.reduce_mean(cross - entropy, axis=-1)

    return Soft()
