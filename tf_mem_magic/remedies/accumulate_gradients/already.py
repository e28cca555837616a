"""Whether what trains accumulates gradients already, over how many batches, and where that is said."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.follow.behind import behind, model_names
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.optimizers import OptimizerMade, compiled_with
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import CellEdit
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines

ARGUMENT = "gradient_accumulation_steps"
_FUNCTION = "accumulate_gradients"
_UNKNOWN = 0
"""A number of batches that cannot be told."""


@dataclass(frozen=True, slots=True)
class Already:
    """The cell accumulates over ``steps`` batches; the number stands in ``node``."""

    node: ast.expr
    steps: int

    def times(self, cell: PythonCell, factor: int) -> CellEdit:
        """Give the edit that accumulates over ``factor`` times as many."""
        return CellEdit(cell.start(self.node), cell.end(self.node), str(self.steps * factor))


@dataclass(frozen=True, slots=True)
class _Said:
    """A place that says over how many batches gradients are added: our call for ``target``, or an optimizer's argument.

    ``steps`` is 1 where nothing is added, :data:`_UNKNOWN` where that cannot be told.
    """

    call: ast.Call
    node: ast.expr
    steps: int
    target: ast.expr | None = None


def already(ask: Ask, found: BatchFound) -> Already | None:
    """Find where the cell accumulates.

    Raises
    ------
    RefusedError
        If it, or what stands behind its model, does so in a way that cannot be followed.
    """
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    ours, others = _before(ask, reader, found)
    back = max((position(one.call) for one in ours if one.steps == 1), default=(0, 0))
    adds = [one for one in (*ours, *others) if one.steps != 1 and position(one.call) > back]
    if len(adds) == 1 and isinstance(adds[0].node, ast.Constant) and adds[0].steps > 1:
        return Already(adds[0].node, adds[0].steps)
    if adds or (not (ours or others) and _adds_otherwise(reader)):
        raise RefusedError("the cell accumulates gradients already, in a way that cannot be followed")
    if back == (0, 0) and not (ours or others) and _earlier_adds(ask, reader, found):
        raise RefusedError("an earlier cell has set up gradient accumulation already")
    return None


def _earlier_adds(ask: Ask, reader: Reader, found: BatchFound) -> bool:
    """Tell whether an earlier cell lets what trains here add gradients up: as its optimizer is, else as cells say."""
    receiver = found.call.func.value if found.call is not None and isinstance(found.call.func, ast.Attribute) else None
    model = reader.facts.model(ast.unparse(receiver)) if receiver is not None else None
    if model is not None and model.accumulates is not None:
        return model.accumulates > 1
    names = model_names(reader, found.call)
    for cell in reversed(ask.notebook.earlier_with(_FUNCTION)):
        ours, _ = _said(Reader(cell, ask.facts))
        last = next((o for o in reversed(ours) if isinstance(o.target, ast.Name) and o.target.id in names), None)
        if last is not None:
            return last.steps != 1
    return any(_adds(text, ask.facts) for text in texts_behind(ask, found) if text != ask.source)


def is_taken_back(ask: Ask, found: BatchFound) -> bool:
    """Tell whether the cell lets the optimizer update at every batch again before it trains."""
    ours, _ = _before(ask, Reader(ask.cell, ask.facts, failing_lines(ask)), found)
    return any(one.steps == 1 for one in ours)


def sums_in(cell: PythonCell, facts: Facts) -> bool:
    """Tell whether a cell lets an optimizer add gradients up, and does not take that back."""
    ours, others = _said(Reader(cell, facts))
    last = {ast.unparse(one.target): one.steps for one in ours if one.target is not None}
    return any(steps != 1 for steps in (*last.values(), *(one.steps for one in others)))


def texts_behind(ask: Ask, found: BatchFound) -> tuple[str, ...]:
    """List the texts that may decide how the failing model trains: the cell, and what made its model and its loss.

    Where no cell shows what made the model, all of them.
    """
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    names = model_names(reader, found.call)
    made = behind(reader, names)
    if not any(names & piece.binds for piece in made):
        return ask.texts
    return (ask.source, *(piece.cell.text(piece.statement) for piece in made if piece.cell is not ask.cell))


def _before(ask: Ask, reader: Reader, found: BatchFound) -> tuple[list[_Said], list[_Said]]:
    """List what is said before the training, of what is trained: by our calls, and by arguments of optimizers."""
    ours, others = _said(reader)
    call = found.call
    last = max(reader.lines, default=math.inf)

    def comes_first(one: _Said) -> bool:
        if call is not None and reader.scopes.scope_of(one.call) is reader.scopes.scope_of(call):
            return position(one.call) < position(call)
        return one.call.lineno <= last

    model = call.func.value if call is not None and isinstance(call.func, ast.Attribute) else None
    ours = [one for one in ours if comes_first(one) and not _is_of_another(reader, one.target, model)]
    made = compiled_with(reader, ask.names, ast.unparse(model)) if model is not None else ""
    if isinstance(made, OptimizerMade):
        others = [one for one in others if one.call is made.node]
    return ours, others


def _is_of_another(reader: Reader, target: ast.expr | None, model: ast.expr | None) -> bool:
    """Tell whether our call is about another model than the one that trains: both are known by their names."""
    both = (target, model)
    if not all(isinstance(one, ast.Name) and reader.facts.model(one.id) is not None for one in both):
        return False
    return isinstance(target, ast.Name) and isinstance(model, ast.Name) and target.id != model.id


def _said(reader: Reader) -> tuple[list[_Said], list[_Said]]:
    ours: list[_Said] = []
    others: list[_Said] = []
    for call in sorted(reader.cell.calls, key=position):
        others += [_Said(call, k.value, _steps(reader, k.value)) for k in call.keywords if k.arg == ARGUMENT]
        if not _is_ours(reader, call):
            continue
        given = {k.arg: k.value for k in call.keywords} | dict(zip(("model", "steps"), call.args))
        if "steps" in given:
            ours.append(_Said(call, given["steps"], _steps(reader, given["steps"]), given.get("model")))
    return ours, others


def _is_ours(reader: Reader, call: ast.Call) -> bool:
    """Tell whether a call is one of ours: a method of something else may be called so too."""
    if called_name(call) != _FUNCTION:
        return False
    if isinstance(call.func, ast.Attribute):
        return ast.unparse(call.func.value).rpartition(".")[2] == "apply"
    return reader.notebook.names.meaning(_FUNCTION).startswith("tf_mem_magic.")


def _steps(reader: Reader, value: ast.expr) -> int:
    if isinstance(value, ast.Constant) and value.value is None:
        return 1
    number = evaluate(reader, value)
    return number if isinstance(number, int) and number > 0 else _UNKNOWN


def _adds_otherwise(reader: Reader) -> bool:
    """Tell whether a cell has words for it in its code that are no call of ours and no argument."""
    ours = {call.func for call in reader.cell.calls if _is_ours(reader, call)}
    for node in reader.nodes:
        if node in ours:
            continue
        if isinstance(node, ast.Constant) and node.value == ARGUMENT:
            return True
        if any(name in (ARGUMENT, _FUNCTION) for name in _names(node)):
            return True
    return False


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name


def _adds(text: str, facts: Facts) -> bool:
    """Tell whether the text of an earlier cell lets an optimizer add gradients up."""
    if ARGUMENT not in text and _FUNCTION not in text:
        return False
    cell = read_cell(text)
    if isinstance(cell, NotPython):
        return True
    ours, others = _said(Reader(cell, facts))
    return sums_in(cell, facts) or (not ours and not others and _adds_otherwise(Reader(cell, facts)))
