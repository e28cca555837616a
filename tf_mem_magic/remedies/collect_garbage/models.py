"""A list or dict that the cell fills with the models of its rounds, and that nothing else in it reads."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.diagnose.breakdown import models_in_containers
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.question import Ask


@dataclass(frozen=True, slots=True)
class KeptModels:
    """A list of models: its ``name``, how many it holds, their ``bytes``, and the ``entry`` that is appended."""

    name: str
    count: int
    bytes: int
    entry: ast.Name


def kept_models(ask: Ask, diagnosis: Diagnosis) -> KeptModels | None:
    """Find the list of models that fills the device; None where no list does.

    Refused where the list is read in the cell: what it holds is not changed then.
    """
    if ask.situation != "growing":
        return None
    held = models_in_containers(ask.facts, diagnosis.device)
    if not held:
        return None
    name, sizes = max(held.items(), key=lambda entry: sum(entry[1]))
    entry = _kept_at(ask.cell, name)
    if entry is None:
        what = f"`{name}` keeps {len(sizes)} models of this cell"
        raise RefusedError(f"{what}, and the cell does more with it than to add one: keep what they measured")
    return KeptModels(name, len(sizes), sum(sizes), entry)


def _kept_at(cell: PythonCell, name: str) -> ast.Name | None:
    """Give the name that the cell appends to a list, or sets in a dict, in the only line that fills it.

    None where anything else in the cell reads the list or dict.
    """
    entries = [
        call.args[0]
        for call in cell.calls
        if called_name(call) == "append"
        and isinstance(call.func, ast.Attribute)
        and _is_named(call.func.value, name)
        and len(call.args) == 1
    ]
    entries += [
        node.value
        for node in cell.nodes
        if isinstance(node, ast.Assign)
        and len(node.targets) == 1
        and isinstance(node.targets[0], ast.Subscript)
        and _is_named(node.targets[0].value, name)
    ]
    reads = [n for n in cell.nodes if _is_named(n, name) and isinstance(getattr(n, "ctx", None), ast.Load)]
    if len(entries) != 1 or len(reads) != 1:
        return None
    return entries[0] if isinstance(entries[0], ast.Name) else None


def _is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
