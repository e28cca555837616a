"""Magnitude pruning of a Keras 3 model: the smallest weights of a copy become zeros while it trains further."""

from __future__ import annotations

import tempfile
import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tf_mem_magic.core.units import brief_unit, size

RAMP = 2 / 3
"""Share of the training steps in which the sparsity rises; the rest trains what is left."""

UPDATES = 20
"""How often, at most, the weights to set to zero are chosen anew while the sparsity rises."""

_KERNELS = frozenset({"kernel", "recurrent_kernel", "pointwise_kernel"})
_SHOWN = 12


@dataclass(frozen=True)
class Kernel:
    """One pruned kernel: its path in the model, how many weights it has and how many of them are zero."""

    path: str
    weights: int
    zeros: int


@dataclass(frozen=True)
class PruneReport:
    """What pruning did, measured.

    ``kernels`` are those that were pruned, ``aim`` the sparsity asked for, ``weights`` counts every number of the
    model. ``file`` is the size of the weights saved by ``numpy.savez``, and ``before`` and ``after`` that by
    ``numpy.savez_compressed``, of the original and of the pruned model: bytes. ``metrics_before`` and
    ``metrics_after`` are what ``evaluate`` gave for the two on the same data (empty: none were given). As text it is a
    summary.
    """

    kernels: tuple[Kernel, ...]
    aim: float
    weights: int
    file: int
    before: int
    after: int
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]

    @property
    def sparsity(self) -> float:
        """Share of the pruned kernels' weights that are zero, 0 to 1."""
        return sum(k.zeros for k in self.kernels) / sum(k.weights for k in self.kernels)

    def __str__(self) -> str:
        total = sum(k.weights for k in self.kernels)
        lines = [f"{self.sparsity:.1%} of {total:,} kernel weights are zero; the aim was {self.aim:.1%}."]
        lines += [f"  {k.path}: {k.zeros / k.weights:.1%} of {k.weights:,}" for k in self.kernels[:_SHOWN]]
        if len(self.kernels) > _SHOWN:
            lines.append(f"  and {len(self.kernels) - _SHOWN} more kernels")
        unit = brief_unit([self.file])
        lines.append(f"The other {self.weights - total:,} numbers of the model were not pruned.")
        lines.append(
            f"The weights in an .npz file: {size(self.file, unit)}; compressed, {size(self.before, unit)} before and "
            f"{size(self.after, unit)} after. In memory nothing is smaller: the zeros are stored."
        )
        for name, value in self.metrics_before.items():
            lines.append(f"{name}: {value:.4g} before, {self.metrics_after[name]:.4g} after, on the data given.")
        return "\n".join(lines)


def prune(model: Any, sparsity: float = 0.75) -> Any:
    """Copy a trained model and give a Keras callback that prunes the copy while ``fit`` trains it further.

    Use it as ``pruning = prune(model)``, then ``pruning.model.fit(x, y, callbacks=[pruning])``, then
    ``print(pruning.report(x, y))``. The given model is not changed. The copy is the same kind of Keras model, compiled
    the same way; its optimizer goes on from the state that the model's own has, a learning-rate schedule included.
    ``numpy.savez_compressed(path, *pruning.model.get_weights())`` writes the small file; a file of ``model.save``
    holds the optimizer's state too.

    In each pruned kernel the weights of least magnitude become zero, by the gradual schedule of Zhu and Gupta
    (2017, "To prune, or not to prune: exploring the efficacy of pruning for model compression", arXiv:1710.01878,
    equation 1): ``s = s_f + (s_i - s_f) (1 - t) ** 3``, where ``s_f`` is ``sparsity``, ``s_i`` the share that is zero
    at the start and ``t`` goes from 0 to 1 over the first two thirds of the training steps. What is zero is set to
    zero again after each step of the optimizer, inside it, so momentum cannot bring it back. When ``fit`` ends, the
    copy is a plain model: nothing of this stays in it, and training it without the callback fills the zeros again.

    Pruned are the trainable kernels of every layer (dense, convolution, attention, recurrent); not biases,
    normalization, embeddings, frozen layers, and depthwise convolutions, which have few weights.

    Parameters
    ----------
    model : keras.Model
        A trained, compiled Sequential or functional model of Keras 3.
    sparsity : float
        The share of each kernel's weights that shall be zero at the end, more than 0 and less than 1.

    Returns
    -------
    keras.callbacks.Callback
        With ``model``, the copy, and ``report(...)``, which takes the data that ``evaluate`` takes and gives a
        :class:`PruneReport`.

    Raises
    ------
    TypeError
        If it is not a Sequential or functional model of Keras 3: others cannot be copied for sure.
    ValueError
        If the sparsity is out of range, the model is not built or compiled, has nothing to prune, belongs to a
        distribution strategy of several devices, or a layer, the optimizer or a metric cannot be copied.
    """
    from tf_mem_magic.apply.deploy.copy_model import copy_model

    if not 0 < sparsity < 1:
        raise ValueError(f"the sparsity must be more than 0 and less than 1; it is {sparsity}")
    copied = copy_model(model)
    if not _kernels_of(copied):
        raise ValueError("the model has no trainable kernel of a dense, convolution or recurrent layer to prune")
    return _pruning_class()(model, copied, sparsity)


def _kernels_of(model: Any) -> list[Any]:
    """List the kernels to prune, each once."""
    import keras

    depthwise = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
    own = [
        variable
        for layer in model._flatten_layers()
        if not isinstance(layer, depthwise)
        for variable in layer._trainable_variables
    ]
    chosen = [v for v in own if v.trainable and v.name in _KERNELS and len(v.shape) > 1]
    trained = {id(v) for v in model.trainable_variables}
    return list({id(v): v for v in chosen if id(v) in trained}.values())


@lru_cache(maxsize=1)
def _pruning_class() -> Any:
    import keras
    import numpy as np
    import tensorflow as tf

    class Masked(keras.constraints.Constraint):
        """The zeros of one variable: the optimizer applies a constraint after each update, in the compiled step too."""

        def __init__(self, variable: Any) -> None:
            self.variable, self.own = variable, variable.constraint
            values = variable.numpy()
            self.start = 1 - np.count_nonzero(values) / values.size
            with tf.device(variable.value.device):
                self.mask = tf.Variable(values != 0, trainable=False)

        def __call__(self, w: Any) -> Any:
            w = keras.ops.convert_to_tensor(w if self.own is None else self.own(w))
            return tf.where(self.mask, w, tf.zeros_like(w))

        def choose(self, sparsity: float) -> None:
            """Let the non-zero weights of least magnitude go until ``sparsity`` is reached; equal ones in any order."""
            values = self.variable.numpy().ravel()
            kept = np.flatnonzero(values)
            more = round(sparsity * values.size) - (values.size - kept.size)
            if more > 0:
                sizes = np.abs(values[kept].astype("float32", copy=False))
                kept = kept[np.argpartition(sizes, more - 1)[more:]]
            mask = np.zeros(values.size, bool)
            mask[kept] = True
            self.mask.assign(mask.reshape(self.mask.shape))
            self.hold()

        def hold(self) -> None:
            """Set the chosen weights to zero now."""
            value = self.variable.value
            self.variable.assign(tf.where(self.mask, value, tf.zeros_like(value)))

    class Pruning(keras.callbacks.Callback):
        """Prunes the model that ``fit`` trains; see ``apply.prune``."""

        def __init__(self, original: Any, copied: Any, sparsity: float) -> None:
            super().__init__()
            self.sparsity = sparsity
            self._original = weakref.ref(original)
            self._masks: list[Masked] = []
            self._copy = copied
            self.set_model(copied)

        def on_train_begin(self, logs: Any = None) -> None:
            if self.model is not self._copy:
                self.set_model(self._copy)
                raise ValueError("this callback belongs to its own copy: call fit of pruning.model")
            if self.params.get("steps") is None:
                raise ValueError("how many batches an epoch has is not known: give fit steps_per_epoch")
            self._strip()  # what an interrupted fit has left
            self._first_epoch: int | None = None
            self._masks = [Masked(kernel) for kernel in _kernels_of(self._copy)]
            for mask in self._masks:
                mask.variable.constraint = mask
            # What was compiled before, in an earlier fit, has no masks in it.
            self._copy.make_train_function(force=True)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if self._first_epoch is None:
                self._first_epoch = epoch
                steps = (self.params["epochs"] - epoch) * self.params["steps"]
                self._ramp = max(1, round(RAMP * steps))
                self._every = -(-self._ramp // UPDATES)
                self._next: float = 0
            self._done = (epoch - self._first_epoch) * self.params["steps"]

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            step = self._done + batch
            if step < self._next:
                return
            # Steps that run in one execution all train with the zeros that the last of them is to have.
            part = min((step + self._copy.steps_per_execution) / self._ramp, 1.0)
            for mask in self._masks:
                start, end = mask.start, max(self.sparsity, mask.start)
                mask.choose(end + (start - end) * (1 - part) ** 3)
            self._next = min(step + self._every, self._ramp - 1) if part < 1 else float("inf")

        def on_train_end(self, logs: Any = None) -> None:
            self._strip()
            self._copy.train_function = None

        def _strip(self) -> None:
            for mask in self._masks:
                mask.hold()
                mask.variable.constraint = mask.own
            self._masks = []

        def report(self, *data: Any, **options: Any) -> PruneReport:
            """Measure zeros, files and, where data are given, loss and metrics of both models.

            ``data`` are ``x`` and ``y``, a dataset, or one tuple as ``validation_data`` of ``fit`` takes it, and
            ``options`` further arguments of ``evaluate``.
            """
            original = self._original()
            if original is None:
                raise ValueError("the model that the copy was made of is gone, so there is nothing to compare with")
            file, before = _file_sizes(original)
            if len(data) == 1 and isinstance(data[0], (tuple, list)):
                options |= zip(("x", "y", "sample_weight"), data[0])
            else:
                options |= zip(("x", "y"), data)
            options = {"verbose": 0, **options, "return_dict": True}
            models = (original, self._copy) if "x" in options else ()
            metrics = [one.evaluate(**options) for one in models] or [{}, {}]
            kernels = [(v.path, v.numpy()) for v in _kernels_of(self._copy)]
            return PruneReport(
                tuple(Kernel(path, values.size, int((values == 0).sum())) for path, values in kernels),
                self.sparsity,
                sum(int(np.prod(v.shape)) for v in self._copy.weights),
                file,
                before,
                _file_sizes(self._copy)[1],
                *({name: float(value) for name, value in one.items()} for one in metrics),
            )

    return Pruning


def _file_sizes(model: Any) -> tuple[int, int]:
    """Save the weights to a temporary folder as ``.npz``, plain and compressed; give the bytes of the two files."""
    import numpy as np

    weights = model.get_weights()
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "plain.npz"), Path(folder, "packed.npz")
        np.savez(plain, *weights)
        np.savez_compressed(packed, *weights)
        return plain.stat().st_size, packed.stat().st_size
