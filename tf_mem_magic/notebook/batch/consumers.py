"""Who uses the batches: the Keras calls behind the failing lines, and whether these lines train at all."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.notebook.follow import calls as calls_of
from tf_mem_magic.notebook.follow.may_train import infers
from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.uses import FITS, KERAS, called_name


def keras_calls(reader: Reader) -> list[ast.Call] | Unknown:
    """List the Keras calls that may have failed: those on the failing lines, else every ``fit``."""
    calls = [n for n in reader.calls_of(*KERAS) if isinstance(n.func, ast.Attribute)]
    calls.sort(key=position)
    all_calls = [c for c in calls if called_name(c) in FITS]
    if reader.lines:
        calls = [c for c in calls if reader.covers(c)]
        calls = [c for c in calls if not any(above in calls for above in reader.scopes.up(c))]
        in_function = [c for c in calls if not isinstance(reader.scopes.scope_of(c), ast.Module)]
        calls = in_function or calls or _trained_by_fit(reader, all_calls)
    else:
        calls = [c for c in calls if called_name(c) in FITS]
    calls = [c for c in calls if not _is_own_method(reader, c)]
    keras = [c for c in calls if not _is_other(reader, c)]
    if calls and not keras:
        return Unknown(f"`{ast.unparse(calls[0].func)}` is no Keras model's method")
    return keras


def _trained_by_fit(reader: Reader, fits: list[ast.Call]) -> list[ast.Call]:
    """Give the calls of ``fit`` that must have led to a line in a model's own method, a loss or a callback."""
    for statement in reader.cell.tree.body:
        if reader.covers(statement) and isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            uses = reader.scopes.loads.get((reader.cell.tree, statement.name), [])
            parents = [(use, reader.scopes.parents[use]) for use in uses]
            called = [p for use, p in parents if isinstance(p, ast.Call) and p.func is use]
            if isinstance(statement, ast.ClassDef) or not called:
                return [f for f in fits if not _is_own_method(reader, f)]
    return []


def _is_own_method(reader: Reader, call: ast.Call) -> bool:
    """Say whether the call is of a method that a class of the cell defines itself."""
    receiver = call.func.value  # type: ignore[attr-defined]
    chosen = None
    if isinstance(receiver, ast.Name):
        chosen = reader.scopes.reaching(receiver, reader.bindings(receiver))
    made = chosen.value if chosen is not None else receiver
    cls = calls_of.defined(reader, made.func) if isinstance(made, ast.Call) else None
    if isinstance(receiver, ast.Name) and receiver.id == "self":
        cls = next((n for n in reader.scopes.up(call) if isinstance(n, ast.ClassDef)), None)
    return isinstance(cls, ast.ClassDef) and any(
        isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.name == called_name(call) for n in cls.body
    )


def is_unlisted(reader: Reader, receiver: ast.expr) -> bool:
    """Say whether the notebook's models are known and ``receiver``, a name of the notebook, is none of them.

    It may still be one under a second name: the facts list each model once.
    """
    if not isinstance(receiver, ast.Name) or not isinstance(reader.scopes.home(receiver), ast.Module):
        return False
    names = {m.name for m in reader.facts.models}
    return bool(names) and receiver.id not in names


def _is_other(reader: Reader, call: ast.Call) -> bool:
    """Say whether the call's receiver is surely no Keras model (a scaler, a scikit-learn estimator)."""
    receiver = call.func.value  # type: ignore[attr-defined]
    if not isinstance(receiver, ast.Name):
        return False
    if reader.facts.model(receiver.id) is not None:
        return False
    chosen = reader.scopes.reaching(receiver, reader.bindings(receiver))
    if chosen is not None and isinstance(chosen.value, ast.Call):
        made = chosen.value.func
        if isinstance(made, ast.Name):
            sources = [b.node for b in reader.bindings(made)]
            if any(isinstance(s, ast.ImportFrom) and (s.module or "").split(".")[0] == "sklearn" for s in sources):
                return True
    seen = any(batch.method == called_name(call) for batch in reader.facts.batches)
    return not seen and is_unlisted(reader, receiver)


def only_infers(reader: Reader, regions: Iterable[ast.stmt]) -> bool:
    """Tell whether the code of ``regions`` surely infers and trains nothing, through all that it calls."""
    return infers(reader, regions) is True


def trains_nothing(reader: Reader, regions: Iterable[ast.stmt]) -> bool:
    """Tell whether the code of ``regions`` surely trains nothing, whatever else it does."""
    return infers(reader, regions) is not None
