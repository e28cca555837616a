"""The name by which a cell surely reaches TensorFlow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.cell import PythonCell, parse
from tf_mem_magic.notebook.origins import KerasNames


def tensorflow_name(names: KerasNames, first: int, text: str) -> tuple[str, list[str]] | None:
    """Give the name that surely means TensorFlow before a statement, and the lines that make it where none does.

    ``first`` is the statement's place in the cell's body, ``text`` all code that may use ``tf`` for something else;
    None where what ``tf`` means is not certain.
    """
    sure = imported_as([s for tree in names.earlier for s in tree.body] + names.cell.tree.body[:first])
    if sure is not None:
        return sure, []
    if re.search(r"\btf\b", text):
        return None
    return "tf", ["import tensorflow as tf"]


def reaches_tensorflow(cell: PythonCell, facts: Facts) -> str | None:
    """Give the name under which a cell can reach TensorFlow by its own imports or those of earlier cells."""
    trees = [tree for tree in map(parse, facts.earlier_cells) if tree is not None]
    return imported_as([s for tree in (*trees, cell.tree) for s in tree.body])


def imported_as(statements: Iterable[ast.stmt]) -> str | None:
    """Give the shortest name under which top-level statements import TensorFlow and that none of them sets anew."""
    statements = tuple(statements)
    imports = (a for s in statements if isinstance(s, ast.Import) for a in s.names if a.name == "tensorflow")
    again = {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return min({a.asname or a.name for a in imports} - again, key=len, default=None)
