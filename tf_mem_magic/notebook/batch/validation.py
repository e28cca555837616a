"""How the data are batched that ``fit``, or a loop beside the one that trains, validates on."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.batch.consumers import trains_nothing
from tf_mem_magic.notebook.batch.counts import stays_a_count, summed, with_loop_counts
from tf_mem_magic.notebook.batch.datasets import Arrays, Traced, trace
from tf_mem_magic.notebook.batch.loops import gone_through
from tf_mem_magic.notebook.batch.steps import argument, follows
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


def find_validating_loops(reader: Reader, setting: Setting) -> Validation:
    """Find the loops beside the failing one that go over data with a batch size of their own, and train nothing.

    They run with the change too, after the training: where their batches stay, those may be what runs out then.
    """
    found: list[Setting] = []
    names: list[str] = []
    for loop in (node for node in reader.nodes if isinstance(node, ast.For)):
        if not _runs_beside(reader, loop) or not trains_nothing(reader, loop.body):
            continue
        source = gone_through(loop.iter)
        traced = trace(reader, source)
        counted = with_loop_counts(reader, loop, traced) if isinstance(traced, Setting) else traced
        plain = isinstance(counted, Setting) and not counted.per_replica and not counted.same_steps
        if plain and isinstance(counted, Setting) and _means_stay(reader, loop, counted):
            found.append(counted)
            names.append(f"`{reader.written(source)}`")
    slots = tuple(dict.fromkeys(slot for one in found for slot in one.slots if slot not in setting.slots))
    if not slots:
        return Validation()
    told = " and ".join(dict.fromkeys(names))
    notes = (f"The loop over {told}, which trains nothing, gets batches that are as small.",)
    return Validation(slots, notes, imports=tuple(line for one in found for line in one.imports))


def _means_stay(reader: Reader, loop: ast.For, setting: Setting) -> bool:
    """Tell whether what is divided of a loop's sums is surely divided by what grows with the number of batches."""
    sums = summed(loop)
    grows = {
        n.target.id
        for one in loop.body
        for n in ast.walk(one)
        if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
    }
    for node in (n for n in reader.nodes if sums and isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)):
        of_sums = any(isinstance(n, ast.Name) and n.id in sums for n in ast.walk(node.left))
        counted = isinstance(node.right, ast.Name) and node.right.id in grows
        if of_sums and not (
            counted or follows(reader, node.right, setting) or stays_a_count(reader, node.right, setting)
        ):
            return False
    return True


def _runs_beside(reader: Reader, loop: ast.For) -> bool:
    """Whether a loop runs in the code that failed, and is not around it."""
    if not reader.lines or reader.covers(loop) or any(isinstance(up, _SCOPES) for up in reader.scopes.up(loop)):
        return False
    inner = (one for one in ast.walk(loop) if isinstance(one, ast.For) and one is not loop)
    return not any(isinstance(one.iter, ast.expr) and reader.covers(one) for one in inner)


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


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
