"""A model that the function which failed knows as its parameter only: the name that the cell gives it by."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.notebook.follow.calls import argument_exprs
from tf_mem_magic.notebook.follow.reader import Unknown
from tf_mem_magic.notebook.training import TrainingPlace
from tf_mem_magic.remedies._engine.question import Ask

_DEEPEST = 8


def as_given(ask: Ask, place: TrainingPlace) -> TrainingPlace:
    """Give the place where the cell hands the model to the function that trains it, by the name that it has there.

    The place as it is where its model is no parameter, and where what reaches it is not one model of the notebook.
    """
    used = _uses(place.statement, place.model)
    given = _given(ask, used[0], _DEEPEST) if used else []
    named = {ask.cell.text(expr) for expr in given}
    facts = ask.facts.model(named.pop()) if len(named) == 1 else None
    if facts is None:
        return place
    return replace(
        place,
        statement=ask.scopes.statement(given[0]),
        top=ask.scopes.top_statement(given[0]),
        model=facts.name,
        facts=facts,
    )


def is_parameter(ask: Ask, statement: ast.stmt, model: str) -> bool:
    """Tell whether ``model`` is a parameter of the function in which ``statement`` stands."""
    used = _uses(statement, model)
    chosen = ask.reader.reaching(used[0]) if used else None
    return chosen is not None and chosen.kind == "param"


def _uses(statement: ast.stmt, name: str) -> list[ast.Name]:
    return [n for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == name]


def _given(ask: Ask, name: ast.Name, depth: int) -> list[ast.expr]:
    """List what reaches a parameter, in the notebook's own names; none where something else does."""
    chosen = ask.reader.reaching(name)
    if chosen is None or chosen.kind != "param" or not depth:
        return []
    exprs = argument_exprs(ask.reader, chosen)
    found: list[ast.expr] = []
    for expr in [] if isinstance(exprs, Unknown) else exprs:
        if ask.is_shared(expr):
            found.append(expr)
            continue
        more = _given(ask, expr, depth - 1) if isinstance(expr, ast.Name) else []
        if not more:
            return []
        found += more
    return found
