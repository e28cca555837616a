"""Jacobian row by row: the gradients of its rows are computed one after the other, not all at once."""

from __future__ import annotations

import ast
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.notebook.text.edits import argument
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import device_memory, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy, under_tape

KEY = "jacobian-row-by-row"
TITLE = "Jacobian row by row"
HELPS: tuple[SituationKind, ...] = ("jacobian",)
GUARDS = (device_memory, python, situation(HELPS, "it was not the rows of a Jacobian that ran out"))

_OPTION, _OPTION_PLACE = "experimental_use_pfor", 4
_RECORDED = "another tape records the Jacobian itself, and would keep every row of it"
_WHY = "TensorFlow computes all rows of a Jacobian at once: as many backward passes side by side, with all they hold."


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where the rows of a Jacobian ran out, on a tape that the cell opens."""
    calls = [c for c in ask.failing if called_name(c) in ("jacobian", "batch_jacobian")]
    if len(calls) != 1 or not isinstance(calls[0].func, ast.Attribute):
        raise RefusedError("the call of `jacobian` that ran out was not found in the cell")
    call = calls[0]
    told = argument(call, _OPTION, _OPTION_PLACE)
    if told is not None and _constant(told) is not True:
        how = "computes its rows one after the other already" if _constant(told) is False else "is told how to do it"
        raise RefusedError(f"`{called_name(call)}` {how} (`{_OPTION}`)")
    opened = _opened(ask, calls[0].func.value)
    edit = ask.edit()
    edit = edit.argument(call, _OPTION, "False") if told is None else edit.replace(told, "False")
    kept = argument(opened, "persistent", 0)
    if kept is None:
        edit = edit.argument(opened, "persistent", "True")
    elif _constant(kept) is not True:
        edit = edit.replace(kept, "True")
    return Proposal(
        key=KEY,
        title="Compute the Jacobian row by row",
        source=edit.source(),
        original=ask.source,
        preserves="close numerics",
        caveats=(
            "One backward pass for each row: slower where there are many.",
            "A persistent tape keeps what it recorded until it is let go of.",
        ),
        why=_WHY,
        cost="slower",
        answers_cause=True,
    )


def _constant(value: ast.expr) -> object:
    return value.value if isinstance(value, ast.Constant) else None


def _opened(ask: Ask, tape: ast.expr) -> ast.Call:
    """Find the call that opens the tape: in the ``with``, or the assignment, that its name surely means there."""
    if not isinstance(tape, ast.Name):
        raise RefusedError("the tape has no plain name")
    scopes = ask.scopes
    bindings = scopes.of(scopes.home(tape), tape.id)
    for block in (n for n in scopes.up(tape) if isinstance(n, (ast.With, ast.AsyncWith))):
        if any(_names(item, tape.id) for item in block.items):
            raise RefusedError(f"`{tape.id}` still records where its Jacobian is taken: take it after the `with`")
        if isinstance(block, ast.With) and any(_opens(item.context_expr) for item in block.items):
            raise RefusedError(_RECORDED)
    if any(under_tape(ask.cell, line) for line in ask.lines[:-1]):
        raise RefusedError(_RECORDED)
    found = scopes.reaching(tape, bindings)
    made: ast.expr | None = None
    if found is not None and isinstance(found.node, (ast.With, ast.AsyncWith)):
        items = [item for item in found.node.items if _names(item, tape.id)]
        made = items[0].context_expr if len(items) == 1 else None
    elif found is not None and found.scope is scopes.scope_of(tape):
        made = found.value
    if not isinstance(made, ast.Call) or called_name(made) != "GradientTape":
        raise RefusedError(f"where `{tape.id}` is opened was not found for certain in the cell")
    return made


def _names(item: ast.withitem, name: str) -> bool:
    """Whether a ``with`` opens something under a name, or what that name holds."""
    return any(isinstance(one, ast.Name) and one.id == name for one in (item.optional_vars, item.context_expr))


def _opens(made: ast.expr) -> bool:
    return isinstance(made, ast.Call) and called_name(made) == "GradientTape"


def _example(name: str, cell: str, expect: str, declined: bool = False, **more: Any) -> Example:
    situation = more.pop("situation", Situation("jacobian", "The rows of a Jacobian are computed at once."))
    diagnosis = Diagnosis("GPU:0", line=cell.count("\n"), op="gradient_tape/ReluGrad/pfor/Tile", situation=situation)
    return example(name, cell, expect, declined=declined, diagnosis=diagnosis, **more)


_CELL = (
    "%%tfmem\nwith tf.GradientTape({0}) as g:\n    out = net(x)\njac = g.jacobian(out, net.trainable_variables{1})\n"
)

EXAMPLES: tuple[Example, ...] = (
    _example(
        "all rows at once", _CELL.format("", ""), _CELL.format("persistent=True", ", experimental_use_pfor=False")
    ),
    _example(
        "a tape that is persistent already",
        _CELL.format("persistent=True", ""),
        _CELL.format("persistent=True", ", experimental_use_pfor=False"),
    ),
    _example(
        "for each sample",
        _CELL.format("", "").replace("jacobian", "batch_jacobian").replace("net.trainable_variables", "x"),
        _CELL.format("persistent=True", ", experimental_use_pfor=False")
        .replace("jacobian", "batch_jacobian")
        .replace("net.trainable_variables", "x"),
    ),
    _example(
        "it says so itself",
        _CELL.format("persistent=False", ", experimental_use_pfor=True"),
        _CELL.format("persistent=True", ", experimental_use_pfor=False"),
    ),
    _example("one by one", _CELL.format("", ", experimental_use_pfor=False"), "one after the other", declined=True),
    _example("it is told how", _CELL.format("", ", experimental_use_pfor=fast"), "told how to do it", declined=True),
    _example(
        "behind stars", "%%tfmem\nwith tf.GradientTape() as g:\n    y = f(x)\nj = g.jacobian(*pair)\n", "stars", True
    ),
    _example("a tape of a function", "%%tfmem\njac = tape.jacobian(out, x)\n", "where `tape` is opened", declined=True),
    _example("a tape in a list", "%%tfmem\njac = tapes[0].jacobian(out, x)\n", "no plain name", declined=True),
    _example("not in the cell", "%%tfmem\njac = rows(out, x)\n", "was not found", declined=True),
    _example("an ordinary gradient", _CELL.format("", ""), "not the rows of a Jacobian", declined=True, situation=None),
)
