"""The optimizer that a loop trains with, as the callers of its function name it."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.follow.calls import argument_exprs
from tf_mem_magic.notebook.follow.reader import Reader, Unknown


def given_by_callers(reader: Reader, name: ast.Name) -> ast.expr:
    """Give the one expression that the callers of a function hand it as ``name``; else the name itself.

    A function that hands it on to another is followed too.
    """
    found: ast.expr = name
    for _ in range(_DEEPEST):
        chosen = reader.reaching(found) if isinstance(found, ast.Name) else None
        if chosen is None or chosen.kind != "param" or not isinstance(chosen.scope, ast.FunctionDef):
            return found
        given = argument_exprs(reader, chosen)
        if isinstance(given, Unknown) or len(given) != 1:
            return found
        found = given[0]
    return found


_DEEPEST = 4
"""Through so many functions an optimizer is followed."""


def owners_of(reader: Reader, call: ast.Call) -> set[str]:
    """Write what a method is called on as the callers of its function call it; a name of its own as it is."""
    if not isinstance(call.func, ast.Attribute):
        return set()
    root: ast.expr = call.func.value
    chosen = reader.reaching(root) if isinstance(root, ast.Name) else None
    if chosen is None or chosen.kind != "param":
        return {reader.written(root)}
    exprs = argument_exprs(reader, chosen)
    if isinstance(exprs, Unknown):
        return {reader.written(root)}
    return {reader.written(given_by_callers(reader, one) if isinstance(one, ast.Name) else one) for one in exprs}
