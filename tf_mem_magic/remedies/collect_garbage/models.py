"""A list or dict that the cell fills with the models of its rounds, and that nothing else in it reads."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.diagnose.breakdown import models_in_containers
from tf_mem_magic.notebook.fills import Fill, fills_of
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import FITS, called_name
from tf_mem_magic.remedies._engine.question import Ask

EMPTY = re.compile(r"\[\]|\{\}|(?:list|dict|(?:collections\.)?(?:OrderedDict|defaultdict))\((?:list|dict)?\)")
"""The text of a list or dict without entries."""


@dataclass(frozen=True, slots=True)
class KeptModels:
    """A list or dict of models: its ``name``, how many it holds, their ``bytes``, and the one line that fills it.

    ``of_earlier_cell``: the cell does not make it, so that what the failed run has added is still in it.
    """

    name: str
    count: int
    bytes: int
    fill: Fill
    of_earlier_cell: bool


def kept_models(ask: Ask, diagnosis: Diagnosis) -> KeptModels | None:
    """Find the list or dict of models that fills the device; None where it is something else that does.

    Refused where the cell does more with it than to add models to it: what it holds is not changed then.
    """
    if ask.situation != "models-kept" or diagnosis.situation is None:
        return None
    name = diagnosis.situation.holder
    sizes = models_in_containers(ask.facts, diagnosis.device).get(name, ())
    if not sizes:
        return None
    what = f"`{name}` keeps {len(sizes)} models of this cell"
    if not name.isidentifier():
        raise RefusedError(f"{what}, and it is no plain name: keep what they measured, or save each to a file")
    fill = _the_fill(ask, name, what)
    earlier = _of_earlier_cell(ask, name, fill, what)
    return KeptModels(name, len(sizes), sum(sizes), fill, earlier)


def _the_fill(ask: Ask, name: str, what: str) -> Fill:
    cell = ask.cell
    fills = [fill for fill in fills_of(cell, name) if ask.scopes.home(fill.name) is cell.tree]
    if len(fills) != 1:
        where = "in more than one place" if fills else "where that is was not found in the cell"
        raise RefusedError(
            f"{what}, added {where}: keep what they measured, or save each to a file"
            if fills
            else f"{what}, and {where}: keep what they measured, or save each to a file"
        )
    own = set(ast.walk(fills[0].statement))
    reads = [n for n in ask.scopes.loads.get((cell.tree, name), []) if n not in own]
    if reads or any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(fills[0].entry)):
        raise RefusedError(f"{what}, and the cell does more with it than to add one: keep what they measured")
    for use in ask.notebook.uses(name):
        scopes = use.cell.scopes
        shared = use.cell is not cell and scopes.home(use.node) is use.cell.tree
        if shared and scopes.scope_of(use.node) is not use.cell.tree:
            raise RefusedError(f"{what}, and a function of an earlier cell reads it: keep what they measured")
    return fills[0]


def _of_earlier_cell(ask: Ask, name: str, fill: Fill, what: str) -> bool:
    """Tell whether an earlier cell made the list; refused where it holds more than the models of these rounds."""
    cell = ask.cell
    sets = [b.node for b in ask.scopes.of(cell.tree, name) if b.node is not fill.statement]
    if not sets:
        if not fill.at_end or any(one.name == f"{name}[0]" and not one.is_new for one in ask.facts.models):
            raise RefusedError(f"{what}, and an earlier cell made it: begin with an empty one in this cell")
        if all(one.name != f"{name}[0]" for one in ask.facts.models):
            raise RefusedError(f"{what}, and they are not all that it holds: keep what they measured")
        return True
    if len(sets) != 1 or not begins_empty(cell, ask.scopes, name, fill.statement):
        raise RefusedError(f"{what}, and it is not sure that it begins empty: keep what they measured")
    return False


def results_kept(ask: Ask) -> dict[str, Fill]:
    """Give the lists and dicts of the cell that get what ``fit`` gives: each entry refers to its model."""
    cell = ask.cell
    parts = (n.value for n in cell.nodes if isinstance(n, (ast.Attribute, ast.Subscript)))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    names |= {n.target.id for n in cell.nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    found = {name: [one for one in fills_of(cell, name) if _is_result(ask, one.entry)] for name in sorted(names)}
    return {name: fills[0] for name, fills in found.items() if fills}


def _is_result(ask: Ask, entry: ast.expr) -> bool:
    """Whether an entry is what ``fit`` gives, by its name or as it is."""
    values: list[ast.expr | None] = [entry]
    if isinstance(entry, ast.Name):
        values = [binding.value for binding in ask.scopes.of(ask.scopes.home(entry), entry.id)]
    return any(isinstance(value, ast.Call) and called_name(value) in FITS for value in values)


def begins_empty(cell: PythonCell, scopes: Scopes, name: str, first: ast.stmt) -> bool:
    """Tell whether the first thing that a name of the cell is set to, by a statement of its own, has no entries.

    ``first`` is a statement that must come later; where it stands in a function, that may be called from anywhere.
    """
    bindings = [b for b in scopes.of(cell.tree, name) if b.node is not first]
    made = bindings[0].node if len(bindings) == 1 else None
    value = bindings[0].value if made is not None else None
    if value is None or made not in cell.tree.body or not isinstance(made, (ast.Assign, ast.AnnAssign)):
        return False
    if scopes.scope_of(first) is cell.tree and made.lineno >= scopes.top_statement(first).lineno:
        return False
    one_name = not isinstance(made, ast.Assign) or len(made.targets) == 1
    return one_name and EMPTY.fullmatch(ast.unparse(value)) is not None
