"""A loop that computes its gradients of all samples at once: of parts of them they add up to the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.proposals import Proposal, RefusedError
from tf_mem_magic.diagnose.estimate import half_or_less
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_after, shares_line
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.accumulate_gradients.bent_losses import read_loss
from tf_mem_magic.remedies.accumulate_gradients.means import Means
from tf_mem_magic.remedies.accumulate_gradients.owners import given_by_callers
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines

_AT_LEAST = 4
"""A part has at most so many times fewer samples: each costs a pass of its own, and little beside."""
_STATEMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.If)


@dataclass(frozen=True, slots=True)
class _Tape:
    """A tape that is asked for gradients right behind what it records.

    Attributes
    ----------
    block : ast.With
        The ``with`` statement.
    taken : ast.Assign
        The assignment of the gradients.
    loss : ast.Name
        What the gradients are taken of.
    weights : ast.expr
        What they are taken for.
    """

    block: ast.With
    taken: ast.Assign
    loss: ast.Name
    weights: ast.expr


def in_parts(ask: Ask, key: str) -> Proposal | None:
    """Offer the gradients of all samples in parts; None where the failing lines record no loss of whole data.

    Raises
    ------
    RefusedError
        If they do, and it is not certain that parts give the same.
    """
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    block = next((n for n in reader.nodes if isinstance(n, ast.With) and _records(n) and reader.covers(n)), None)
    model, total = _called_on_all(reader, block) if block is not None else (None, 0)
    if block is None or model is None or not _ran_out_of_all(ask, total):
        return None
    tape = _tape(reader, block)
    data = _data(reader, tape, total)
    _check(ask, reader, tape, total, data)
    size = max(half_or_less(ask.diagnosis, total, total // _AT_LEAST), 1)
    size = 2 ** (size.bit_length() - 1)
    parts = -(-total // size)
    dropout = any("Dropout" in layer for layer in model.layers)
    norm = next((layer for layer in model.layers if "BatchNormalization" in layer), None)
    return Proposal(
        key=key,
        title=f"All {total} samples, in {parts} parts",
        source=_source(ask, tape, data, size),
        original=ask.source,
        preserves="same model, other gradients" if norm else "same effective batch",
        caveats=(
            *((f"{norm} sees the parts one by one: for it, it is not the whole.",) if norm else ()),
            *(
                ("Dropout draws its masks for each part: as random as before, not the same numbers.",)
                if dropout
                else ()
            ),
            *_printed(reader, tape),
            "The changed cell needs tf_mem_magic.",
        ),
        why=f"The loop computes all {total} samples at once. The mean of the parts' gradients is that of the whole.",
        cost="slower",
        answers_cause=True,
    )


def _records(block: ast.With) -> bool:
    """Tell whether a ``with`` opens one plain tape, and nothing else."""
    made = block.items[0].context_expr
    plain = isinstance(made, ast.Call) and called_name(made) == "GradientTape" and not made.args and not made.keywords
    return plain and len(block.items) == 1 and isinstance(block.items[0].optional_vars, ast.Name)


def _called_on_all(reader: Reader, block: ast.With) -> tuple[ModelFacts | None, int]:
    """Find the model that a tape records on a whole array that a name holds, and how many samples that has."""
    for call in (n for n in walk(block) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.args):
        assert isinstance(call.func, ast.Name)
        held = given_by_callers(reader, call.func)
        model = reader.facts.model(held.id) if isinstance(held, ast.Name) else None
        given = (n for n in ast.walk(call.args[0]) if isinstance(n, ast.Name))
        total = next((length for name in given if (length := _length(reader, name)) is not None), None)
        if model is not None and total is not None and total > 1:
            return model, total
    return None, 0


def _length(reader: Reader, name: ast.Name) -> int | None:
    """Give how many samples an array has that a name, or the one that a function is handed by it, surely holds."""
    held = given_by_callers(reader, name)
    if not isinstance(held, ast.Name) or not isinstance(reader.scopes.home(held), ast.Module):
        return None
    bound = reader.bindings(held)
    if any(one.kind == "loop" for one in bound):
        return None
    value = reader.facts.value(held.id)
    return value.shape[0] if value is not None and value.shape else None


def _ran_out_of_all(ask: Ask, total: int) -> bool:
    shape = ask.diagnosis.shape if ask.diagnosis is not None else None
    return shape is None or len(shape) < 2 or shape[0] == total


def _tape(reader: Reader, block: ast.With) -> _Tape:
    """Read what is recorded and asked for.

    Raises
    ------
    RefusedError
        If it is anything but a loss, and its gradients in the statement behind it.
    """
    name = block.items[0].optional_vars
    assert isinstance(name, ast.Name)
    body = _siblings(reader, block)
    at = body.index(block)
    taken = body[at + 1] if at + 1 < len(body) else None
    call = taken.value if isinstance(taken, ast.Assign) and len(taken.targets) == 1 else None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "gradient"):
        raise RefusedError(f"the statement behind the tape in {reader.cell.told(block)} does not take its gradients")
    if len(call.args) != 2 or call.keywords or reader.written(call.func.value) != name.id:
        raise RefusedError(f"the gradients in {reader.cell.told(call)} are taken in a way of their own")
    scope = reader.scopes.home(name)
    others = [n for n in reader.scopes.loads.get((scope, name.id), []) if n is not call.func.value]
    if others:
        raise RefusedError(f"`{name.id}` is used in {reader.cell.told(*others)} too")
    if not isinstance(call.args[0], ast.Name) or not isinstance(taken, ast.Assign):
        raise RefusedError(f"what the gradients in {reader.cell.told(call)} are taken of has no plain name")
    if not isinstance(taken.targets[0], ast.Name):
        raise RefusedError(f"the gradients in {reader.cell.told(call)} get no plain name")
    return _Tape(block, taken, call.args[0], call.args[1])


def _siblings(reader: Reader, statement: ast.stmt) -> list[ast.stmt]:
    parent = reader.scopes.parents[statement]
    blocks = (getattr(parent, field, None) for field in ("body", "orelse", "finalbody"))
    return next(block for block in blocks if isinstance(block, list) and statement in block)


def _data(reader: Reader, tape: _Tape, total: int) -> tuple[str, ...]:
    """Name the arrays of as many samples that the tape records."""
    stored = _stored(tape)
    names = [n for s in tape.block.body for n in ast.walk(s) if isinstance(n, ast.Name) and n.id not in stored]
    whole = [n for n in names if isinstance(n.ctx, ast.Load) and _length(reader, n) == total]
    for name in whole:
        if not _by_rows(reader, name):
            raise RefusedError(
                f"`{name.id}` is used in {reader.cell.told(name)} in another way than sample by sample, it seems"
            )
    return tuple(dict.fromkeys(name.id for name in whole))


def _by_rows(reader: Reader, name: ast.Name) -> bool:
    """Tell whether a use of an array is that of its samples: handed to a call, computed with, or its columns."""
    above = reader.scopes.parents[name]
    if isinstance(above, ast.Subscript) and above.value is name:
        first = above.slice.elts[0] if isinstance(above.slice, ast.Tuple) and above.slice.elts else None
        return isinstance(first, ast.Slice) and first.lower is first.upper is first.step is None
    if isinstance(above, ast.Call):
        return called_name(above) not in ("len", "range", "transpose", "reshape", "shape", "concat", "stack")
    return isinstance(above, (ast.BinOp, ast.UnaryOp, ast.Tuple, ast.List, ast.keyword))


def _stored(tape: _Tape) -> set[str]:
    inside = (n for s in tape.block.body for n in ast.walk(s))
    return {n.id for n in inside if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def _check(ask: Ask, reader: Reader, tape: _Tape, total: int, data: tuple[str, ...]) -> None:
    """Refuse where the parts might not add up to the whole, or where something is read that a part would change."""
    inside = [n for s in tape.block.body for n in ast.walk(s)]
    odd = [s for s in _statements(tape.block.body) if not isinstance(s, _STATEMENTS)]
    odd += [n for n in inside if isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await, ast.NamedExpr))]  # type: ignore[misc]
    if odd or shares_line(ask.cell, tape.block) or shares_line(ask.cell, tape.taken):
        raise RefusedError(f"what the tape in {reader.cell.told(tape.block)} records is no plain list of assignments")
    function = next((up for up in reader.scopes.up(tape.block) if isinstance(up, ast.FunctionDef)), None)
    if function is not None and function.decorator_list:
        raise RefusedError(f"`{function.name}` is decorated, and may be a graph: it cannot be run in parts")
    if any(isinstance(up, ast.With) and _records(up) for up in reader.scopes.up(tape.block)):
        raise RefusedError("another tape records these gradients")
    if not Means(reader, ask.names, total).gives(tape.loss):
        raise RefusedError("it is not certain that the loop's loss is a mean over the samples")
    losses = read_loss(reader, tape.loss, frozenset(data))
    mixing = losses.bent or losses.mixed or losses.added
    if mixing:
        raise RefusedError(f"`{mixing}` computes over all samples: the mean of parts is not the whole")
    _check_names(reader, tape, data)


def _check_names(reader: Reader, tape: _Tape, data: tuple[str, ...]) -> None:
    stored = _stored(tape) - {tape.loss.id}
    inside = {n for s in tape.block.body for n in ast.walk(s)}
    scope = reader.scopes.scope_of(tape.block)
    for name in sorted(stored):
        outside = [n for n in reader.scopes.loads.get((scope, name), []) if n not in inside]
        if outside:
            raise RefusedError(
                f"`{name}` is read in {reader.cell.told(*outside)} too, and would be that of a part there"
            )
    known = set[str]()
    for statement in _statements(tape.block.body):
        read = statement.test if isinstance(statement, ast.If) else statement
        names = [n for n in ast.walk(read) if isinstance(n, ast.Name)]
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            names.append(ast.Name(statement.target.id, ast.Load()))
        for name in (n.id for n in names if isinstance(n.ctx, ast.Load)):
            if name in stored | {tape.loss.id} and name not in known:
                raise RefusedError(f"`{name}` goes on from turn to turn, and the parts would move it on")
        known |= {n.id for n in names if not isinstance(n.ctx, ast.Load)}
    if tape.loss.id in data:
        raise RefusedError("the loss and the data have the same name")


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from _statements([*statement.body, *statement.orelse])


def _printed(reader: Reader, tape: _Tape) -> tuple[str, ...]:
    shown = [s for s in _statements(tape.block.body) if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    return (f"What {reader.cell.told(*shown)} shows is that of each part.",) if shown else ()


def _source(ask: Ask, tape: _Tape, data: tuple[str, ...], size: int) -> str:
    """Write the tape as a function of a part, and its gradients as the sum over the parts."""
    name = ask.notebook.free_name("loss_of_part", "_loss_of_part", "_tfmem_loss")
    cell, item = ask.cell, tape.block.items[0]
    start, end = cell.start(tape.block), cell.end(item.optional_vars or item.context_expr)
    given = ", ".join(data)
    taken = tape.taken.targets[0]
    arrays = f"({given},)" if len(data) == 1 else f"({given})"
    call = f"apply.gradients_in_parts({name}, {arrays}, {cell.text(tape.weights)}, {size})"
    edits = ask.edit().before(tape.block, apply=True)
    edits = edits.edit(CellEdit(start, end, f"def {name}({given})"))
    edits = edits.edit(insert_after(cell, tape.block.body[-1], f"return {tape.loss.id}"))
    return edits.replace(tape.taken, f"{tape.loss.id}, {cell.text(taken)} = {call}").source()
