"""How the data that ``fit`` validates on are batched."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.batch.datasets import Arrays, Traced, trace
from tf_mem_magic.notebook.batch.steps import argument
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.follow.resolve import resolve


@dataclass(frozen=True, slots=True)
class Validation:
    """The validation data.

    Attributes
    ----------
    slots : tuple of Slot
        Where their own batch size is set.
    notes : tuple of str
        Sentences for the user.
    batch : int or None
        Their batch size where the edit changes it; None: it stays.
    imports : tuple of str
        Lines that the edit needs at the top.
    setting : Setting or None
        What their batch size is, with the names that change with it; None: they have none of their own.
    """

    slots: tuple[Slot, ...] = ()
    notes: tuple[str, ...] = ()
    batch: int | None = None
    imports: tuple[str, ...] = ()
    setting: Setting | None = None


def find_validation(reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting) -> Validation:
    """Find how the validation data of a call of ``fit`` are batched."""
    data = argument(call, extra, "validation_data", None)
    own = argument(call, extra, "validation_batch_size", None)
    target = argument(call, extra, "y", 1)
    arrays = target is not None and not (isinstance(target, ast.Constant) and target.value is None)
    given = own is not None and not (isinstance(own, ast.Constant) and own.value is None)
    traced: Traced = Arrays() if data is None or isinstance(data, (ast.Tuple, ast.Constant)) else trace(reader, data)
    if not isinstance(traced, Setting) and given and own is not None:
        traced = resolve(reader, own)
    if isinstance(traced, Setting):
        if traced.per_replica != setting.per_replica:
            return Validation(notes=("The validation data keep their batch size.",))
        slots = tuple(s for s in traced.slots if s not in setting.slots)
        notes, imports = (traced.notes, traced.imports) if slots else ((), ())
        return Validation(slots, notes, traced.value, imports, traced)
    if isinstance(traced, Unknown):
        return Validation(notes=(f"The validation data keep their batch size: {traced.reason}.",))
    # Keras validates arrays with fit's own batch_size.
    return Validation(batch=setting.value if arrays else None)
