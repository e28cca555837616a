"""Find where the batch size that feeds the failing line is set."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.core.facts import BatchSeen, Facts
from tf_mem_magic.notebook.batch import loops
from tf_mem_magic.notebook.batch.consumers import keras_calls
from tf_mem_magic.notebook.batch.counting_on import (
    counted_on_behind,
    with_all_that_count_on_it,
)
from tf_mem_magic.notebook.batch.counts import counts_beside, steps_beside, with_counts
from tf_mem_magic.notebook.batch.fixed import asked_for, fixed_model, mean_with, micro_batches, shape_with
from tf_mem_magic.notebook.batch.found import BatchFound, unknown_counts, unknown_in_validation
from tf_mem_magic.notebook.batch.keras_call import is_another, setting_of_an_earlier_dict, setting_of_data
from tf_mem_magic.notebook.batch.means.caps import with_caps
from tf_mem_magic.notebook.batch.means.kept import with_means
from tf_mem_magic.notebook.batch.means.lost import lost_length
from tf_mem_magic.notebook.batch.methods import behind_a_method
from tf_mem_magic.notebook.batch.samples import count_samples
from tf_mem_magic.notebook.batch.steps import argument, find_divisors, find_steps, first_argument
from tf_mem_magic.notebook.batch.validation import Validation, find_validating_loops, find_validation
from tf_mem_magic.notebook.follow.behind import model_names
from tf_mem_magic.notebook.follow.entries import double_star
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.follow.resolve import default_argument
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import KERAS, called_name

_MOST_CALLS = 50
"""More calls of Keras than these are not compared with each other."""

_WHICH = "the cell trains more than once, and the error does not say which call failed"


def find_batch(
    cell: PythonCell, facts: Facts, lines: frozenset[int], shape: tuple[int, ...] | None = None
) -> BatchFound | Unknown:
    """Find the batch size behind ``lines``, the cell's lines that led to the error; empty where they are unknown.

    ``shape`` is that of the tensor for which memory ran out; None where it is not known.
    """
    reader = Reader(cell, facts, lines)
    if reader.calls_of("exec") or any(not _is_asked(reader, call) for call in reader.calls_of("globals")):
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
    one = next((b for b in facts.batches[:1] if b.samples == 1), None)
    if one is not None:
        return Unknown(_of_one_sample(f"`{one.method}`, as Keras was seen to run it,"))
    looped = loops.find(reader)
    if isinstance(looped, Unknown):
        method = behind_a_method(reader)
        return looped if method is None else _of_a_method(reader, *method)
    setting = with_all_that_count_on_it(reader, looped.setting, None)
    if isinstance(setting, Unknown):
        return setting
    beside = find_validating_loops(reader, setting)
    if beside.counting:
        return _counts_on_it("the code", beside.counting)
    slots = with_counts(reader, setting.slots, setting.names, beside.slots)
    if isinstance(slots, Unknown):
        return slots
    validated = with_counts(reader, beside.slots, setting.names, slots)
    return _checked(
        reader,
        BatchFound(
            cell,
            setting.value,
            slots,
            per_replica=setting.per_replica,
            names=setting.names,
            notes=setting.notes,
            imports=tuple(dict.fromkeys((*setting.imports, *beside.imports))),
            infers=looped.infers,
            validation=() if isinstance(validated, Unknown) else validated,
            validation_notes=beside.notes,
            same_steps=setting.same_steps,
            parts=setting.parts,
        ),
    )


def find_in_call(reader: Reader, call: ast.Call) -> BatchFound | Unknown:
    """Find the batch size of one call of Keras, whether it failed or not."""
    return _keras(reader, call, None)


def _is_asked(reader: Reader, call: ast.Call) -> bool:
    """Tell whether ``globals()`` is only asked whether it has a name: ``"x" in globals()``."""
    above = reader.scopes.parents.get(call)
    return isinstance(above, ast.Compare) and all(isinstance(op, (ast.In, ast.NotIn)) for op in above.ops)


def _of_a_method(reader: Reader, setting: Setting, seen: BatchSeen) -> BatchFound | Unknown:
    """Describe the batch size of a training inside a method of the notebook's own class."""
    whole = with_all_that_count_on_it(reader, setting, None)
    if isinstance(whole, Unknown):
        return whole
    slots = with_counts(reader, whole.slots, whole.names)
    if isinstance(slots, Unknown):
        return slots
    infers = seen.method not in ("fit", "fit_generator")
    found = BatchFound(
        reader.cell,
        whole.value,
        slots,
        seen.method,
        seen=seen.batch,
        names=whole.names,
        notes=(*whole.notes, *unknown_counts(slots, seen.method, None, None, ())),
        imports=whole.imports,
        infers=infers,
        same_steps=whole.same_steps,
    )
    return _checked(reader, found)


def _checked(reader: Reader, found: BatchFound) -> BatchFound | Unknown:
    fixed = fixed_model(reader, found.call)
    if fixed is not None and (fixed[1] is None or reader.written(fixed[1]) not in found.names):
        return Unknown(fixed[0])
    if not found.infers and (reason := micro_batches(reader)):
        return Unknown(reason)
    shape = None if found.of_samples else shape_with(reader, found.value, found.call)
    if shape is not None:
        return Unknown(
            f"{reader.cell.told(shape)} has a shape that begins with {found.value} too, and may count on the batch"
        )
    asked = "" if found.call is not None else asked_for(reader, found)
    if asked:
        return Unknown(
            f"{asked} asks whether a batch has {found.value} samples, which would stay: then none has as many"
        )
    divides = "" if found.infers else mean_with(reader, found)
    if divides:
        return Unknown(f"{divides} divides by {found.value} too, which may be the batch size, and would stay")
    lost = lost_length(reader, (*found.slots, *found.validation))
    if lost is not None:
        return Unknown(
            f"`{reader.written(lost)}` in {reader.cell.told(lost)} would fail: TensorFlow does not know how many "
            "batches data have that are split again"
        )
    setting = Setting(found.value, (*found.slots, *found.validation), found.names)
    slots, steps = counts_beside(reader, setting), steps_beside(reader, setting, found.call)
    if found.validation_names - found.names and found.validation:
        only = replace(setting, names=found.validation_names - found.names)
        steps += tuple(replace(one, of_validation=True) for one in steps_beside(reader, only, found.call))
    whole = replace(found, slots=(*found.slots, *slots), steps=(*found.steps, *steps)) if slots or steps else found
    limited = with_caps(reader, whole)
    return limited if found.per_replica or isinstance(limited, Unknown) else with_means(reader, limited)


def _keras(reader: Reader, call: ast.Call, shape: tuple[int, ...] | None) -> BatchFound | Unknown:
    older = called_name(call)
    method = older.removesuffix("_generator")
    if any(isinstance(a, ast.Starred) for a in call.args):
        return Unknown(f"the arguments in {reader.cell.told(call)} cannot be followed")
    extra = double_star(reader, call)
    outside = setting_of_an_earlier_dict(reader, call, method) if isinstance(extra, Unknown) else None
    if isinstance(extra, Unknown) and outside is None:
        return extra
    extra = None if isinstance(extra, Unknown) else extra
    given = argument(call, extra, "batch_size", KERAS[older]) if older == method else None
    seen = next((b.batch for b in reader.facts.batches if b.method == method), None)
    setting = outside if isinstance(outside, Setting) else setting_of_data(reader, call, method, extra, given, seen)
    if isinstance(setting, Unknown):
        return setting
    if is_another(reader, seen, setting, None if setting.datasets else first_argument(call, extra)):
        return Unknown(f"the cell seems to say {setting.value}, but Keras used batches of {seen}")
    receiver = call.func.value  # type: ignore[attr-defined]
    name = receiver.id if isinstance(receiver, ast.Name) else None
    validating = method == "fit" and reader.facts.validating
    validation = find_validation(reader, call, extra, setting)
    if validating and validation.batch is not None:
        if not validation.slots and extra is None:
            # Keras validates arrays in batches of the training's size, unless it is told another.
            slots = default_argument(reader, call, validation.batch, "validation_batch_size").slots
            validation = replace(validation, slots=slots)
        if validation.slots:
            return _of_validation(reader, call, extra, setting, validation, name)
    fewer = _fewer_samples(reader, call, extra, method, setting, shape)
    if fewer is not None:
        return fewer if isinstance(fewer, Unknown) else replace(fewer, receiver=name, call=call)
    whole = with_all_that_count_on_it(reader, setting, call)
    if isinstance(whole, Unknown):
        return whole
    kept = validation.notes and validation.setting is None and validation.batch is None
    by_name = counted_on_behind(reader, whole, model_names(reader, call)) if kept else ""
    if by_name:
        return _counts_on_it("the model", by_name)
    divisors = find_divisors(reader, call, extra, whole, given)
    slots = tuple(dict.fromkeys((*whole.slots, *divisors)))
    names = whole.names | (validation.setting.names if validation.setting else frozenset())
    counted = with_counts(reader, slots, names, validation.slots)
    if isinstance(counted, Unknown):
        return counted
    validated = with_counts(reader, validation.slots, names, slots)
    if isinstance(validated, Unknown):
        return validated
    steps = find_steps(reader, call, extra, replace(whole, slots=slots), validation.setting)
    told = unknown_counts(counted, method, call, extra, steps)
    validation_told = unknown_in_validation(validated, call, extra, steps)
    kept_validation = () if validation.slots else validation.notes
    return BatchFound(
        reader.cell,
        whole.value,
        counted,
        method,
        name,
        seen,
        whole.per_replica,
        validated,
        steps,
        whole.names,
        (*whole.notes, *told, *kept_validation),
        validation.batch,
        (*validation.notes, *validation_told) if validation.slots else (),
        tuple(dict.fromkeys((*whole.imports, *validation.imports))),
        infers=method != "fit",
        call=call,
        validation_names=validation.setting.names if validation.setting else frozenset(),
    )


def _of_one_sample(call: str) -> str:
    return (
        f"{call} computes one sample, and no batch is smaller: a smaller sample, or pieces of it one by one, would help"
    )


def _counts_on_it(what: str, name: str) -> Unknown:
    return Unknown(
        f"{what} counts on `{name}` in the validation too, whose data keep their batches: make it smaller where it is "
        "set, and run the cells from there on again"
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
    steps = tuple(
        s for s in find_steps(reader, call, extra, setting, validation.setting) if s.name == "validation_steps"
    )
    return BatchFound(
        reader.cell,
        validation.batch,
        validation.slots,
        "validation",
        name,
        per_replica=setting.per_replica,
        steps=steps,
        names=setting.names,
        notes=(*validation.notes, *unknown_in_validation(validation.slots, call, extra, steps)),
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
    samples = None if setting.datasets else next((b.samples for b in reader.facts.batches if b.method == method), None)
    if samples is None and data is not None and not setting.datasets:
        samples = count_samples(reader, data)
    if samples is None and method != "fit" and shape is not None and len(shape) > 1 and not setting.per_replica:
        samples = shape[0] if 0 < shape[0] < setting.value else None
    if samples is None or samples >= setting.value:
        return None
    if samples < 2:
        return Unknown(_of_one_sample(f"`{method}` in {reader.cell.told(call)}"))
    given = argument(call, extra, "batch_size", KERAS[method])
    if setting.datasets or (isinstance(given, ast.Constant) is False and given is not None and extra is not None):
        return None
    at = default_argument(reader, call, samples).slots[0] if given is None else reader.slot(given, samples)
    note = f"The call gets {samples} samples, fewer than its batch size of {setting.value}."
    return BatchFound(reader.cell, samples, (at,), method, notes=(note,), infers=method != "fit", of_samples=True)
