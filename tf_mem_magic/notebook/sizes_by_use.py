"""Names that mean a batch size by what is done with them, whatever they are called: ``ds.batch(B)``."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import SHAPES, called_name, is_batch_name

_BATCHES = ("batch", "padded_batch", "ragged_batch", "rebatch")


def sizes_by_use(notebook: Notebook) -> frozenset[str]:
    """Name what the notebook batches data by, and what is not called like a batch size."""

    def earlier() -> frozenset[str]:
        cells = notebook.earlier_with(*_BATCHES)
        return frozenset(name for cell in cells for name in cell.once(_sizes))

    return notebook.before.once("sizes by use", earlier) | notebook.cell.once(_sizes)


def _sizes(cell: PythonCell) -> frozenset[str]:
    given = (
        next((k.value for k in call.keywords if k.arg == "batch_size"), call.args[0] if call.args else None)
        for call in cell.calls
        if isinstance(call.func, ast.Attribute) and called_name(call) in _BATCHES
    )
    names = (one for one in given if isinstance(one, ast.Name) and not is_batch_name(one.id))
    return frozenset(one.id for one in names if isinstance(cell.scopes.home(one), ast.Module))


def lengths_of(scopes: Scopes, within: ast.AST, names: frozenset[str]) -> Iterator[ast.Name]:
    """Yield where code within ``within`` makes something whose first length is what one of the names holds."""
    for node in ast.walk(within) if names else ():
        if not isinstance(node, ast.Name) or node.id not in names or not isinstance(node.ctx, ast.Load):
            continue
        if isinstance(scopes.home(node), ast.Module) and _is_first_length(scopes, node):
            yield node


def _is_first_length(scopes: Scopes, node: ast.Name) -> bool:
    above = list(itertools.islice(scopes.up(node), 3))
    holder = above[0] if above else None
    if isinstance(holder, (ast.List, ast.Tuple)) and holder.elts[0] is not node:
        return False
    call = next((n for n in above if isinstance(n, ast.Call)), None)
    if call is None or called_name(call) not in SHAPES:
        return False
    return isinstance(holder, (ast.List, ast.Tuple)) or call.args[:1] == [node]
