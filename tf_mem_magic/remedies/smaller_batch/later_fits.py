"""Trainings behind the one that failed, of the same model by batches of the same size: they would run out next."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace

from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.search import find_in_call
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import position


def with_later_fits(
    reader: Reader, found: BatchFound, wanted: Callable[[Reader, ast.Call], bool] = lambda reader, call: True
) -> BatchFound:
    """Let later calls of ``fit`` have the smaller batches too, where nothing but their own batch size changes with it.

    ``wanted`` tells of which. A call that gets another size, or one that a name holds, is left as it is.
    """
    call = found.call
    if call is None or found.method != "fit" or found.per_replica or found.of_samples:
        return found
    later = [one for one in reader.calls_of("fit") if _comes_later(reader, one, call) and wanted(reader, one)]
    for other in later:
        its = find_in_call(reader, other)
        if isinstance(its, BatchFound) and its.value == found.value and _is_by_itself(its, other):
            slots = tuple(dict.fromkeys((*found.slots, *its.slots)))
            found = replace(found, slots=slots, beside=(*found.beside, other))
    if not found.beside:
        return found
    where = reader.cell.told(*found.beside)
    note = f"`{reader.written(found.beside[0].func)}` in {where} gets the smaller batches too."
    return replace(found, notes=(*found.notes, note))


def is_on(reader: Reader, other: ast.Call, call: ast.Call) -> bool:
    """Tell whether two methods are called on the same name, or the same part of what a name holds."""
    roots = [root_of(one) for one in (other, call)]
    written = [reader.written(one.func.value) for one in (other, call) if isinstance(one.func, ast.Attribute)]
    if len(written) < 2 or written[0] != written[1]:
        return False
    homes = [reader.scopes.home(root) for root in roots if isinstance(root, ast.Name)]
    return len(homes) == 2 and homes[0] is homes[1]


def root_of(call: ast.Call) -> ast.expr:
    """Give what a method is called on, without its attributes and entries: ``self`` of ``self.nets[0].fit()``."""
    root: ast.expr = call.func
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    return root


def _comes_later(reader: Reader, other: ast.Call, call: ast.Call) -> bool:
    """Tell whether a call trains what ``call`` trains, behind it in the same scope, and no name is bound between."""
    if not is_on(reader, other, call) or reader.scopes.scope_of(other) is not reader.scopes.scope_of(call):
        return False
    root = root_of(call)
    bound = reader.bindings(root) if isinstance(root, ast.Name) else []
    return position(call) < position(other) and not any(
        position(call) < position(one.node) < position(other) for one in bound
    )


def _is_by_itself(found: BatchFound, call: ast.Call) -> bool:
    """Tell whether the batch size stands in its call, or is Keras's own, and nothing else follows it."""
    if found.method != "fit" or found.per_replica or found.of_samples or found.names or found.steps:
        return False
    first, last = found.cell.start(call), found.cell.end(call)
    places = (*found.slots, *found.validation)
    return all(first <= one.start <= one.end <= last and not one.dataset and not one.counts for one in places)
