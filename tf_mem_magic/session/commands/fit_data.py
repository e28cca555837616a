"""The data that a plan is made for where none are named: those that the notebook's own call of ``fit`` gives."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tf_mem_magic.notebook.fit_call import last_fit

_PARTS = ("x", "y", "sample_weight")


@dataclass(frozen=True, slots=True)
class FitData:
    """What ``fit`` is given: data by name, the batch size where it tells one, and the call as text."""

    data: tuple[tuple[str, Any], ...] = ()
    batch: int | None = None
    call: str = ""


def fit_data(model: str, cells: Iterable[str], namespace: Mapping[str, Any]) -> FitData:
    """Find what the notebook trains a model on: the last ``fit`` of it, where its arguments are there now.

    Nothing is run: names, entries of plain containers and rows of arrays are looked up. Data whose shapes cannot be
    told without drawing from them, or that are not there, are left out.

    Parameters
    ----------
    model : str
        The model, as the call has it.
    cells : iterable of str
        The notebook's cells, oldest first, the running one last.
    namespace : mapping
        The notebook's names.
    """
    found = last_fit(cells, model)
    if found is None:
        return FitData()
    given, call = found
    batch = _value(given["batch_size"], namespace) if "batch_size" in given else None
    batch = batch if type(batch) is int and batch > 0 else None
    named = [(ast.unparse(given[part]), _value(given[part], namespace)) for part in _PARTS if part in given]
    named = named if all(value is not None for _, value in named) and _are_told(named) else []
    return FitData(tuple(named), batch, call) if named or batch else FitData()


def _are_told(named: list[tuple[str, Any]]) -> bool:
    from tf_mem_magic.trace.given import CannotPlanError, specs_of_data

    try:
        specs_of_data(named)
    except CannotPlanError:
        return False
    return True


def _value(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """Give what an expression is where telling that runs no code of the user's; None where it would."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return namespace.get(node.id)
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(one, namespace) for one in node.elts]
        return None if any(one is None for one in items) else items
    if isinstance(node, ast.Dict):
        pairs = [(None if key is None else _value(key, namespace), _value(one, namespace)) for key, one in _pairs(node)]
        return None if any(key is None or one is None for key, one in pairs) else dict(pairs)
    if isinstance(node, ast.Subscript):
        return _entry(_value(node.value, namespace), node.slice, namespace)
    return None


def _pairs(node: ast.Dict) -> Iterable[tuple[ast.expr | None, ast.expr]]:
    return zip(node.keys, node.values)


def _entry(held: Any, at: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """Give an entry of a plain container, or some rows of an array, which NumPy does not copy."""
    if isinstance(at, ast.Slice):
        is_array = type(held).__module__ == "numpy" and type(held).__name__ == "ndarray"
        bounds = [None if one is None else _value(one, namespace) for one in (at.lower, at.upper, at.step)]
        told = [one for one in (at.lower, at.upper, at.step) if one is not None]
        if not is_array or sum(type(one) is int for one in bounds) != len(told):
            return None
        return held[slice(*bounds)]
    key = _value(at, namespace)
    if type(held) is dict and type(key) in (str, int):
        return held.get(key)
    if type(held) in (list, tuple) and type(key) is int and -len(held) <= key < len(held):
        return held[key]
    return None
