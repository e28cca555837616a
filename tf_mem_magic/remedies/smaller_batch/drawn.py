"""Samples that a function reads by their numbers from what it makes with the batch size: a GAN's pictures."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.uses import called_name

_SKIPPED = ("plt", "axes", "axs", "ax")


def check_drawn(reader: Reader, found: BatchFound, batch: int) -> None:
    """Refuse where a function that the cell calls would read past what it makes with a smaller batch size.

    Raises
    ------
    RefusedError
        If it would stop there, as it did not before.
    """
    for name in sorted({c.func.id for c in reader.cell.calls if isinstance(c.func, ast.Name)}) if found.names else ():
        function = reader.notebook.function(name)
        if function is None or not isinstance(function.node, ast.FunctionDef):
            continue
        made = _made(function.node, found.names)
        for node in (n for n in ast.walk(function.node) if isinstance(n, ast.Subscript)):
            times = made.get(node.value.id) if isinstance(node.value, ast.Name) else None
            needed = None if times is None else _needed(function.node, node)
            if times and needed and batch * times < needed <= found.value * times:
                raise RefusedError(
                    f"`{name}` reads {needed} of the {found.value * times} samples that it makes by the batch size: "
                    f"with {batch * times} it would fail"
                )


def _made(function: ast.FunctionDef, names: frozenset[str]) -> dict[str, int]:
    """Map what the function makes in as many samples as the batch, or so many times as many, to these times."""
    found = dict.fromkeys(names, 1)
    for node in (n for n in ast.walk(function) if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)):
        target = node.targets[0]
        read = [n for n in ast.walk(node.value) if isinstance(n, ast.Name) and n.id in found]
        if isinstance(target, ast.Name) and len(read) == 1:
            found[target.id] = found[read[0].id] * _factor(node.value, read[0])
    return {name: times for name, times in found.items() if name not in names and name not in _SKIPPED}


def _factor(value: ast.expr, name: ast.Name) -> int:
    for node in ast.walk(value):
        if isinstance(node, ast.BinOp) and name in (node.left, node.right):
            other = node.right if node.left is name else node.left
            plain = isinstance(node.op, ast.Mult) and isinstance(other, ast.Constant) and type(other.value) is int
            return other.value if plain else 0  # type: ignore[attr-defined]
    return 1


def _needed(function: ast.FunctionDef, node: ast.Subscript) -> int | None:
    """Give how many samples there must be for an index: a number, a turn of a loop, or a number drawn by chance."""
    index = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
    if isinstance(index, ast.Constant):
        return index.value + 1 if type(index.value) is int else None
    given = (
        [index] if isinstance(index, ast.Call) else list(_given(function, index)) if isinstance(index, ast.Name) else []
    )
    ends = [_end(one) for one in given]
    return ends[0] if len(ends) == 1 else None


def _given(function: ast.FunctionDef, name: ast.Name) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name.id for t in node.targets):
            yield node.value
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == name.id:
            yield node.iter


def _end(call: ast.expr) -> int | None:
    """Give the end of ``range(16)`` or ``randint(0, 63)``, in which Python's own ``randint`` counts the 63 too."""
    if not isinstance(call, ast.Call) or called_name(call) not in ("range", "randint", "randrange") or not call.args:
        return None
    last = call.args[min(1, len(call.args) - 1)]
    return last.value if isinstance(last, ast.Constant) and type(last.value) is int else None
