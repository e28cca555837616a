"""Rounds: where a cell makes one model after another, and what it still holds of the last when it makes the next."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tf_mem_magic.cells.bindings import parse, rebound_names
from tf_mem_magic.cells.source import PythonCell, shares_line
from tf_mem_magic.cells.uses import called_name
from tf_mem_magic.core.facts import Facts

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_LEAVES = (ast.Continue, ast.Break, ast.Return, ast.Raise)
_NAME = re.compile(r"[^\W\d]\w*")
_OPTIMIZER = re.compile(r"\boptimizers\b|\b(?:Ada\w+|Nadam|SGD|RMSprop|Lion|Ftrl|Lamb|Muon)\b")


@dataclass(frozen=True, slots=True)
class Round:
    """A statement before which the models of earlier rounds can go, and the names that hold the last one.

    Each of ``forget`` is bound anew by the rest of the round before anything reads it.
    """

    statement: ast.stmt
    forget: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rounds:
    """Where a cell makes its next models; one place in a loop, several one after the other.

    ``at_top``: they are not in a function.
    """

    places: tuple[Round, ...]
    at_top: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """A statement on the way to the failing line, in its block."""

    block: list[ast.stmt]
    index: int

    @property
    def statement(self) -> ast.stmt:
        return self.block[self.index]


@dataclass(frozen=True, slots=True)
class _Place:
    """A failing line: the function that it is in (None: none), and the statements around it, outermost first."""

    function: ast.FunctionDef | ast.AsyncFunctionDef | None
    steps: tuple[_Step, ...]


def find_rounds(cell: PythonCell, facts: Facts, lines: Sequence[int]) -> Rounds | str:
    """Find where the next model is made on the way to the error; a text says why that is not known.

    Parameters
    ----------
    cell : PythonCell
        The cell that ran out of memory.
    facts : Facts
        What it held then.
    lines : sequence of int
        The cell's lines that led to the error, outermost first.
    """
    places = [place for line in lines if (place := _place(cell, line)) is not None]
    named = [(name[0], m.is_new) for m in facts.models if (name := _NAME.findall(m.name)[:1])]
    names = {name for name, is_new in named if is_new} | {f"{name}.compile" for name, _ in named}
    for place in reversed(places):
        known = names | (set(facts.shadowed) if place.function is not None else set())
        found = _made_at(place, known)
        if found is None:
            continue
        looped = _is_looped(place, found)
        steps = [] if looped else _again(found, known)
        if not looped and not steps and place.function is None:
            return "the cell makes no second model on the way to where it failed"
        steps = steps or [_first(found, known)]
        forgets = looped or place.function is None
        rounds = tuple(Round(s.statement, _forget(cell, facts, s, known) if forgets else ()) for s in steps)
        return _checked(cell, Rounds(rounds, place.function is None))
    if not places or not any(m.local for m in facts.models):
        return "where the cell makes its next model was not found"
    outer = places[0]
    if not (_in_loop(outer) or _is_called_before(outer.steps[-1])):
        return "the call that makes the model is not repeated in a loop of the cell"
    return _checked(cell, Rounds((Round(outer.steps[-1].statement),), outer.function is None))


def _checked(cell: PythonCell, found: Rounds) -> Rounds | str:
    shared = next((one.statement for one in found.places if shares_line(cell, one.statement)), None)
    if shared is not None:
        return f"in line {shared.lineno} other code stands before the statement that makes the model"
    return found


def _place(cell: PythonCell, line: int) -> _Place | None:
    function: ast.FunctionDef | ast.AsyncFunctionDef | None = None
    block, steps = cell.tree.body, list[_Step]()
    while True:
        index = next((i for i, s in enumerate(block) if _covers(s, line)), None)
        if index is None:
            return _Place(function, tuple(steps)) if steps else None
        statement = block[index]
        if isinstance(statement, _FUNCTIONS):
            function, steps = statement, []
            block = statement.body
            continue
        if isinstance(statement, ast.ClassDef):
            steps, block = [], statement.body
            continue
        steps.append(_Step(block, index))
        inner = [b for b in _blocks(statement) if any(_covers(s, line) for s in b)]
        if not inner:
            return _Place(function, tuple(steps))
        block = inner[0]


def _covers(statement: ast.stmt, line: int) -> bool:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(d.lineno for d in decorators)])
    return first <= line <= (statement.end_lineno or statement.lineno)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        block = getattr(statement, field, None)
        if isinstance(block, list):
            yield block
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body


def _made_at(place: _Place, names: set[str]) -> _Step | None:
    """Find the nearest statement before the failing one that binds one of ``names`` in a block around it."""
    innermost = place.steps[-1]
    for step in reversed(place.steps):
        for index in range(step.index, -1, -1):
            own = index == step.index and step is not innermost
            if not own and _makes(step.block[index]) & names:
                return _Step(step.block, index)
    return None


def _again(found: _Step, names: set[str]) -> list[_Step]:
    """List the statements of a block that make a model under a name that an earlier one of them has bound."""
    seen: set[str] = set()
    again: list[_Step] = []
    for index, statement in enumerate(found.block):
        bound = _makes(statement) & names
        if bound & seen:
            again.append(_Step(found.block, index))
        seen |= bound
    return again


def _first(found: _Step, names: set[str]) -> _Step:
    """Give the first statement of the block that binds a model: one that is made of several begins there."""
    return next(_Step(found.block, i) for i, s in enumerate(found.block) if _makes(s) & names)


def _makes(statement: ast.stmt) -> set[str]:
    """Give the names that a statement binds, and ``model.compile`` where it calls that: it makes a new optimizer.

    What functions and classes inside do is left out.
    """
    nodes = list(_walk_own(statement))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    called = {ast.unparse(n.func) for n in nodes if isinstance(n, ast.Call) and called_name(n) == "compile"}
    return bound | called


def _walk_own(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of a statement but for those inside of functions and classes."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield node
            todo += ast.iter_child_nodes(node)


def _in_loop(place: _Place) -> bool:
    return any(isinstance(step.statement, _LOOPS) for step in place.steps)


def _is_looped(place: _Place, found: _Step) -> bool:
    """Tell whether a loop of the same function runs the statement more than once."""
    loops = [step.statement for step in place.steps if isinstance(step.statement, _LOOPS)]
    return any(node is found.statement for loop in loops for node in ast.walk(loop) if node is not loop)


def _is_called_before(step: _Step) -> bool:
    """Tell whether a function that a statement calls was called before in the same block."""
    calls = _calls(step.statement)
    return any(not calls.isdisjoint(_calls(s)) for s in step.block[: step.index])


def _calls(statement: ast.stmt) -> set[str]:
    return {called_name(n) for n in ast.walk(statement) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def _forget(cell: PythonCell, facts: Facts, found: _Step, models: set[str]) -> tuple[str, ...]:
    """List the names that hold what the last round made and that the rest of this one binds anew.

    A name that a function reads is left alone, unless that function is itself made anew after it.
    """
    rest = found.block[found.index :]
    if any(isinstance(n, _LEAVES) for s in rest for n in _walk_own(s)):
        rest = rest[:1]
    new = {id(n) for s in rest for n in ast.walk(s)}
    trees = [tree for tree in map(parse, facts.earlier_cells) if tree is not None]
    others = [n for tree in (cell.tree, *trees) for n in ast.walk(tree) if id(n) not in new]
    elsewhere = _read_by(others) | (set(facts.read_elsewhere) - _read_by([n for s in rest for n in ast.walk(s)]))
    assigned = [pair for s in rest for n in _walk_own(s) for pair in _assignments(n)]
    held = {name for name, value in assigned if name in models or _holds_model(value)}
    held |= {s.name for s in rest if isinstance(s, _FUNCTIONS) and s.decorator_list}
    return tuple(sorted(rebound_names(rest) & held - elsewhere))


def _assignments(statement: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            names = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
            yield from ((n.id, statement.value) for n in names if isinstance(n, ast.Name))
    elif (
        isinstance(statement, ast.AnnAssign) and statement.value is not None and isinstance(statement.target, ast.Name)
    ):
        yield statement.target.id, statement.value


def _holds_model(value: ast.expr) -> bool:
    """Tell whether what is assigned refers to a model or holds its state: a ``History``, an optimizer."""
    if not isinstance(value, ast.Call):
        return False
    return called_name(value) == "fit" or _OPTIMIZER.search(ast.unparse(value.func)) is not None


def _read_by(nodes: Sequence[ast.AST]) -> set[str]:
    """Give the names that the functions among ``nodes`` read from outside of them."""
    found: set[str] = set()
    for function in (n for n in nodes if isinstance(n, (*_FUNCTIONS, ast.Lambda))):
        loads = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        found |= loads - _own_names(function)
    return found


def _own_names(function: ast.AST) -> set[str]:
    """Give the names that a function binds itself."""
    arguments = {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    shared = {name for n in ast.walk(function) if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
    return (arguments | stored) - shared
