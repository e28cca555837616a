"""Where a cell reads how many batches there were for something else than a mean."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.notebook.batch.means.growth import growth
from tf_mem_magic.notebook.batch.means.powers import Data, Growth
from tf_mem_magic.notebook.uses import called_name

_SHOWS = ("tqdm", "trange", "Progbar", "ProgressBar", "progress_bar")
_SIZED = frozenset("zeros empty full ones arange linspace reshape".split())
"""Calls that make an array as long as there are batches: what each turn has given would no longer go into it."""


def counted_elsewhere(data: Data, handled: set[ast.AST]) -> Iterator[ast.expr]:
    """Yield where the cell reads how many batches there were, beside what is handled and what shows a progress."""
    reader, scopes = data.reader, data.reader.scopes
    edited = [(slot.start, slot.end) for slot in data.setting.slots]
    counts: dict[str, bool] = {}
    for node in reader.nodes:
        is_length = isinstance(node, ast.Call) and called_name(node) in ("len", "cardinality")
        is_name = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        if not isinstance(node, (ast.Call, ast.Name)) or not (is_length or is_name) or node in handled:
            continue
        statement = scopes.statement(node)
        kept = isinstance(statement, ast.Assign) and growth(data, statement.value) is not None
        start, end = reader.cell.start(node), reader.cell.end(node)
        if kept or any(first <= start and end <= last for first, last in edited) or _is_shown(data, node):
            continue
        written = reader.written(node)
        if written not in counts:
            counts[written] = growth(data, node) == Growth(1, 0)
        if counts[written]:
            yield node


def totals_shown(data: Data) -> Iterator[ast.expr]:
    """Yield where a bar over this loop is told how many batches there were: ``tqdm(ds, total=len(ds))``."""
    source = [] if isinstance(data.loop, ast.While) else list(ast.walk(data.loop.iter))
    moves = {called_name(n) for one in data.loop.body for n in ast.walk(one) if isinstance(n, ast.Call)}
    for call in data.reader.calls_of(*_SHOWS):
        is_bar = called_name(call) in ("Progbar", "ProgressBar") or not call.args
        if call not in source and not (is_bar and moves & {"update", "add"}):
            continue
        given = [k.value for k in call.keywords if k.arg in ("total", "target", "max_value")]
        if called_name(call) in ("Progbar", "ProgressBar") and not given:
            given = call.args[:1]
        yield from (value for value in given if growth(data, value) == Growth(1, 0))


def _is_shown(data: Data, node: ast.expr) -> bool:
    """Tell whether a number is that of a progress bar, or the one by which the loop takes its batches."""
    if data.reader.written(node) in data.taken and data.loop in set(data.reader.scopes.up(node)):
        return True
    calls = (up for up in data.reader.scopes.up(node) if isinstance(up, ast.Call))
    return any(called_name(call) in _SHOWS for call in calls)


def is_a_size(data: Data, node: ast.expr) -> bool:
    """Tell whether a number of batches is the length of an array, or where a list of what the turns gave is cut."""
    for parent in data.reader.scopes.up(node):
        if isinstance(parent, ast.Call):
            if called_name(parent) in _SIZED:
                return True
            if called_name(parent) != "int":
                return False
        elif isinstance(parent, ast.Slice):
            return True
        elif not isinstance(parent, (ast.BinOp, ast.UnaryOp, ast.Tuple, ast.List, ast.keyword)):
            return False
    return False
