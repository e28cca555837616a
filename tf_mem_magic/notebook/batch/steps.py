"""Numbers of steps that must grow as the batch shrinks: ``steps_per_epoch`` and ``validation_steps``."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.cell import CellEdit, PythonCell
from tf_mem_magic.notebook.follow.entries import dict_value
from tf_mem_magic.notebook.follow.resolve import Reader, Setting, Slot, evaluate
from tf_mem_magic.notebook.uses import called_name


@dataclass(frozen=True, slots=True)
class Steps:
    """A number of steps that must grow as the batch shrinks: the expression, and its value where it is a constant.

    ``whole``: they are exactly one pass over the data, which is what Keras does where none are given.
    """

    name: str
    expr: ast.expr
    value: int | None
    whole: bool = False


def scale(cell: PythonCell, steps: Steps, old: int, new: int, edits: list[CellEdit]) -> str:
    """Add the edit that keeps ``steps`` covering the same samples; give the sentence that says so."""
    if steps.whole:
        edits.append(CellEdit(cell.start(steps.expr), cell.end(steps.expr), "None"))
        return f"`{steps.name}` becomes None: one pass over the data, as before."
    factor, remainder = divmod(old, new)
    if factor == 1 and not remainder:
        return ""
    if steps.value is None or remainder:
        return f"`{steps.name}` is set in the cell: check that it still covers your data, each step is smaller now."
    start, end = cell.start(steps.expr), cell.end(steps.expr)
    if not any(edit.start < end and start < edit.end for edit in edits):
        edits.append(CellEdit(start, end, str(steps.value * factor)))
    return f"`{steps.name}` becomes {steps.value * factor}, so that it covers as many samples as before."


def find_steps(reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting) -> tuple[Steps, ...]:
    """Find the numbers of steps that do not follow the batch size by themselves."""
    found = []
    for name in ("steps_per_epoch", "validation_steps") if called_name(call) == "fit" else ("steps",):
        expr = argument(call, extra, name, None)
        if expr is None or (isinstance(expr, ast.Constant) and expr.value is None):
            continue
        if _counts_rebatched(reader, expr, setting):
            found.append(Steps(name, expr, None, whole=True))
        elif not _follows(reader, expr, setting):
            value = evaluate(reader, expr)
            found.append(Steps(name, expr, int(value) if value is not None and value == int(value) else None))
    return tuple(found)


def _counts_rebatched(reader: Reader, expr: ast.expr, setting: Setting) -> bool:
    """Say whether ``expr`` is ``len(train_ds)`` of a finite dataset that the edit splits again."""
    if not (isinstance(expr, ast.Call) and called_name(expr) == "len" and len(expr.args) == 1):
        return False
    name = expr.args[0]
    known = reader.facts.dataset(name.id) if isinstance(name, ast.Name) else None
    counted = isinstance(name, ast.Name) and any(s.before == f"{name.id}.rebatch(" for s in setting.slots)
    return counted and known is not None and known.cardinality is not None


def _is_rebatched(setting: Setting) -> bool:
    return any(".rebatch(" in slot.before for slot in setting.slots)


def find_divisors(reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting) -> tuple[Slot, ...]:
    """Find the batch size written once more as a number in ``steps_per_epoch=n // 64``."""
    expr = argument(call, extra, "steps_per_epoch", None)
    found = []
    for node in ast.walk(expr) if expr is not None else ():
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.FloorDiv, ast.Div)):
            known = isinstance(node.right, ast.Constant) and node.right.value == setting.value
            if known and evaluate(reader, node.left) is None:
                found.append(reader.slot(node.right, setting.value))
    return tuple(found)


def _follows(reader: Reader, expr: ast.expr, setting: Setting, depth: int = 0) -> bool:
    """Say whether ``expr`` is computed from the batch size that is edited, or from the data themselves."""
    if depth > 10:
        return False
    slots = {(s.start, s.end) for s in setting.slots if not s.before}
    for node in ast.walk(expr):
        if isinstance(node, ast.expr) and ast.unparse(node) in setting.names:
            return True
        if isinstance(node, ast.expr) and (reader.cell.start(node), reader.cell.end(node)) in slots:
            return True
        if isinstance(node, ast.Attribute) and node.attr == "batch_size":
            return True
        if isinstance(node, ast.Call) and called_name(node) == "len" and node.args:
            counted = trace(reader, node.args[0])
            if isinstance(counted, Setting) and counted.slots == setting.slots and not _is_rebatched(setting):
                return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            chosen = reader.scopes.reaching(node, reader.bindings(node))
            if chosen is not None and chosen.value is not None and _follows(reader, chosen.value, setting, depth + 1):
                return True
    return False


def argument(call: ast.Call, extra: ast.expr | None, name: str, index: int | None) -> ast.expr | None:
    """Give an argument of ``call``: by keyword, by position, or from the dict behind ``**``."""
    found = next((k.value for k in call.keywords if k.arg == name), None)
    if found is None and index is not None and index < len(call.args):
        found = call.args[index]
    return found if found is not None or extra is None else dict_value(extra, name)
