"""A list or dict that the cell fills with the models of its rounds, and that nothing else in it reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.diagnose.breakdown import models_in_containers
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.question import Ask

EMPTY = re.compile(r"\[\]|\{\}|(?:list|dict|(?:collections\.)?(?:OrderedDict|defaultdict))\((?:list|dict)?\)")
"""The text of a list or dict without entries."""


@dataclass(frozen=True, slots=True)
class Fill:
    """A statement that adds one ``entry`` to a list or dict; ``name`` is the node by which it names that.

    ``at_end``: the entry becomes the last one of a list.
    """

    statement: ast.stmt
    entry: ast.expr
    name: ast.Name
    at_end: bool


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
    fills = [fill for fill in _fills(cell, name) if ask.scopes.home(fill.name) is cell.tree]
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


def _fills(cell: PythonCell, name: str) -> Iterator[Fill]:
    """Yield the statements that add one entry: ``append``, ``+= […]``, ``= name + […]``, ``name[key] = …``."""
    for node in cell.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call, func = node.value, node.value.func
            plain = called_name(call) == "append" and len(call.args) == 1 and not isinstance(call.args[0], ast.Starred)
            if plain and isinstance(func, ast.Attribute) and (owner := _named(func.value, name)) is not None:
                yield Fill(node, call.args[0], owner, at_end=True)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            if (owner := _named(node.target, name)) is not None and (entry := _one_of(node.value)) is not None:
                yield Fill(node, entry, owner, at_end=True)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            yield from _set(node, node.targets[0], name)


def _set(node: ast.Assign, target: ast.expr, name: str) -> Iterator[Fill]:
    if isinstance(target, ast.Subscript) and (owner := _named(target.value, name)) is not None:
        yield Fill(node, node.value, owner, at_end=False)
    added = node.value
    if (owner := _named(target, name)) is not None and isinstance(added, ast.BinOp) and isinstance(added.op, ast.Add):
        entry = _one_of(added.right)
        if _named(added.left, name) is not None and entry is not None:
            yield Fill(node, entry, owner, at_end=True)


def _named(node: ast.expr, name: str) -> ast.Name | None:
    return node if isinstance(node, ast.Name) and node.id == name else None


def _one_of(value: ast.expr) -> ast.expr | None:
    """Give the only entry of a list or tuple that is written out."""
    if not isinstance(value, (ast.List, ast.Tuple)) or len(value.elts) != 1 or isinstance(value.elts[0], ast.Starred):
        return None
    return value.elts[0]


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
