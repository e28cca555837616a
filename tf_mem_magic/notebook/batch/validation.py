"""How the data are batched that ``fit``, or a loop beside the one that trains, validates on."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.batch.consumers import trains_nothing
from tf_mem_magic.notebook.batch.counting_on import counted_on_behind, with_all_that_count_on_it
from tf_mem_magic.notebook.batch.counts import SCOPES, with_loop_counts
from tf_mem_magic.notebook.batch.datasets import Arrays, Traced, trace
from tf_mem_magic.notebook.batch.fixed import shape_with
from tf_mem_magic.notebook.batch.means.kept import looks_at_batches, means_of
from tf_mem_magic.notebook.batch.means.lost import lost_length, split_in_the_loop
from tf_mem_magic.notebook.batch.means.sums import reads_of, summed_in
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.batch.steps import argument
from tf_mem_magic.notebook.follow.behind import failing_names
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.cell import walk


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
    counting : str
        The name that the edit sets and by which code counts on batches that stay as they are; empty: there is none.
    """

    slots: tuple[Slot, ...] = ()
    notes: tuple[str, ...] = ()
    batch: int | None = None
    imports: tuple[str, ...] = ()
    setting: Setting | None = None
    counting: str = ""


def find_validating_loops(reader: Reader, setting: Setting) -> Validation:
    """Find the loops behind the failing one that go over data with a batch size of their own, and train nothing.

    They run with the change too, after the training: where their batches stay, those may be what runs out then. A loop
    stays as it is unless all that it makes of its batches surely stays what it was.
    """
    found: list[Setting] = []
    names: list[str] = []
    counting = ""
    for loop in (node for node in reader.nodes if isinstance(node, ast.For)):
        if not _runs_behind(reader, loop):
            continue
        source = gone_through(reader, loop.iter)
        traced = trace(reader, source)
        if not isinstance(traced, Setting) or set(traced.slots) & set(setting.slots):
            continue
        inside = Reader(reader.cell, reader.facts, frozenset(range(loop.lineno, (loop.end_lineno or 0) + 1)))
        own = None if looks_at_batches(loop) else _own_setting(inside, loop, traced, setting)
        if own is None or not trains_nothing(reader, loop.body) or not _stays_what_it_was(reader, loop, own, setting):
            same = traced.value == setting.value and not traced.names & setting.names
            counting = counting or (counted_on_behind(inside, setting, failing_names(inside)) if same else "")
        else:
            found.append(own)
            names.append(f"`{reader.written(source)}`")
    slots = tuple(dict.fromkeys(slot for one in found for slot in one.slots if slot not in setting.slots))
    if not slots:
        return Validation(counting=counting)
    told = " and ".join(dict.fromkeys(names))
    notes = (f"The loop over {told}, which trains nothing, gets batches that are as small.",)
    imports = tuple(line for one in found for line in one.imports)
    return Validation(slots, notes, imports=imports, counting=counting)


def _own_setting(inside: Reader, loop: ast.For, traced: Setting, setting: Setting) -> Setting | None:
    """Give how the data of a loop are batched; None where they must stay, or more counts on them than on the others."""
    counted = with_loop_counts(inside, loop, split_in_the_loop(inside, loop, traced))
    if not isinstance(counted, Setting) or counted.per_replica or counted.same_steps:
        return None
    if lost_length(inside, counted.slots) is not None:
        return None
    whole = with_all_that_count_on_it(inside, counted, None)
    if not isinstance(whole, Setting) or whole.names - counted.names - setting.names:
        return None
    return counted if shape_with(inside, counted.value) is None else None


def _stays_what_it_was(reader: Reader, loop: ast.For, own: Setting, setting: Setting) -> bool:
    """Tell whether what a loop makes of its batches is the same if they are smaller, and more."""
    means = means_of(reader, loop, own, setting.slots, setting.names)
    sure = not (means.unclear or means.odd or means.unread or means.counting)
    return sure and not _reads_the_last_batch(reader, loop)


def _reads_the_last_batch(reader: Reader, loop: ast.For) -> bool:
    """Tell whether the cell reads outside of a loop what each turn sets anew, or how many there were.

    What divides a sum was looked at already.
    """
    inside = list(walk(loop))
    stored = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    sums = summed_in(reader, loop)
    dividing = {n for one in sums for read in reads_of(reader, loop, one) if read.by for n in walk(read.by)}
    within = dividing.union(inside)
    for name in stored - {one.key for one in sums}:
        for load in reader.scopes.loads.get((reader.cell.tree, name), []):
            if load not in within and not _is_set_before(reader, loop, load):
                return True
    return False


def _is_set_before(reader: Reader, loop: ast.For, load: ast.Name) -> bool:
    """Tell whether a name that a loop sets surely holds something else where it is read outside of the loop."""
    scopes, above = reader.scopes, list(reader.scopes.up(load))
    around = [up for up in scopes.up(loop) if isinstance(up, (ast.For, ast.While)) and up in above]
    ahead = position(load) < position(loop)
    if ahead and not around:
        return True
    for binding in reader.bindings(load):
        statement = scopes.statement(binding.node)
        outside = list(scopes.up(statement))
        if statement is loop or loop in outside:
            continue
        if isinstance(statement, (ast.For, ast.AsyncFor)) and statement in above:
            return True
        since = around[0] in outside if ahead else position(statement) > position(loop)
        if since and scopes.surely_before(statement, load):
            return True
    return False


def _runs_behind(reader: Reader, loop: ast.For) -> bool:
    """Tell whether a loop of the cell itself runs after the failing one: behind it, or in the same loop."""
    above = list(reader.scopes.up(loop))
    if not reader.lines or reader.covers(loop) or any(isinstance(up, SCOPES) for up in above):
        return False
    if any(isinstance(up, (ast.For, ast.While)) and reader.covers(up) for up in above):
        return True
    statements = (n for n in reader.nodes if isinstance(n, ast.stmt) and not isinstance(n, SCOPES) and n not in above)
    failed = (s for s in statements if reader.covers(s) and isinstance(reader.scopes.scope_of(s), ast.Module))
    return any(position(statement) < position(loop) for statement in failed)


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
