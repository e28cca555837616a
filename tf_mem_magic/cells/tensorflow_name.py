"""The name by which a cell surely reaches TensorFlow."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.cells.keras_names import KerasNames


def tensorflow_name(names: KerasNames, first: int, text: str) -> tuple[str, list[str]] | None:
    """Give the name that surely means TensorFlow before a statement, and the lines that make it where none does.

    ``first`` is the statement's place in the cell's body, ``text`` all code that may use ``tf`` for something else;
    None where what ``tf`` means is not certain.
    """
    trees = [s for tree in names.earlier for s in tree.body] + names.cell.tree.body[:first]
    imported = {
        a.asname or a.name for s in trees if isinstance(s, ast.Import) for a in s.names if a.name == "tensorflow"
    }
    again = {n.id for s in trees for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    sure = sorted(imported - again, key=len)
    if sure:
        return sure[0], []
    if re.search(r"\btf\b", text):
        return None
    return "tf", ["import tensorflow as tf"]
