"""Datasets and generators of earlier cells: split again where they are used, or set by their attribute."""

from __future__ import annotations

import ast

from tf_mem_magic.core.facts import DatasetFacts
from tf_mem_magic.notebook.batch.generators import reads_its_batch_anew
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.text.ranges import line_start
from tf_mem_magic.notebook.uses import called_name

IMPORT = "import tensorflow as tf"
"""The line that an edit needs which writes ``tf`` where the cell does not reach it."""


def earlier_dataset(reader: Reader, name: ast.Name, known: DatasetFacts) -> Setting | Unknown:
    """Set the batch size of a dataset or generator that an earlier cell made."""
    if known.kind != "tf.data":
        again = f"`{name.id}` was made in an earlier cell: change its batch size there and run that cell again"
        if known.kind == "PyDataset" and known.batch is not None and reads_its_batch_anew(reader, name.id):
            return _by_attribute(reader, name, known.batch)
        return Unknown(again)
    if known.batch is None:
        return Unknown(f"the batch size of `{name.id}`, made in an earlier cell, cannot be told")
    start, end = reader.cell.start(name), reader.cell.end(name)
    module = reader.tensorflow
    samples = known.samples
    if samples is not None and known.cardinality is not None:
        after = f").apply({module or 'tf'}.data.experimental.assert_cardinality({{count}}))"
        slots = (Slot(known.batch, start, end, f"{name.id}.rebatch(", after, samples, name.id),)
        return Setting(known.batch, slots, imports=() if module else (IMPORT,))
    uncounted = known.cardinality is not None and not _goes_on_for_ever(reader, name)
    slots = (Slot(known.batch, start, end, f"{name.id}.rebatch(", ")", dataset=name.id, uncounted=uncounted),)
    return Setting(known.batch, slots)


def _goes_on_for_ever(reader: Reader, data: ast.expr) -> bool:
    """Tell whether a dataset is repeated without an end where it is used: ``ds.prefetch(1).repeat()``."""
    parents = reader.scopes.parents
    method = parents.get(data)
    call = parents.get(method) if isinstance(method, ast.Attribute) else None
    if not isinstance(call, ast.Call) or call.func is not method:
        return False
    return repeats(call) or (called_name(call) != "take" and _goes_on_for_ever(reader, call))


def repeats(call: ast.expr) -> bool:
    """Tell whether a dataset is given that its last method repeats without an end."""
    if not isinstance(call, ast.Call) or called_name(call) != "repeat":
        return False
    count = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "count"), None)
    return count is None or ast.unparse(count) in ("None", "-1")


def _by_attribute(reader: Reader, name: ast.Name, batch: int) -> Setting:
    """Set the attribute of a generator of an earlier cell before the cell first uses it: it may count its batches."""
    uses = [name, *reader.scopes.loads.get((reader.scopes.home(name), name.id), [])]
    first = min((reader.scopes.top_statement(use) for use in uses), key=lambda statement: statement.lineno)
    at = line_start(reader.cell, first)
    written = f"{name.id}.batch_size"
    slot = Slot(batch, at, at, f"{written} = ", reader.cell.newline, undo=f"{written} = {batch}")
    return Setting(batch, (slot,), frozenset({written}))


def split_again(reader: Reader, call: ast.Call) -> Setting | None:
    """Read ``ds.rebatch(32).apply(tf.data.experimental.assert_cardinality(40))``, which an earlier edit wrote."""
    batched: ast.expr = call.func.value  # type: ignore[attr-defined]
    count = call.args[0] if len(call.args) == 1 else None
    if not isinstance(count, ast.Call) or called_name(count) != "assert_cardinality":
        return None
    if not isinstance(batched, ast.Call) or called_name(batched) != "rebatch" or len(batched.args) != 1:
        return None
    data, size = getattr(batched.func, "value", None), batched.args[0]
    if not isinstance(data, ast.Name) or reader.bindings(data):
        return None
    known = reader.facts.dataset(data.id)
    if known is None or known.samples is None or not isinstance(size, ast.Constant) or type(size.value) is not int:
        return None
    after = f").apply({reader.written(count.func)}({{count}}))"
    start, end = reader.cell.start(call), reader.cell.end(call)
    slot = Slot(size.value, start, end, f"{data.id}.rebatch(", after, known.samples, data.id)
    return Setting(size.value, (slot,))
