"""A list of models keeps their weights instead: taken where a model is put into it, or after its last training."""

from __future__ import annotations

import ast

from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.proposals import Proposal, RefusedError
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_after, shares_line
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.collect_garbage.forget import walk_own
from tf_mem_magic.remedies.collect_garbage.later import trained_later
from tf_mem_magic.remedies.collect_garbage.letting_go import (
    MOMENT,
    NEEDS,
    asks_model,
    collects,
    edits_of,
    loses_model,
)
from tf_mem_magic.remedies.collect_garbage.models import KeptModels, begins_empty, results_kept
from tf_mem_magic.remedies.collect_garbage.rounds import Rounds, find_rounds


def weights_instead(ask: Ask, models: KeptModels, key: str) -> Proposal:
    """Keep the weights of earlier rounds' models in place of the models."""
    cell, name = ask.cell, models.name
    found = find_rounds(cell, ask.facts, ask.lines)
    if isinstance(found, str):
        raise RefusedError(found)
    edit = ask.edit().edit(*_weights_of(ask, models, found))
    results = _results_beside(ask, models, found)
    cleared = (f"{name}.clear()",) if models.of_earlier_cell else ()
    if not collects(cell):
        edit = edit.edit(*edits_of(cell, found, results, cleared))
    elif cleared:
        edit = edit.on_top(*cleared)
    return Proposal(
        key=key,
        title=f"Keep the weights in `{name}`, not the models",
        source=edit.source(),
        original=ask.source,
        preserves="same results",
        caveats=(
            *((f"What the run that failed had added to `{name}` is dropped first.",) if cleared else ()),
            f"The entries of `{name}` become lists of arrays, in the computer's memory: make a model and call "
            "its `set_weights` to use one again.",
            *loses_model(results),
            "The optimizers of earlier rounds are gone.",
            MOMENT,
            NEEDS,
        ),
        why=f"`{name}` holds {models.count} models: {size(models.bytes, brief_unit([models.bytes]))}.",
        answers_cause=True,
        effect=Effect(released=models.bytes),
    )


def _results_beside(ask: Ask, models: KeptModels, found: Rounds) -> tuple[str, ...]:
    """List the other lists by which the cell keeps the models: those of what ``fit`` gave."""
    names = []
    for name, fill in results_kept(ask).items():
        first = found.places[0].statement
        sure = found.at_top and begins_empty(ask.cell, ask.scopes, name, fill.statement)
        if not sure or not begins_empty(ask.cell, ask.scopes, name, first) or asks_model(ask) or collects(ask.cell):
            raise RefusedError(f"`{models.name}` keeps {models.count} models of this cell, and `{name}` does so too")
        names.append(name)
    return tuple(names)


def _weights_of(ask: Ask, models: KeptModels, found: Rounds) -> tuple[CellEdit, ...]:
    """Take the weights in place of the model: where it is put into the list, or after its last training."""
    cell, fill, name = ask.cell, models.fill, models.name
    when = trained_later(ask.notebook, fill.entry, fill.statement, found.places[0].statement)
    what = f"`{name}` keeps {models.count} models of this cell"
    if when == "never":
        return _weights_at(cell, fill.entry)
    block = _rest_of_round(ask, fill.statement, found.places[0].statement)
    if when == "later" or not fill.at_end or not block:
        raise RefusedError(f"{what}, and they may be trained after they were added to it: keep what they measured")
    return (insert_after(cell, block[-1], f"{name}[-1] = {name}[-1].get_weights()"),)


def _weights_at(cell: PythonCell, entry: ast.expr) -> tuple[CellEdit, ...]:
    end = CellEdit(cell.end(entry), cell.end(entry), ".get_weights()")
    if isinstance(entry, (ast.Name, ast.Call, ast.Attribute, ast.Subscript)):
        return (end,)
    raise RefusedError(f"it is not sure that `{ast.unparse(entry)}` is a model each time: keep what they measured")


def _rest_of_round(ask: Ask, fill: ast.stmt, made: ast.stmt) -> list[ast.stmt]:
    """List what follows in the block of the loop that makes the models; empty where it may not run to its end."""
    owner = ask.scopes.parents[fill]
    block: list[ast.stmt] = getattr(owner, "body", [])
    if not isinstance(owner, (ast.For, ast.AsyncFor, ast.While)) or fill not in block or made not in block:
        return []
    rest = block[block.index(fill) :]
    leaves = any(isinstance(n, (ast.Continue, ast.Break, ast.Return)) for one in rest for n in walk_own(one))
    return [] if leaves or shares_line(ask.cell, rest[-1]) else rest
