"""What is known of a model that the function which failed knows as its parameter only."""

from __future__ import annotations

import ast

from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.follow.calls import argument_exprs
from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.remedies._engine.question import Ask

_DEEPEST = 8


def given_model(ask: Ask, statement: ast.stmt, model: str) -> ModelFacts | None:
    """Give the facts of the one model that the calls of the cell hand to a parameter named ``model``.

    None where ``model`` is no parameter there, and where what reaches it is not one model of the notebook.
    """
    names = [n for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == model]
    found = _models(ask, ask.reader, names[0], _DEEPEST) if names else None
    distinct = {one.name: one for one in found or ()}
    return next(iter(distinct.values())) if len(distinct) == 1 else None


def is_parameter(ask: Ask, statement: ast.stmt, model: str) -> bool:
    """Tell whether ``model`` is a parameter of the function in which ``statement`` stands."""
    names = [n for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == model]
    chosen = ask.reader.reaching(names[0]) if names else None
    return chosen is not None and chosen.kind == "param"


def _models(ask: Ask, reader: Reader, name: ast.Name, depth: int) -> list[ModelFacts] | None:
    """List the models that reach a parameter; None where one that does is not known."""
    chosen = reader.reaching(name)
    if chosen is None or chosen.kind != "param" or not depth:
        return None
    try:
        exprs = argument_exprs(reader, chosen)
    except RefusedError:
        return None
    if isinstance(exprs, Unknown):
        return None
    models: list[ModelFacts] = []
    for expr in exprs:
        found = ask.facts.model(ask.cell.text(expr)) if ask.is_shared(expr) else None
        more = [found] if found is not None else None
        if more is None and isinstance(expr, ast.Name):
            more = _models(ask, reader, expr, depth - 1)
        if more is None:
            return None
        models += more
    return models
