"""Data whose length TensorFlow would no longer know: where a cell asks for it, they are split elsewhere."""

from __future__ import annotations

import ast
from dataclasses import replace

from tf_mem_magic.notebook.batch.counts import Loop
from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot
from tf_mem_magic.notebook.uses import called_name


def lost_length(reader: Reader, slots: tuple[Slot, ...]) -> ast.Call | None:
    """Find where the cell asks for the length of data that TensorFlow would no longer know: ``len`` would raise."""
    lost = {slot for slot in slots if slot.uncounted}
    for call in reader.calls_of("len") if lost else ():
        traced = trace(reader, call.args[0]) if len(call.args) == 1 else None
        if isinstance(traced, Setting) and lost & set(traced.slots):
            return call
    return None


def split_in_the_loop(reader: Reader, loop: Loop, setting: Setting) -> Setting:
    """Split data where a loop goes through them, rather than where they are made, if the cell asks for their length.

    Only where nothing else of the cell takes these data.
    """
    source = None if isinstance(loop, ast.While) else gone_through(reader, loop.iter)
    if not isinstance(source, ast.Name) or len(setting.slots) != 1 or lost_length(reader, setting.slots) is None:
        return setting
    parents = reader.scopes.parents
    for load in reader.scopes.loads.get((reader.scopes.home(source), source.id), []):
        asks = isinstance(parents[load], ast.Call) and called_name(parents[load]) == "len"  # type: ignore[arg-type]
        if load is not source and not asks:
            return setting
    function = reader.scopes.home(source)
    if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and len(reader.calls_of(function.name)) != 1:
        return setting
    at = reader.cell.end(source)
    slot = Slot(setting.value, at, at, ".rebatch(", ")", dataset=setting.slots[0].dataset, uncounted=True)
    return replace(setting, slots=(slot,))
