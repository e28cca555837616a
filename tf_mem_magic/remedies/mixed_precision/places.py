"""Which model computed when memory ran out, how, and where a line before all of its steps stands."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.model import receiver
from tf_mem_magic.notebook.scopes import arguments
from tf_mem_magic.notebook.text.ranges import shares_line
from tf_mem_magic.notebook.training import binds_model
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.before import LOOPS, before_loops
from tf_mem_magic.remedies._engine.question import INFERENCE, TRAINING, Ask
from tf_mem_magic.remedies.mixed_precision.given import as_given, is_parameter

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MOST = 40


@dataclass(frozen=True, slots=True)
class Computing:
    """The statement that ran out, its top-level one, the model that computed, and by whose loop.

    ``own_loop``: the gradient is taken by the notebook's code rather than by Keras's own training step. ``written``:
    the name in the line that ran out, where that is a parameter of a function that the cell gives ``model``.
    """

    statement: ast.stmt
    top: ast.stmt
    model: str
    facts: ModelFacts | None
    by_keras: bool
    own_loop: bool
    written: str


def computing(ask: Ask) -> Computing:
    """Find the model that computed when memory ran out.

    Raises
    ------
    RefusedError
        If no model of Keras did, or it is not sure which.
    """
    place = ask.place
    by_keras = place.by_keras
    if by_keras:
        written = place.model
        if place.facts is None:
            place = as_given(ask, place)
        if place.facts is None and not _seen_built(ask, place.statement, place.model):
            raise RefusedError(ask.why_unknown(place.model))
        own = _own_step(ask, place.facts) or _reaches_tape(ask, place.top)
        return Computing(place.statement, place.top, place.model, place.facts, True, own, written)
    statement = _statement(ask) or place.statement
    how = _how(ask, statement, place.model)
    makes = any(called_name(call) == "build" for call in ask.failing)
    if not how:
        if makes or ask.names.builds(statement):
            raise RefusedError("layers were being made, and their weights stay in 32 bits")
        if method := _own_method(statement, place.model):
            raise RefusedError(f"what `{method}` computes with the model is not followed")
        raise RefusedError("the line that ran out neither trains a Keras model nor calls one")
    if not place.model or place.facts is None:
        raise RefusedError("it is not sure which model computed when memory ran out")
    held = [m.name for m in ask.facts.models if m.local and m.name != place.model]
    if held and not place.facts.local:
        raise RefusedError(f"a function that led to the error holds a model of its own, `{held[0]}`")
    if not _is_used(ask, _around(ask, statement), place.model):
        called = _called_parameter(ask, statement)
        unused = f"the line that ran out does not use `{place.model}`"
        raise RefusedError(ask.why_unknown(called) if called else unused)
    own = how == "tape" or _reaches_tape(ask, place.top)
    return Computing(place.statement, place.top, place.model, place.facts, False, own, place.model)


def _own_method(statement: ast.stmt, model: str) -> str:
    """Give the method of a model that a statement calls, none of Keras's: ``model.train_step``; empty: it does not."""
    calls = (n.func for n in ast.walk(statement) if isinstance(n, ast.Call))
    methods = (ast.unparse(f) for f in calls if isinstance(f, ast.Attribute) and ast.unparse(f.value) == model)
    return next(methods, "")


def _seen_built(ask: Ask, statement: ast.stmt, model: str) -> bool:
    """Whether the cell shows that Keras makes ``model``, where no model of the notebook is known at all.

    What another function makes by that name is no parameter of the one that failed.
    """
    if is_parameter(ask, statement, model):
        return False
    if model not in ask.facts.shadowed and any(m.name == model for m in ask.facts.models):
        return True
    assigned = [n for n in ask.cell.nodes if isinstance(n, ast.Assign) and model in map(ast.unparse, n.targets)]
    return bool(assigned) and all(ask.names.builds(n) for n in assigned)


def _own_step(ask: Ask, facts: ModelFacts | None) -> bool:
    if facts is not None and facts.own_step is not None:
        return facts.own_step
    return ask.notebook.has("def train_step(self")


def _statement(ask: Ask) -> ast.stmt | None:
    """Find the innermost statement of the line that ran out."""
    line = ask.line
    if line is None:
        return None
    found = [n for n in ask.cell.nodes if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or n.lineno)]
    return max(found, key=lambda n: (n.lineno, n.col_offset), default=None)


def _how(ask: Ask, statement: ast.stmt, model: str) -> str:
    """Say how a statement computes with a model: ``tape``, ``call`` or ``keras``; empty where it does not."""
    within = [statement, *(node for node in ask.scopes.up(statement) if isinstance(node, (*LOOPS, *_FUNCTIONS)))]
    if any(isinstance(n, ast.With) and _is_tape(n) for node in within for n in ast.walk(node)):
        return "tape"
    tapes = [n for n in ask.cell.nodes if isinstance(n, ast.With) and _is_tape(n)]
    if any(statement in ast.walk(tape) for tape in tapes):
        return "tape"
    if tapes and any(called_name(call) in ("gradient", "apply_gradients") for call in ask.failing):
        return "tape"
    return _reached(ask, statement, model)


def _reached(ask: Ask, statement: ast.stmt, model: str) -> str:
    queue: list[ast.AST] = [statement]
    seen, how = set[str](), ""
    while queue and len(seen) < _MOST:
        node = queue.pop(0)
        for inner in ast.walk(node):
            if isinstance(inner, ast.With) and _is_tape(inner):
                return "tape"
            if not isinstance(inner, ast.Call):
                continue
            name = called_name(inner)
            if ast.unparse(inner.func) == model or ask.facts.model(ast.unparse(inner.func)) is not None:
                how = how or "call"
            elif isinstance(inner.func, ast.Attribute) and name in TRAINING | INFERENCE:
                how = how or "keras"
            elif isinstance(inner.func, ast.Name) and name not in seen:
                seen.add(name)
                found = ask.notebook.function(name)
                if found is not None and isinstance(found.node, _FUNCTIONS):
                    queue.append(found.node)
    return how


def _reaches_tape(ask: Ask, top: ast.stmt) -> bool:
    """Whether a loop that is run as a whole takes gradients itself somewhere, by functions of the notebook too."""
    return isinstance(top, LOOPS) and _reached(ask, top, "") == "tape"


def trained(ask: Ask) -> set[str]:
    """Give what the cell trains by Keras's methods, as it is written there."""
    return {receiver(call) for call in ask.notebook.calls(*TRAINING) if receiver(call)}


def _is_tape(node: ast.With) -> bool:
    return any("GradientTape" in ast.unparse(item.context_expr) for item in node.items)


def _around(ask: Ask, statement: ast.stmt) -> ast.stmt:
    """Give the statement whose code computes together: a loop or block with a tape, else the statement itself."""
    for node in ask.scopes.up(statement):
        if isinstance(node, ast.stmt) and any(isinstance(n, ast.With) and _is_tape(n) for n in ast.walk(node)):
            return node
    return statement


def _called_parameter(ask: Ask, statement: ast.stmt) -> str:
    """Name the parameter of a function that the statement calls like a model; empty where it calls none."""
    function = next((node for node in ask.scopes.up(statement) if isinstance(node, _FUNCTIONS)), None)
    names = {argument.arg for argument in arguments(function.args)} if function is not None else set()
    calls = (n for n in ast.walk(_around(ask, statement)) if isinstance(n, ast.Call))
    return next((call.func.id for call in calls if isinstance(call.func, ast.Name) and call.func.id in names), "")


def _is_used(ask: Ask, statement: ast.stmt, model: str) -> bool:
    """Whether the statement, or a function that it reaches, reads the model: not a parameter of the same name."""
    root = model.partition(".")[0].partition("[")[0]
    queue: list[ast.AST] = [statement]
    seen = set[str]()
    while queue and len(seen) < _MOST:
        node = queue.pop(0)
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        own = arguments(node.args) if isinstance(node, _FUNCTIONS) and node is not statement else []
        if root in names - {argument.arg for argument in own}:
            return True
        for name in names - seen:
            seen.add(name)
            found = ask.notebook.function(name)
            if found is not None:
                queue.append(found.node)
    return False


def first_place(ask: Ask, place: Computing) -> ast.stmt:
    """Find the statement before which the model exists and nothing has trained: outside of the loops around it."""
    at = place.top if place.own_loop and not place.by_keras else place.statement
    if isinstance(at, (*_FUNCTIONS, ast.ClassDef)) and any(
        binds_model(s, place.model) for s in ask.cell.tree.body[ask.cell.tree.body.index(at) :]
    ):
        raise RefusedError(f"`{place.model}` is made in this cell after the function that trains it")
    if binds_model(at, place.model):
        raise RefusedError(f"`{place.model}` is made or chosen in the statement that trains it")
    if shares_line(ask.cell, at):
        raise RefusedError("the statement that trains shares its line with another: give it a line of its own")
    function = next((node for node in ask.scopes.up(at) if isinstance(node, _FUNCTIONS)), None)
    if function is not None and _is_global(ask, place, function):
        at = place.top
    return before_loops(ask, at, place.model)


def _is_global(ask: Ask, place: Computing, function: ast.AST) -> bool:
    """Whether a function at the top of the cell reads a model that exists before the cell begins."""
    root = place.model.partition(".")[0].partition("[")[0]
    home = ask.scopes.lookup(root, function)
    return (
        function is place.top
        and home is ask.cell.tree
        and not any(binds_model(statement, place.model) for statement in ask.cell.tree.body)
        and not shares_line(ask.cell, place.top)
    )
