"""Whether a training runs under one of the notebook's distribution strategies, or another model of it does."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.notebook.follow.behind import Piece, behind, model_names, pieces
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name

_FOR_ALL = ("experimental_set_strategy", "__enter__", "enter_context", "set_distribution")
"""Calls that put all that follows under a strategy."""

_UNDER = ("scope", "run", "experimental_run_v2", "experimental_distribute_dataset", "distribute_datasets_from_function")
"""Attributes of a strategy by which a model, a step or data come under it."""


def runs_under_a_strategy(reader: Reader, call: ast.Call | None = None) -> bool:
    """Tell whether the training may run under a strategy; ``call`` is the call of Keras that failed, where known.

    It does not where the strategy of an earlier cell has its scopes, and nothing behind this model is in one.
    """
    strategies = reader.notebook.words_ending("Strategy")
    makers = [c for c in reader.notebook.cells_with(*strategies) if c.once(_makes_a_strategy)]
    if not makers:
        return False
    if reader.cell in makers or reader.notebook.cells_with(*_FOR_ALL):
        return True
    names = model_names(reader, call)
    data = {d.name for d in reader.facts.datasets} | {v.name for v in reader.facts.values}
    made = behind(reader, names, but=data)
    scoped = any(cell.once(_has_scope) for cell in reader.notebook.cells_with("scope"))
    if not scoped or not any(_sets(piece, names) for piece in made):
        return True
    running = [p for p in reader.cell.once(pieces) if reader.covers(p.statement)]
    return any(map(_is_under, _once([*made, *running])))


def _once(found: Iterable[Piece]) -> list[Piece]:
    return list({id(piece): piece for piece in found}.values())


def _sets(piece: Piece, names: frozenset[str]) -> bool:
    """Tell whether a statement sets one of the names, also in a block of its own."""
    stored = (n for n in ast.walk(piece.statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return bool(names & piece.binds) or any(n.id in names for n in stored)


def _makes_a_strategy(cell: PythonCell) -> bool:
    return any(called_name(call).endswith("Strategy") for call in cell.calls)


def _has_scope(cell: PythonCell) -> bool:
    return any(called_name(call) == "scope" for call in cell.calls)


def _is_under(piece: Piece) -> bool:
    calls = (n for n in ast.walk(piece.statement) if isinstance(n, ast.Call))
    return any(isinstance(call.func, ast.Attribute) and call.func.attr in _UNDER for call in calls)
