"""Rounds: where a cell makes one model after another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.read_first import bound_anew
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import shares_line
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.collect_garbage.forget import forgettable, walk_own

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NAME = re.compile(r"[^\W\d]\w*")

_NO_SECOND = "the cell makes no second model on the way to where it failed"


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

    @property
    def statement(self) -> ast.stmt:
        return self.steps[-1].statement

    def around(self, statement: ast.stmt) -> list[ast.stmt]:
        """List the statements of the same function that ``statement`` lies in, outermost first."""
        inside = [s.statement for s in self.steps if any(n is statement for n in ast.walk(s.statement))]
        return [one for one in inside if one is not statement]


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
    for depth in range(len(places) - 1, -1, -1):
        place = places[depth]
        names = _names(facts, place.function is not None)
        found = _made_at(place, names)
        if found is None:
            continue
        looped = any(isinstance(one, _LOOPS) for one in place.around(found.statement))
        steps = [] if looped else _again(found, names)
        if not looped and not steps and not _may_be_called_again(place, places[:depth]):
            return _NO_SECOND
        steps = steps or [_first(found, names)]
        forgets = looped or place.function is None
        rounds = tuple(
            Round(
                step.statement,
                forgettable(cell, facts, (*place.around(step.statement),), step.block[step.index :], names)
                if forgets
                else (),
            )
            for step in steps
        )
        return _checked(cell, Rounds(rounds, place.function is None))
    if not places or not any(m.local for m in facts.models):
        return "where the cell makes its next model was not found"
    outer = places[0]
    if isinstance(outer.statement, _LOOPS) or not (_in_loop(outer) or _is_called_before(outer.steps[-1])):
        return "the call that makes the model is not repeated in a loop of the cell"
    return _checked(cell, Rounds((Round(outer.statement),), outer.function is None))


def _names(facts: Facts, in_function: bool) -> set[str]:
    """Give the names under which models of this cell are known where they are made.

    Those of a function are its own; an attribute is known by its last name; ``model.compile`` makes an optimizer.
    """
    names: set[str] = set()
    for model in facts.models:
        found = _NAME.findall(model.name)
        if not found:
            continue
        names.add(f"{found[0]}.compile")
        if model.is_new and model.local is in_function:
            names.add(found[0])
        if model.is_new and "." in model.name:
            names.add(f".{found[-1]}")
    return names | (set(facts.shadowed) if in_function else set())


def _checked(cell: PythonCell, found: Rounds) -> Rounds | str:
    shared = next((one.statement for one in found.places if shares_line(cell, one.statement)), None)
    if shared is not None:
        return f"in {cell.told(shared)} other code stands before the statement that makes the model"
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
    """Find the nearest statement before the failing one that makes one of ``names`` in a block around it."""
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
        # The first compile of a model made anew is no second one.
        seen = seen - {f"{name}.compile" for name in bound} | bound
    return again


def _first(found: _Step, names: set[str]) -> _Step:
    """Give the first statement of the block that makes a model: one that is made of several begins there."""
    return next(_Step(found.block, i) for i, s in enumerate(found.block) if _makes(s) & names)


def _makes(statement: ast.stmt) -> set[str]:
    """Give the names that a statement surely binds to what a call gives, and ``model.compile`` where it is that.

    What it makes from the value that the name had is the same model, or may be. ``.model`` stands for an attribute.
    """
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return {ast.unparse(statement.value.func)} if called_name(statement.value) == "compile" else set()
    if not any(isinstance(n, ast.Call) for n in walk_own(statement)):
        return set()
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return bound_anew([statement]) | {f".{target.attr}" for target in targets if isinstance(target, ast.Attribute)}


def _in_loop(place: _Place) -> bool:
    return any(isinstance(one, _LOOPS) for one in place.around(place.statement))


def _may_be_called_again(place: _Place, callers: Sequence[_Place]) -> bool:
    """Tell whether a function may run more than once: not where one statement of the cell calls it, and that once."""
    if place.function is None:
        return False
    if any(_is_repeated(caller) for caller in callers):
        return True
    # A function that is handed on (to a search for hyperparameters) is called from elsewhere.
    return not any(place.function.name in _calls(caller.statement) for caller in callers)


def _is_repeated(place: _Place) -> bool:
    """Tell whether the call in a place runs more than once: in a loop, a comprehension, or one after the other."""
    inside = any(isinstance(n, _COMPREHENSIONS) for n in ast.walk(place.statement))
    return inside or isinstance(place.statement, _LOOPS) or _in_loop(place) or _is_called_before(place.steps[-1])


def _is_called_before(step: _Step) -> bool:
    """Tell whether a function that a statement calls was called before in the same block."""
    calls = _calls(step.statement)
    return any(not calls.isdisjoint(_calls(s)) for s in step.block[: step.index])


def _calls(statement: ast.stmt) -> set[str]:
    return {called_name(n) for n in walk_own(statement) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
