"""What it means to Keras that TensorFlow no longer knows how many batches a dataset has."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.notebook.batch.steps import Steps, argument
from tf_mem_magic.notebook.follow.reader import Slot


def of_data(
    slots: Iterable[Slot], method: str, call: ast.Call | None, extra: ast.expr | None, steps: Iterable[Steps]
) -> tuple[str, ...]:
    """Say it of the data that ``method`` computes on; the number of steps is known where the call gives one."""
    given = call is not None and _gives(call, extra, "steps_per_epoch" if method == "fit" else "steps", steps)
    if method != "fit":
        effect = "" if given else "its progress shows no total, and Keras may warn that the input ran out"
    elif given:
        effect = "where the steps of all epochs go past its end, one epoch ends early and Keras warns"
    else:
        effect = "the first epoch shows no total, and Keras may warn that the input ran out"
    return _notes(slots, effect)


def of_validation(
    slots: Iterable[Slot], call: ast.Call, extra: ast.expr | None, steps: Iterable[Steps]
) -> tuple[str, ...]:
    """Say it of the data that ``fit`` validates on: each validation begins anew, and shows no total anyway."""
    given = _gives(call, extra, "validation_steps", steps)
    return _notes(slots, "" if given else "Keras may warn that the input of the validation ran out")


def _gives(call: ast.Call, extra: ast.expr | None, name: str, steps: Iterable[Steps]) -> bool:
    expr = argument(call, extra, name, None)
    none = expr is None or (isinstance(expr, ast.Constant) and expr.value is None)
    return not none and not any(one.name == name and one.whole for one in steps)


def _notes(slots: Iterable[Slot], effect: str) -> tuple[str, ...]:
    names = dict.fromkeys(slot.dataset for slot in slots if slot.uncounted) if effect else ()
    return tuple(f"TensorFlow no longer knows how many batches `{name}` has: {effect}." for name in names)
