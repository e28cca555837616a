"""What a model would be given: the shapes and dtypes of one batch, from data by name or from the model itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tf_mem_magic.facts.data import dataset_batch, leading_size
from tf_mem_magic.facts.kinds import Kinds

_DATASET = ((("tensorflow.python.data.ops.dataset_ops", "DatasetV2"), "tf.data"),)
_OTHERS = (
    (("keras.src.trainers.data_adapters.py_dataset_adapter", "PyDataset"), "PyDataset"),
    (("types", "GeneratorType"), "generator"),
)


class CannotPlanError(ValueError):
    """A model cannot be planned; the text is a sentence for the user that says why."""


def specs_of_data(named: Sequence[tuple[str, Any]]) -> tuple[Any, int | None]:
    """Give what a training step takes of data, as tensors of unknown batch, and the batch that it comes in.

    Parameters
    ----------
    named : sequence of (str, object)
        The data by name: a batched ``tf.data.Dataset``, or the arrays of inputs, targets and sample weights.

    Raises
    ------
    CannotPlanError
        If the shapes cannot be told without drawing from it.
    """
    import keras

    first_name, first = named[0]
    other = Kinds(_OTHERS).of(first)
    if other is not None:
        raise CannotPlanError(
            f"`{first_name}` is a {other}: what it gives is known only when it is drawn from; name arrays or a dataset,"
            " or give --shape"
        )
    if Kinds(_DATASET).of(first) is not None:
        batch = dataset_batch(first)
        if batch is None:
            raise CannotPlanError(
                f"`{first_name}` is a dataset whose batch size cannot be told: call .batch(n) on it as its last"
                " step, or leave it out"
            )
        if len(named) > 1:
            raise CannotPlanError(f"`{first_name}` is a dataset, which gives the targets too: name no other data")
        _check_sizes(first_name, [spec.shape for spec in keras.tree.flatten(first.element_spec)])
        return keras.tree.map_structure(lambda spec: _spec(spec.shape, spec.dtype), first.element_spec), batch
    sizes = {leading_size(value) for _, value in named}
    if None in sizes:
        name = next(name for name, value in named if leading_size(value) is None)
        raise CannotPlanError(f"`{name}` has no rows whose shape could be told: name arrays, tensors or a dataset")
    if len(sizes) > 1:
        told = ", ".join(f"`{name}` {leading_size(value)}" for name, value in named)
        raise CannotPlanError(f"the data do not have as many rows as one another: {told}")
    for name, value in named:
        _check_sizes(name, [one.shape for one in keras.tree.flatten(value)])
    specs = [keras.tree.map_structure(lambda one: _spec(one.shape, _dtype(one)), value) for _, value in named]
    return keras.utils.pack_x_y_sample_weight(*specs[:3]), None


def _check_sizes(name: str, shapes: Iterable[Any]) -> None:
    """Refuse data whose samples may be of any size: what a model makes of them would not be counted."""
    for shape in shapes:
        if getattr(shape, "rank", 0) is None:
            raise CannotPlanError(
                f"`{name}` does not tell the shape of its samples: leave it out, or give --shape instead"
            )
        if None in tuple(shape)[1:]:
            raise CannotPlanError(
                f"`{name}` holds samples of any size, {_words(shape)}: leave it out, or give --shape instead"
            )


def specs_of_model(model: Any, shape: tuple[int, ...]) -> tuple[Any, int | None]:
    """Give the inputs that a model takes as tensors of unknown batch, and the batch size where it takes one only.

    Raises
    ------
    CannotPlanError
        If the model does not tell them.
    """
    import keras

    inputs = _inputs(model)
    if inputs is None:
        if not shape:
            raise CannotPlanError(
                "the model was never called, so it does not tell what it takes: name the data, or give --shape"
            )
        return _spec((None, *shape), model.input_dtype), None
    flat = keras.tree.flatten(inputs)
    if shape and len(flat) > 1:
        raise CannotPlanError(f"the model takes {len(flat)} inputs: name the data instead of giving --shape")
    if shape:
        return keras.tree.map_structure(lambda one: _spec((None, *shape), one.dtype), inputs), None
    unknown = [one for one in flat if None in tuple(one.shape)[1:]]
    if unknown:
        raise CannotPlanError(
            f"the model takes samples of any size, {_words(unknown[0].shape)}: name the data, or give --shape"
        )
    fixed = {one.shape[0] for one in flat} - {None}
    return keras.tree.map_structure(lambda one: _spec(one.shape, one.dtype), inputs), next(iter(fixed), None)


def specs_of_targets(model: Any, outputs: Any) -> Any:
    """Give what the loss compares the outputs with: like them, or a number for each where the loss is sparse.

    None where the model was compiled without a loss.
    """
    import keras

    loss = getattr(model._compile_loss, "_user_loss", None) if model._compile_loss is not None else None
    if loss is None:
        return None
    flat = keras.tree.flatten(outputs)
    losses = each_loss(loss, outputs, getattr(model, "output_names", None), len(flat))
    targets = []
    for one, out in zip(losses, flat):
        sparse = "sparse" in _name(one)
        shape = tuple(out.shape)
        targets.append(_spec((None, *shape[1:-1]), "int32") if sparse else _spec((None, *shape[1:]), out.dtype))
    return keras.tree.pack_sequence_as(outputs, targets)


def each_loss(loss: Any, outputs: Any, names: Sequence[str] | None, count: int) -> list[Any]:
    """Give the loss of each of a model's outputs, as they stand when flattened; None where one has none.

    ``names``: those of the outputs, by which losses may be given.
    """
    if isinstance(loss, dict):
        order = sorted(outputs) if isinstance(outputs, dict) else names or list(loss)
        found = [loss.get(name) for name in order]
    else:
        found = list(loss) if isinstance(loss, (list, tuple)) else [loss] * count
    return [*found, *[None] * count][:count]


def _name(loss: Any) -> str:
    named = loss if isinstance(loss, str) else getattr(loss, "__name__", "") or type(loss).__name__
    return str(named).lower()


def _inputs(model: Any) -> Any:
    own = getattr(model, "_inputs_struct", None)
    return own if own is not None else getattr(getattr(model, "_functional", None), "_inputs_struct", None)


def _spec(shape: Any, dtype: Any) -> Any:
    import tensorflow as tf

    return tf.TensorSpec((None, *tuple(shape)[1:]), dtype)


def _dtype(array: Any) -> str:
    """Give the dtype that Keras hands an array on in: numbers with a fraction become its own float type."""
    import keras

    name = dtype_name(array)
    return keras.config.floatx() if name.startswith("float") else name


def dtype_name(array: Any) -> str:
    """Give the name of an array's dtype, also of one of pandas or PyTorch; of a table the one of all its columns."""
    dtype = getattr(array, "dtype", None)
    if dtype is None:
        columns = {str(one) for one in array.dtypes}
        return columns.pop().lower() if len(columns) == 1 else "float"
    return str(getattr(dtype, "name", dtype)).rpartition(".")[2].lower()


def _words(shape: Any) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in tuple(shape)[1:]) + ")"
