"""Find where the batch size that feeds the failing line is set, and set it to another value."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.batch import loops
from tf_mem_magic.notebook.batch.consumers import fixed_model, is_unlisted, keras_calls, shape_with
from tf_mem_magic.notebook.batch.datasets import IMPORT, Arrays, Traced, default_argument, trace
from tf_mem_magic.notebook.batch.steps import Steps, argument, find_divisors, find_steps, scale
from tf_mem_magic.notebook.cell import CellEdit, PythonCell, apply_edits, first_statement, insert_line
from tf_mem_magic.notebook.follow.entries import double_star
from tf_mem_magic.notebook.follow.resolve import Reader, Setting, Slot, Unknown, resolve
from tf_mem_magic.notebook.mask import NotPython
from tf_mem_magic.notebook.uses import KERAS, called_name

KERAS_DEFAULT = 32
"""The batch size of Keras's fit, evaluate and predict on arrays where none is given (keras Trainer documentation)."""


@dataclass(frozen=True, slots=True)
class BatchFound:
    """The batch size that feeds the failing line: its value and all that must change with it.

    ``method`` is the Keras method that runs, ``"validation"`` where only the validation in ``fit`` is meant, or
    ``"loop"``; ``receiver`` the name of
    the model; ``seen`` what Keras was observed to use; ``validation`` the slots of the validation data.
    """

    cell: PythonCell
    value: int
    slots: tuple[Slot, ...]
    method: str = "loop"
    receiver: str | None = None
    seen: int | None = None
    per_replica: bool = False
    validation: tuple[Slot, ...] = ()
    steps: tuple[Steps, ...] = ()
    names: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    validation_batch: int | None = None


def find_batch(cell: PythonCell, facts: Facts, lines: frozenset[int]) -> BatchFound | Unknown:
    """Find the batch size behind ``lines``, the cell's lines that led to the error; empty where they are unknown."""
    reader = Reader(cell, facts, lines)
    if any(isinstance(n, ast.Call) and called_name(n) in ("globals", "exec") for n in ast.walk(cell.tree)):
        return Unknown("the cell uses `globals()` or `exec`, so its names cannot be followed")
    consumers = keras_calls(reader)
    if isinstance(consumers, Unknown):
        return consumers
    fixed = fixed_model(reader)
    if consumers:
        found = [_keras(reader, call) for call in consumers]
        refused = next((f for f in found if isinstance(f, Unknown)), None)
        whole = [f for f in found if isinstance(f, BatchFound)]
        if refused is not None:
            return refused
        if len({(f.value, f.slots) for f in whole}) > 1:
            return Unknown("the cell trains more than once, and the error does not say which call failed")
        return _checked(whole[0], whole[0].names, fixed)
    setting = loops.find(reader)
    if isinstance(setting, Unknown):
        return setting
    looped = BatchFound(cell, setting.value, setting.slots, per_replica=setting.per_replica, notes=setting.notes)
    return _checked(looped, setting.names, fixed)


def _checked(
    found: BatchFound, names: frozenset[str], fixed: tuple[str, ast.expr | None] | None
) -> BatchFound | Unknown:
    if fixed is not None and (fixed[1] is None or ast.unparse(fixed[1]) not in names):
        return Unknown(fixed[0])
    line = shape_with(found.cell, found.value)
    if line is not None:
        return Unknown(f"line {line} has a shape that begins with {found.value} too, and may count on the batch")
    return found


def set_batch(found: BatchFound, batch: int, more: tuple[CellEdit, ...] = ()) -> tuple[str, tuple[str, ...]] | Unknown:
    """Give the cell with the batch size set to ``batch`` and ``more`` edits, and the sentences that go with it."""
    cell = found.cell
    edits = [*more, *(slot.edit(batch) for slot in found.slots)]
    edits += [slot.edit(min(slot.value, batch)) for slot in found.validation]
    notes = [note for note in found.notes if note != IMPORT]
    if IMPORT in found.notes:
        edits.append(insert_line(cell, first_statement(cell), IMPORT))
    for steps in found.steps:
        old = found.validation_batch if steps.name == "validation_steps" else found.value
        note = "" if old is None else scale(cell, steps, old, min(old, batch), edits)
        if note:
            notes.append(note)
    changed = apply_edits(cell, edits)
    if isinstance(changed, NotPython):
        return Unknown(changed.reason)
    if changed == cell.source:
        return Unknown("the change would leave the cell as it is")
    return changed, tuple(dict.fromkeys(notes))


def _keras(reader: Reader, call: ast.Call) -> BatchFound | Unknown:
    method = called_name(call)
    if any(isinstance(a, ast.Starred) for a in call.args):
        return Unknown(f"the arguments in line {call.lineno} cannot be followed")
    extra = double_star(reader, call)
    if isinstance(extra, Unknown):
        return extra
    given = argument(call, extra, "batch_size", KERAS[method])
    setting = _of_data(reader, call, method, extra, given)
    if isinstance(setting, Unknown):
        return setting
    seen = next((b.batch for b in reader.facts.batches if b.method == method), None)
    if seen is not None and (seen % setting.value if setting.per_replica else seen != setting.value):
        return Unknown(f"the cell seems to say {setting.value}, but Keras used batches of {seen}")
    divisors = find_divisors(reader, call, extra, setting)
    validation = _validation(reader, call, extra, setting)
    receiver = call.func.value  # type: ignore[attr-defined]
    name = receiver.id if isinstance(receiver, ast.Name) else None
    if method == "fit" and reader.facts.validating and validation.slots and validation.batch is not None:
        steps = find_steps(reader, call, extra, setting)
        return BatchFound(
            reader.cell,
            validation.batch,
            validation.slots,
            "validation",
            name,
            per_replica=setting.per_replica,
            steps=tuple(s for s in steps if s.name == "validation_steps"),
            names=setting.names,
            notes=validation.notes,
            validation_batch=validation.batch,
        )
    return BatchFound(
        reader.cell,
        setting.value,
        (*setting.slots, *divisors),
        method,
        name,
        seen,
        setting.per_replica,
        validation.slots,
        find_steps(reader, call, extra, replace(setting, slots=(*setting.slots, *divisors))),
        setting.names,
        (*setting.notes, *validation.notes),
        validation.batch,
    )


def _of_data(
    reader: Reader, call: ast.Call, method: str, extra: ast.expr | None, given: ast.expr | None
) -> Setting | Unknown:
    data = argument(call, extra, "x", 0)
    target = None if method == "predict" else argument(call, extra, "y", 1)
    if isinstance(target, ast.Constant) and target.value is None:
        target = None
    if data is None:
        return Unknown(f"`{method}` in line {call.lineno} does not plainly say its data")
    sources = {b.source for b in reader.facts.batches if b.method == method}
    traced: Traced = Arrays() if target is not None or sources == {"arrays"} else trace(reader, data)
    if isinstance(traced, Setting):
        return traced
    if isinstance(traced, Unknown) and (given is None or not _surely_no_dataset(reader, data, sources)):
        return traced
    if given is not None and not _is_none(given):
        return resolve(reader, given)
    receiver = call.func.value  # type: ignore[attr-defined]
    known = isinstance(receiver, ast.Name) and reader.facts.model(receiver.id) is not None
    if reader.facts.tensorflow is not None and not known and (not sources or is_unlisted(reader, receiver)):
        return Unknown(f"whether `{ast.unparse(receiver)}` is a Keras model is not known")
    if given is not None:
        return Setting(KERAS_DEFAULT, (reader.slot(given, KERAS_DEFAULT),))
    return default_argument(reader, call, KERAS_DEFAULT)


def _is_none(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Constant) and expr.value is None


def _surely_no_dataset(reader: Reader, data: ast.expr, sources: set[str]) -> bool:
    if sources or not isinstance(data, ast.Name) or reader.facts.tensorflow is None:
        return False
    return reader.facts.dataset(data.id) is None and any(v.name == data.id for v in reader.facts.values)


@dataclass(frozen=True, slots=True)
class _Validation:
    """The validation data's own slots, and its batch size where the edit changes that (None: it stays)."""

    slots: tuple[Slot, ...] = ()
    notes: tuple[str, ...] = ()
    batch: int | None = None


def _validation(reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting) -> _Validation:
    """Find how the validation data are batched."""
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
            return _Validation(notes=("The validation data keep their batch size.",))
        slots = tuple(s for s in traced.slots if s not in setting.slots)
        return _Validation(slots, traced.notes if slots else (), traced.value)
    if isinstance(traced, Unknown):
        return _Validation(notes=(f"The validation data keep their batch size: {traced.reason}.",))
    # Keras validates arrays with fit's own batch_size.
    return _Validation(batch=setting.value if arrays else None)
