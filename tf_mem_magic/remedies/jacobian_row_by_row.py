"""Jacobian row by row: the gradients of its rows are computed one after the other, not all at once."""

from __future__ import annotations

import ast
from typing import Any

from tf_mem_magic.core.diagnosis import Diagnosis, Situation, SituationKind
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.notebook.text.ranges import insert_argument
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.examples import example
from tf_mem_magic.remedies._engine.guards import device_memory, python, situation
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "jacobian-row-by-row"
TITLE = "Jacobian row by row"
HELPS: tuple[SituationKind, ...] = ("jacobian",)
GUARDS = (device_memory, python, situation(HELPS, "it was not the rows of a Jacobian that ran out"))

_OPTION = "experimental_use_pfor"
_WHY = "TensorFlow computes all rows of a Jacobian at once: as many backward passes side by side, with all they hold."


@remedy(KEY, TITLE, GUARDS)
def propose(ask: Ask) -> Proposal:
    """Offer it where the rows of a Jacobian ran out, on a tape that the cell opens."""
    calls = [c for c in ask.failing if called_name(c) in ("jacobian", "batch_jacobian")]
    if len(calls) != 1 or not isinstance(calls[0].func, ast.Attribute):
        raise RefusedError("the call of `jacobian` that ran out was not found in the cell")
    call = calls[0]
    if len(call.args) > 2 or any(k.arg in (None, _OPTION) for k in call.keywords):
        raise RefusedError(f"`{called_name(call)}` is given how to compute its rows")
    opened = _opened(ask, calls[0].func.value)
    edits = [insert_argument(ask.cell, call, f"{_OPTION}=False")]
    if all(k.arg != "persistent" for k in opened.keywords):
        if opened.args or any(k.arg is None for k in opened.keywords):
            raise RefusedError("the tape's arguments are given by position")
        edits.append(insert_argument(ask.cell, opened, "persistent=True"))
    return Proposal(
        key=KEY,
        title="Compute the Jacobian row by row",
        source=ask.edit().edit(*edits).source(),
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


def _opened(ask: Ask, tape: ast.expr) -> ast.Call:
    """Find the call that opens the tape: in a ``with`` of the cell that binds its name, the only one."""
    if not isinstance(tape, ast.Name):
        raise RefusedError("the tape has no plain name")
    items = [i for n in ask.cell.nodes if isinstance(n, (ast.With, ast.AsyncWith)) for i in n.items]
    bound = [i for i in items if isinstance(i.optional_vars, ast.Name) and i.optional_vars.id == tape.id]
    made = bound[0].context_expr if len(bound) == 1 else None
    if not isinstance(made, ast.Call) or called_name(made) != "GradientTape":
        raise RefusedError(f"where `{tape.id}` is opened was not found in the cell")
    return made


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
    _example("it says how", _CELL.format("", ", experimental_use_pfor=True"), "how to compute its rows", declined=True),
    _example("a tape of a function", "%%tfmem\njac = tape.jacobian(out, x)\n", "where `tape` is opened", declined=True),
    _example("a tape in a list", "%%tfmem\njac = tapes[0].jacobian(out, x)\n", "no plain name", declined=True),
    _example("not in the cell", "%%tfmem\njac = rows(out, x)\n", "was not found", declined=True),
    _example("an ordinary gradient", _CELL.format("", ""), "not the rows of a Jacobian", declined=True, situation=None),
)
