"""Distillation: a smaller model learns from a trained one."""

from __future__ import annotations

from typing import Any

from tf_mem_magic.apply.deploy._inference import first_inputs
from tf_mem_magic.apply.deploy._side_by_side import compare, evaluated_data, measure
from tf_mem_magic.core.units import named_kind
from tf_mem_magic.remedies.deploy._meaning import Meaning, check_teacher, meaning_of, model_class


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
    check_teacher(teacher)
    _check_pair(teacher, student)
    meaning = meaning_of(teacher)
    settings = _settings(teacher)
    student.compile(**settings)
    batch = first_inputs(x, fit.get("batch_size") or 32)
    before, after = measure((teacher, student), batch)
    history = _train(teacher, student, meaning, _settings(teacher), (temperature, hard), (x, y), fit)
    data, which = evaluated_data(x, y, fit)
    results = [model.evaluate(**data, verbose=0, return_dict=True) for model in (teacher, student)]
    print(compare(before, after, results, which))
    return history


def _check_pair(teacher: Any, student: Any) -> None:
    if not isinstance(student, model_class()):
        raise TypeError(f"the student must be a model of Keras 3; this is {named_kind(student)}")
    if not student.built:
        raise ValueError(f"`{student.name}` is not built yet: call it once on data")
    if {id(v) for v in teacher.variables} & {id(v) for v in student.variables}:
        raise ValueError("the student shares weights with the teacher, which would change them")
    if teacher.output_shape != student.output_shape:
        raise ValueError(f"the outputs differ: {teacher.output_shape} and {student.output_shape}")


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
    meaning: Meaning,
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


def _soft_loss(meaning: Meaning, temperature: float) -> Any:
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
