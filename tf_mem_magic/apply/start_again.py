"""Start a training again from the weights that a model had before a run that failed."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from tf_mem_magic.core.units import size


@dataclass(frozen=True)
class _Kept:
    """Copies in host memory: the weights, and the optimizer's variables, as NumPy arrays, in Keras's order."""

    weights: tuple[Any, ...]
    optimizer: tuple[Any, ...]


_kept: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def start_again(model: Any) -> Any:
    """Give a model back the weights, and the optimizer state, that it had before the last watched cell.

    They were kept because the cell said ``%%tfmem --keep-weights``. Steps, moments and learning-rate schedules start
    from where they were too. An optimizer that had not taken a step yet gets the state of a fresh one.

    Parameters
    ----------
    model : keras.Model
        A model that existed before the cell.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    LookupError
        If nothing was kept for this model.
    ValueError
        If the model's variables have changed their number or shapes since.
    """
    kept = _kept.get(model)
    if kept is None:
        raise LookupError("no weights were kept for this model: run the cell with %%tfmem --keep-weights first")
    _assign(model.weights, kept.weights, "weights")
    _assign(_optimizer_variables(model), kept.optimizer or _fresh_state(model), "optimizer's variables")
    return model


def keep(model: Any) -> int:
    """Keep copies of a model's weights and optimizer state in host memory, in place of older ones; give their bytes."""
    kept = _Kept(
        tuple(w.numpy() for w in model.weights),
        tuple(v.numpy() for v in _optimizer_variables(model)),
    )
    _kept[model] = kept
    return sum(array.nbytes for array in (*kept.weights, *kept.optimizer))


def is_kept(model: Any) -> bool:
    """Tell whether weights were kept for ``model``."""
    try:
        return model in _kept
    except TypeError:
        return False


def forget_all() -> None:
    """Let go of every copy."""
    _kept.clear()


def describe(kept: int) -> str:
    """Say in one sentence what keeping cost, from the bytes that :func:`keep` gave."""
    return f"The weights from before this run are kept in host memory ({size(kept)})."


def _optimizer_variables(model: Any) -> list[Any]:
    optimizer = getattr(model, "optimizer", None)
    return list(optimizer.variables) if optimizer is not None and getattr(optimizer, "built", True) else []


def _fresh_state(model: Any) -> tuple[Any, ...]:
    """Give the state of an optimizer like the model's that has not taken a step."""
    if not _optimizer_variables(model):
        return ()
    fresh = type(model.optimizer).from_config(model.optimizer.get_config())
    fresh.build(model.trainable_variables)
    return tuple(v.numpy() for v in fresh.variables)


def _assign(variables: Any, values: tuple[Any, ...], what: str) -> None:
    if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
        raise ValueError(f"the model's {what} are not those that were kept: it was changed or built anew since")
    for variable, value in zip(variables, values):
        variable.assign(value)
