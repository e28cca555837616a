"""A model that an earlier cell compiled: the call, and whether it can be made once more in the cell that trains."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.bindings import binds_name
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.optimizers import OptimizerMade, compile_calls, compiled_with
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.remedies._engine.before import before_loops
from tf_mem_magic.remedies._engine.question import Ask


@dataclass(frozen=True, slots=True)
class CompiledEarlier:
    """The call of ``compile`` in ``cell``, an earlier one, and the optimizer that it is given."""

    cell: PythonCell
    call: ast.Call
    made: OptimizerMade

    @property
    def text(self) -> str:
        """The call as it is written there."""
        return self.cell.text(self.call)

    def source(self, ask: Ask, constructor: str) -> str:
        """Give the cell with the same call before it trains, with the optimizer that ``constructor`` makes.

        ``{module}`` in it becomes how the cell reaches ``keras.optimizers``.
        """
        at = before_loops(ask, ask.place.statement, ask.place.model)
        handle = ask.names.handle(ask.scopes.top_statement(at))
        start, node = self.cell.start(self.call), self.made.node
        text = self.text
        optimizer = constructor.replace("{module}", f"{handle or 'keras'}.optimizers")
        text = text[: self.cell.start(node) - start] + optimizer + text[self.cell.end(node) - start :]
        lines = [line.strip() if number else line for number, line in enumerate(text.splitlines())]
        lines = [lines[0], *(f"    {line}" for line in lines[1:])]
        return ask.edit().before(at, *([] if handle else ["import keras"]), *lines).source()


def compiled_earlier(ask: Ask) -> CompiledEarlier:
    """Find the one call of ``compile`` that an earlier cell made for the model of this one.

    Raises
    ------
    RefusedError
        If there is none that is sure, if a name holds the optimizer (and so all that it keeps), if an argument means
        something else by now, or if a function or loop holds the training.
    """
    model = ask.place.model
    root = model.partition(".")[0].partition("[")[0]
    cells = ask.notebook.earlier_with(root)
    for number in range(len(cells) - 1, -1, -1):
        calls = compile_calls(cells[number].tree, model)
        if calls:
            _check_here(ask, model)
            return _found(ask, cells[number], calls, model)
        if any(binds_name(statement, root) for statement in cells[number].tree.body):
            break
    raise RefusedError(f"`{model}` is not compiled in this cell")


def _found(ask: Ask, cell: PythonCell, calls: list[ast.Call], model: str) -> CompiledEarlier:
    statement = next((s for s in cell.tree.body if isinstance(s, ast.Expr) and s.value is calls[-1]), None)
    if len(calls) != 1 or statement is None:
        raise RefusedError(f"`{model}` is compiled in a function, a loop or more than once in an earlier cell")
    call = calls[0]
    names = KerasNames(cell, ask.facts.earlier_cells)
    made = compiled_with(Reader(cell, ask.facts), names, model, "in the cell that compiles the model")
    if isinstance(made, str):
        raise RefusedError(made)
    if not any(node is made.node for node in ast.walk(call)):
        raise RefusedError("a name of the notebook holds the optimizer, and what it keeps would stay with it")
    texts = (n for n in ast.walk(call) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    if any(n.lineno != n.end_lineno for n in texts) or "#" in cell.text(call):
        raise RefusedError("the call of `compile` cannot be written again in one piece")
    _check_names(ask, cell, call, made)
    return CompiledEarlier(cell, call, made)


def _check_here(ask: Ask, model: str) -> None:
    place = ask.place
    inside = [node for node in ask.scopes.up(place.statement) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    if inside or not place.by_keras:
        raise RefusedError(f"`{model}` is compiled in an earlier cell and trained in a function or loop of one's own")


def _check_names(ask: Ask, cell: PythonCell, call: ast.Call, made: OptimizerMade) -> None:
    """Refuse where an argument of the call names something that was bound anew since."""
    left = {id(node) for node in ast.walk(made.node)}
    names = {n.id for n in ast.walk(call) if isinstance(n, ast.Name) and id(n) not in left}
    names |= {n.id for n in ast.walk(made.node) if isinstance(n, ast.Name)} - {_root(made)}
    for name in sorted(names):
        cells = ask.notebook.earlier_with(name)
        last = max((number for number, one in enumerate(cells) if one is cell), default=-1)  # it may have run twice
        after = cells[last + 1 :]
        bodies = (*(one.tree.body for one in after), ask.cell.tree.body, _behind(cell, call))
        if any(_binds(statement, name) for body in bodies for statement in body):
            raise RefusedError(f"`{name}`, with which an earlier cell compiled the model, was set anew since")


def _behind(cell: PythonCell, call: ast.Call) -> list[ast.stmt]:
    return [statement for statement in cell.tree.body if statement.lineno > (call.end_lineno or call.lineno)]


def _binds(statement: ast.stmt, name: str) -> bool:
    return not isinstance(statement, (ast.Import, ast.ImportFrom)) and binds_name(statement, name)


def _root(made: OptimizerMade) -> str:
    return ast.unparse(made.call.func).partition(".")[0] if made.call is not None else ""
