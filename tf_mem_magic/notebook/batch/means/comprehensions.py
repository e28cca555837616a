"""Loops over batches that are written as comprehensions: ``losses = [train_step(x, y) for x, y in train_ds]``."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.batch.means.sums import OF_LISTS
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.uses import called_name

COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.SetComp)


def of_comprehension(reader: Reader, regions: Iterable[ast.stmt]) -> Setting | Unknown | None:
    """Find how the data of a comprehension are batched that failed; None where there is none, or over no data."""
    for node in (n for region in regions for n in walk(region)):
        if not isinstance(node, COMPREHENSIONS) or len(node.generators) != 1 or not reader.covers(node):
            continue
        if not any(isinstance(n, ast.Call) for n in walk(node.elt)):
            continue
        traced = trace(reader, gone_through(reader, node.generators[0].iter))
        if not isinstance(traced, Setting):
            continue
        if not _as_a_whole(reader, node):
            return Unknown(
                f"what the batches in {reader.cell.told(node)} give is added up there, and there would be more of them"
            )
        return traced
    return None


def _as_a_whole(reader: Reader, node: ast.expr) -> bool:
    """Tell whether what all batches gave is used as a whole, by its mean or the like, or shown."""
    parent = reader.scopes.parents[node]
    if isinstance(parent, ast.Call) and node in parent.args:
        name = called_name(parent)
        return name in OF_LISTS or (name in ("list", "array", "stack") and _as_a_whole(reader, parent))
    if isinstance(parent, ast.Attribute):
        return parent.attr in OF_LISTS
    target = parent.targets[0] if isinstance(parent, ast.Assign) and len(parent.targets) == 1 else None
    if not isinstance(target, ast.Name):
        return isinstance(parent, ast.Expr)
    loads = reader.scopes.loads.get((reader.scopes.home(target), target.id), [])
    return all(not isinstance(reader.scopes.parents[load], ast.Assign) and _as_a_whole(reader, load) for load in loads)
