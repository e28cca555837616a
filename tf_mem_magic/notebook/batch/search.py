"""Find where the batch size that feeds the failing line is set, and set it to another value."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch import loops
from tf_mem_magic.notebook.batch.consumers import is_unlisted, keras_calls
from tf_mem_magic.notebook.batch.counting_on import with_all_that_count_on_it
from tf_mem_magic.notebook.batch.datasets import Arrays, Traced, default_argument, trace
from tf_mem_magic.notebook.batch.fixed import fixed_model, shape_with
from tf_mem_magic.notebook.batch.samples import count_samples
from tf_mem_magic.notebook.batch.steps import Steps, argument, find_divisors, find_steps, scale
from tf_mem_magic.notebook.batch.validation import Validation, find_validation
from tf_mem_magic.notebook.follow.entries import double_star
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.text.cell import CellEdit, PythonCell, first_statement, insert_line
from tf_mem_magic.notebook.text.edits import Editor
from tf_mem_magic.notebook.uses import KERAS, called_name

KERAS_DEFAULT = 32
"""The batch size of Keras's fit, evaluate and predict on arrays where none is given (keras Trainer documentation)."""

_MOST_CALLS = 50
"""More calls of Keras than these are not compared with each other."""

_WHICH = "the cell trains more than once, and the error does not say which call failed"


@dataclass(frozen=True, slots=True)
class BatchFound:
    """The batch size that feeds the failing line, and all that must change with it.

    Attributes
    ----------
    cell : PythonCell
        The cell.
    value : int
        The batch size, for one replica where ``per_replica``.
    slots : tuple of Slot
        The places that set it.
    method : str
        The method of Keras that runs, ``"validation"`` where only the validation in ``fit`` is meant, or ``"loop"``.
    receiver : str or None
        The name of the model.
    seen : int or None
        What Keras was observed to use.
    per_replica : bool
        It is multiplied by the number of replicas.
    validation : tuple of Slot
        The places that set the batch size of the validation data.
    steps : tuple of Steps
        Numbers of steps that must grow.
    names : frozenset of str
        The names that change with it.
    notes : tuple of str
        Sentences for the user.
    validation_batch : int or None
        The batch size of the validation data.
    imports : tuple of str
        Lines that the edit needs at the top.
    infers : bool
        What failed surely computes no gradients.
    call : ast.Call or None
        The call of Keras; None for a loop.
    of_samples : bool
        The call gets no more samples than these, so its batch size is set there alone.
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
    imports: tuple[str, ...] = ()
    infers: bool = False
    call: ast.Call | None = None
    of_samples: bool = False

    @property
    def undo(self) -> tuple[str, ...]:
        """The lines that set back what the edit sets on objects of earlier cells."""
        return tuple(slot.undo for slot in (*self.slots, *self.validation) if slot.undo)

    def divisor_of(self, batch: int) -> int:
        """Return the largest batch size up to ``batch`` that keeps numbers of steps whole."""
        fixed = any(s.name != "validation_steps" and s.samples is None and not s.whole for s in self.steps)
        return next(n for n in range(max(batch, 1), 0, -1) if not fixed or self.value % n == 0)


def find_batch(
    cell: PythonCell, facts: Facts, lines: frozenset[int], shape: tuple[int, ...] | None = None
) -> BatchFound | Unknown:
    """Find the batch size behind ``lines``, the cell's lines that led to the error; empty where they are unknown.

    ``shape`` is that of the tensor for which memory ran out; None where it is not known.
    """
    reader = Reader(cell, facts, lines)
    if reader.calls_of("globals", "exec"):
        return Unknown("the cell uses `globals()` or `exec`, so its names cannot be followed")
    consumers = keras_calls(reader)
    if isinstance(consumers, Unknown):
        return consumers
    if len(consumers) > _MOST_CALLS:
        return Unknown(_WHICH)
    if consumers:
        found = [_keras(reader, call, shape) for call in consumers]
        refused = next((f for f in found if isinstance(f, Unknown)), None)
        whole = [f for f in found if isinstance(f, BatchFound)]
        if refused is not None:
            return refused
        if len({(f.value, f.slots) for f in whole}) > 1:
            return Unknown(_WHICH)
        return _checked(reader, whole[0])
    looped = loops.find(reader)
    if isinstance(looped, Unknown):
        return looped
    setting = with_all_that_count_on_it(reader, looped.setting, None)
    if isinstance(setting, Unknown):
        return setting
    return _checked(
        reader,
        BatchFound(
            cell,
            setting.value,
            setting.slots,
            per_replica=setting.per_replica,
            names=setting.names,
            notes=setting.notes,
            imports=setting.imports,
            infers=looped.infers,
        ),
    )


def _checked(reader: Reader, found: BatchFound) -> BatchFound | Unknown:
    fixed = fixed_model(reader, found.call)
    if fixed is not None and (fixed[1] is None or reader.written(fixed[1]) not in found.names):
        return Unknown(fixed[0])
    line = None if found.of_samples else shape_with(reader, found.value)
    if line is not None:
        return Unknown(f"line {line} has a shape that begins with {found.value} too, and may count on the batch")
    return found


def set_batch(found: BatchFound, batch: int, more: tuple[CellEdit, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """Return the cell with the batch size set to ``batch`` and ``more`` edits, and the sentences that go with it.

    Raises
    ------
    RefusedError
        If an epoch would no longer see all samples, or the edit cannot be sure.
    """
    cell = found.cell
    edits = [*more, *(slot.edit(batch) for slot in found.slots)]
    edits += [slot.edit(min(slot.value, batch)) for slot in found.validation]
    notes = list(found.notes)
    if found.imports:
        edits.append(insert_line(cell, first_statement(cell), *found.imports))
    for steps in found.steps:
        old = found.validation_batch if steps.name == "validation_steps" else found.value
        note = "" if old is None else scale(cell, steps, old, min(old, batch), edits)
        if note:
            notes.append(note)
    changed = Editor(cell).edit(*edits).source()
    if changed == cell.source:
        raise RefusedError("the change would leave the cell as it is")
    return changed, tuple(dict.fromkeys(notes))


def _keras(reader: Reader, call: ast.Call, shape: tuple[int, ...] | None) -> BatchFound | Unknown:
    method = called_name(call)
    if any(isinstance(a, ast.Starred) for a in call.args):
        return Unknown(f"the arguments in line {call.lineno} cannot be followed")
    extra = double_star(reader, call)
    if isinstance(extra, Unknown):
        return extra
    given = argument(call, extra, "batch_size", KERAS[method])
    seen = next((b.batch for b in reader.facts.batches if b.method == method), None)
    setting = _of_data(reader, call, method, extra, given, seen)
    if isinstance(setting, Unknown):
        return setting
    if seen is not None and (seen % setting.value if setting.per_replica else seen != setting.value):
        return Unknown(f"the cell seems to say {setting.value}, but Keras used batches of {seen}")
    receiver = call.func.value  # type: ignore[attr-defined]
    name = receiver.id if isinstance(receiver, ast.Name) else None
    validating = method == "fit" and reader.facts.validating
    validation = find_validation(reader, call, extra, setting)
    if validating and validation.slots and validation.batch is not None:
        return _of_validation(reader, call, extra, setting, validation, name)
    fewer = _fewer_samples(reader, call, extra, method, setting, shape)
    if fewer is not None:
        return fewer if isinstance(fewer, Unknown) else replace(fewer, receiver=name, call=call)
    whole = with_all_that_count_on_it(reader, setting, call)
    if isinstance(whole, Unknown):
        return whole
    divisors = find_divisors(reader, call, extra, whole, given)
    slots = tuple(dict.fromkeys((*whole.slots, *divisors)))
    return BatchFound(
        reader.cell,
        whole.value,
        slots,
        method,
        name,
        seen,
        whole.per_replica,
        validation.slots,
        find_steps(reader, call, extra, replace(whole, slots=slots)),
        whole.names,
        (*whole.notes, *validation.notes),
        validation.batch,
        tuple(dict.fromkeys((*whole.imports, *validation.imports))),
        infers=method != "fit",
        call=call,
    )


def _of_validation(
    reader: Reader,
    call: ast.Call,
    extra: ast.expr | None,
    setting: Setting,
    validation: Validation,
    name: str | None,
) -> BatchFound:
    """Describe the batch size of the validation in ``fit``, where that alone failed."""
    assert validation.batch is not None
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
        imports=validation.imports,
        call=call,
    )


def _fewer_samples(
    reader: Reader,
    call: ast.Call,
    extra: ast.expr | None,
    method: str,
    setting: Setting,
    shape: tuple[int, ...] | None,
) -> BatchFound | Unknown | None:
    """Where the call gets fewer samples than the batch, these are the batch; below two there is no smaller one.

    In inference the failing tensor tells too: what it computes has a row for each sample.
    """
    data = argument(call, extra, "x", 0)
    samples = None if data is None or setting.datasets else count_samples(reader, data)
    if samples is None and method != "fit" and shape is not None and len(shape) > 1 and not setting.per_replica:
        samples = shape[0] if 0 < shape[0] < setting.value else None
    if samples is None or samples >= setting.value:
        return None
    if samples < 2:
        return Unknown(
            f"`{method}` in line {call.lineno} computes one sample, and no batch is smaller: a smaller sample, or "
            "pieces of it one by one, would help"
        )
    given = argument(call, extra, "batch_size", KERAS[method])
    if setting.datasets or (isinstance(given, ast.Constant) is False and given is not None and extra is not None):
        return None
    at = default_argument(reader, call, samples).slots[0] if given is None else reader.slot(given, samples)
    note = f"The call gets {samples} samples, fewer than its batch size of {setting.value}."
    return BatchFound(reader.cell, samples, (at,), method, notes=(note,), infers=method != "fit", of_samples=True)


def _of_data(
    reader: Reader, call: ast.Call, method: str, extra: ast.expr | None, given: ast.expr | None, seen: int | None
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
    if isinstance(traced, Unknown) and count_samples(reader, data) is not None:
        traced = Arrays()
    if isinstance(traced, Unknown) and (given is None or not _surely_no_dataset(reader, data, sources)):
        return traced
    if given is not None and not _is_none(given):
        found = resolve(reader, given)
        return found if isinstance(found, Setting) else _as_seen(reader, given, seen, found)
    receiver = call.func.value  # type: ignore[attr-defined]
    known = isinstance(receiver, ast.Name) and reader.facts.model(receiver.id) is not None
    if reader.facts.tensorflow is not None and not known and (not sources or is_unlisted(reader, receiver)):
        return Unknown(f"whether `{ast.unparse(receiver)}` is a Keras model is not known")
    if given is not None:
        return Setting(KERAS_DEFAULT, (reader.slot(given, KERAS_DEFAULT),))
    return default_argument(reader, call, KERAS_DEFAULT)


def _as_seen(reader: Reader, given: ast.expr, seen: int | None, refused: Unknown) -> Setting | Unknown:
    """Write a number at the call where its batch size is computed there, and Keras was seen to use a number."""
    computed = given
    if isinstance(given, ast.Name):
        chosen = reader.reaching(given)
        if chosen is None or chosen.kind != "assign" or chosen.value is None:
            return refused
        computed = chosen.value
    kept = isinstance(computed, ast.Subscript) and not isinstance(getattr(computed.slice, "value", None), int)
    if seen is None or kept or not isinstance(computed, (ast.Call, ast.BinOp, ast.Subscript, ast.IfExp)):
        return refused
    return Setting(seen, (reader.slot(given, seen),))


def _is_none(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Constant) and expr.value is None


def _surely_no_dataset(reader: Reader, data: ast.expr, sources: set[str]) -> bool:
    if sources or not isinstance(data, ast.Name) or reader.facts.tensorflow is None:
        return False
    return reader.facts.dataset(data.id) is None and any(v.name == data.id for v in reader.facts.values)
