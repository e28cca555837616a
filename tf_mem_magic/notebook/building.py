"""The statements of a cell that build and compile a model, where it is certain that nothing else is needed."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable
from dataclasses import dataclass

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.origins import KerasNames

_MADE_WITH = ("keras.optimizers.", "keras.metrics.", "keras.losses.", "keras.regularizers.", "keras.initializers.")
_TRAINS = frozenset({"fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"})


@dataclass(frozen=True, slots=True)
class Building:
    """The places of the first and the last statement in the cell's body."""

    first: int
    last: int


def find_building(names: KerasNames, facts: Facts, model: str, fit: ast.stmt) -> Building | str:
    """Find the statements from the first that makes a part of ``model`` to the last before ``fit`` that uses it.

    A text is the reason, as a sentence, why it is not certain that these alone make it.
    """
    body = names.cell.tree.body
    until = body.index(fit)
    places = [i for i, s in enumerate(body[:until]) if names.builds(s) or _makes_part(names, s)]
    made = [i for i in places if model in _stored([body[i]])]
    if not made:
        return f"`{model}` is built in an earlier cell, and its variables lie where they were made"
    compiled = [i for i, s in enumerate(body[:until]) if _compiles(s, model)]
    if any(_calls(s, _TRAINS) for s in body[min(places) : until]):
        return "the cell trains before the statement that ran out of memory"
    used = [i for i, s in enumerate(body[:until]) if _reads(s, model)]
    # Compiled by a function: whichever statement calls it.
    first, last = min(places), max((*made, *compiled, *used)) if compiled else until - 1
    if max(places) > last:
        return "the cell makes parts of a model after it is compiled"
    if any(names.loads(s) for s in body[first : last + 1]):
        return "the model comes from a file or from another model"
    strange = _strange(names, facts, first, last)
    return f"what `{strange}` holds was made outside of this cell" if strange else Building(first, last)


def _makes_part(names: KerasNames, statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return False
    calls = (n for n in ast.walk(statement) if isinstance(n, ast.Call))
    return any(names.origin(call.func).startswith(_MADE_WITH) for call in calls)


def _compiles(statement: ast.stmt, model: str) -> bool:
    return any(ast.unparse(f.value) == model for f in _calls(statement, frozenset({"compile"})))


def _reads(statement: ast.stmt, model: str) -> bool:
    loads = (n for n in ast.walk(statement) if isinstance(n, (ast.Name, ast.Attribute)) and isinstance(n.ctx, ast.Load))
    return any(ast.unparse(n) == model for n in loads)


def _calls(statement: ast.stmt, methods: frozenset[str]) -> list[ast.Attribute]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return []
    funcs = (n.func for n in ast.walk(statement) if isinstance(n, ast.Call))
    return [f for f in funcs if isinstance(f, ast.Attribute) and f.attr in methods]


def _strange(names: KerasNames, facts: Facts, first: int, last: int) -> str:
    """Give a name that the statements read and that may hold something Keras made earlier; empty where none does."""
    body = names.cell.tree.body
    inside = body[first : last + 1]
    known = _stored(body[: last + 1]) | {a.arg for s in inside for a in ast.walk(s) if isinstance(a, ast.arg)}
    known |= _defined(body) | set(dir(builtins))
    known |= {s.name.partition(".")[0].partition("[")[0] for s in facts.scalars} | {v.name for v in facts.values}
    known -= {m.name for m in facts.models if not m.is_new}
    reads = (n for s in inside for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return next((n.id for n in reads if n.id not in known and not _is_defined_earlier(names, n.id)), "")


def _is_defined_earlier(names: KerasNames, name: str) -> bool:
    return any(name in _defined(cell.tree.body) for cell in names.before.naming(name))


def _stored(statements: Iterable[ast.stmt]) -> set[str]:
    return {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _defined(statements: Iterable[ast.stmt]) -> set[str]:
    """Give the names of functions, classes and modules."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            found |= {(a.asname or a.name).partition(".")[0] for a in statement.names}
    return found
