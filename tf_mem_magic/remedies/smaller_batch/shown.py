"""How many samples of one batch the cell reads by their number, which a smaller batch may not have."""

from __future__ import annotations

import ast

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.batch.steps import follows
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.reader import Reader, Setting
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines
from tf_mem_magic.remedies.smaller_batch.drawn import check_drawn
from tf_mem_magic.remedies.smaller_batch.parts_taken import check_parts

_DEEPEST = 4


def check_shown(ask: Ask, found: BatchFound, batch: int) -> None:
    """Refuse where the cell reads more samples of a batch than one of ``batch`` has: ``for i in range(9): x[i]``.

    Raises
    ------
    RefusedError
        If it would stop there, as it did not before.
    """
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    check_parts(reader, found, batch)
    check_drawn(reader, found, batch)
    setting = Setting(found.value, found.slots, found.names)
    for loop in (n for n in ask.cell.nodes if isinstance(n, ast.For) and isinstance(n.target, ast.Name)):
        count = _turns(reader, loop)
        if count is None or not batch < count <= found.value or any(isinstance(n, ast.Break) for n in ast.walk(loop)):
            continue
        if any(_is_drawn(reader, name, setting) for name in _indexed(loop)):
            place = ask.cell.told(loop)
            raise RefusedError(
                f"{place} reads {count} samples of one batch, and a batch of {batch} has fewer: it would fail"
            )


def _turns(reader: Reader, loop: ast.For) -> int | None:
    """Give the number of turns of a loop over ``range(9)``, as it stands or in a name; None where it is not known."""
    ends = loop.iter
    if not isinstance(ends, ast.Call) or called_name(ends) != "range" or len(ends.args) != 1:
        return None
    end: ast.expr | None = ends.args[0]
    for _ in range(_DEEPEST):
        if isinstance(end, ast.Constant):
            return end.value if type(end.value) is int else None
        if not isinstance(end, ast.Name):
            return None
        end = _given(reader, end)
    return None


def _given(reader: Reader, name: ast.Name) -> ast.expr | None:
    """Give what a name was set to, or what a function of the cell got for it in its one call."""
    chosen = reader.reaching(name)
    if chosen is not None and chosen.value is not None:
        return chosen.value
    function = reader.scopes.home(name)
    if not isinstance(function, ast.FunctionDef):
        return None
    called = [c for c in reader.cell.calls if isinstance(c.func, ast.Name) and c.func.id == function.name]
    return calls.bind(called[0], function, name.id, skip=False) if len(called) == 1 else None


def _indexed(loop: ast.For) -> list[ast.Name]:
    """List the names whose samples the number of a loop picks: ``x[i]``, ``x.numpy()[i]``, ``x[i, :, :, 0]``."""
    found = []
    for node in (n for n in ast.walk(loop) if isinstance(n, ast.Subscript)):
        first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
        if not isinstance(first, ast.Name) or first.id != loop.target.id:  # type: ignore[attr-defined]
            continue
        root: ast.expr = node.value
        while isinstance(root, ast.Call) and isinstance(root.func, ast.Attribute) and called_name(root) == "numpy":
            root = root.func.value
        found += [root] if isinstance(root, ast.Name) else []
    return found


def _is_drawn(reader: Reader, name: ast.Name, setting: Setting, depth: int = 0) -> bool:
    """Tell whether a name holds a batch of the data that the edit makes smaller: drawn by a loop, or by ``next``."""
    if depth > _DEEPEST:
        return False
    home = reader.scopes.home(name)
    drawn = []
    for node in ast.walk(home):
        if isinstance(node, ast.For) and _sets(node.target, name.id):
            drawn.append(gone_through(reader, node.iter))
        elif isinstance(node, ast.Assign) and any(_sets(target, name.id) for target in node.targets):
            value = node.value
            if not isinstance(value, ast.Call) or called_name(value) != "next" or not value.args:
                return False
            drawn.append(value.args[0])
    if drawn:
        return all(follows(reader, one, setting) for one in drawn)
    given = _given(reader, name) if isinstance(home, ast.FunctionDef) else None
    return isinstance(given, ast.Name) and given is not name and _is_drawn(reader, given, setting, depth + 1)


def _sets(target: ast.expr, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(target))
