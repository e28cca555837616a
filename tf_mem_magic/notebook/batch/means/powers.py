"""Numbers as powers of how many times smaller batches become, and what is computed of them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tf_mem_magic.notebook.batch.counts import Loop
from tf_mem_magic.notebook.follow.reader import Reader, Setting
from tf_mem_magic.notebook.uses import called_name, is_batch_name

THROUGH = frozenset("int float round ceil floor abs max min cast constant numpy item ceil_div".split())
"""Calls that give about the number that they are given."""

OF_SAMPLES = frozenset({"n", "samples", "num_examples", "num_samples", "shape"})
"""What data tell of their samples, whatever their batches."""

_BY_CHANCE = 10
"""A number below this may be that of the batches by chance."""


def is_by_chance(expr: ast.expr) -> bool:
    """Tell whether a number is written out that is so small that it may stand elsewhere by chance."""
    return isinstance(expr, ast.Constant) and not (type(expr.value) is int and expr.value >= _BY_CHANCE)


@dataclass(frozen=True, slots=True)
class Growth:
    """How a number changes where batches become so many times smaller, as a power of that.

    Attributes
    ----------
    right : int
        How it would change if all of the notebook ran with the smaller batches: 1 for a number of batches, 0 for one
        of samples, -1 for a batch size.
    real : int
        How it does change by the edit: 0 where it stays.
    """

    right: int
    real: int


SAMPLES = Growth(0, 0)


@dataclass(frozen=True)
class Data:
    """The data of one loop that get smaller batches.

    Attributes
    ----------
    reader : Reader
        The cell.
    loop : Loop
        The loop.
    setting : Setting
        Their batch size, with all places and names that the edit sets.
    own : frozenset of str
        The dataset of an earlier cell that they come from, where they do.
    lists : frozenset of str
        What gets an entry in each turn of the loop, as it is written.
    taken : frozenset of str
        How many batches the loop takes, as it is written there.
    counts : int or None
        The number of their batches now; None where it is not known.
    """

    reader: Reader
    loop: Loop
    setting: Setting
    own: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    counts: int | None = None

    def is_count(self, value: object) -> bool:
        """Tell whether a number is that of their batches, and not by chance."""
        return type(value) in (int, float) and value == self.counts and value >= _BY_CHANCE  # type: ignore[operator]


def computed(data: Data, expr: ast.expr, of: Callable[[ast.expr], Growth | None]) -> Growth | None:
    """Tell it of what is computed of other numbers, of which ``of`` tells it."""
    if isinstance(expr, ast.Constant):
        return of_number(data, expr.value)
    if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, (ast.USub, ast.UAdd)):
        return of(expr.operand)
    if isinstance(expr, ast.Call) and called_name(expr) in THROUGH:
        owner = expr.func.value if isinstance(expr.func, ast.Attribute) else None
        given = [owner] if called_name(expr) in ("numpy", "item") and owner is not None else expr.args[:1]
        if called_name(expr) in ("max", "min"):
            given = [one for one in expr.args if not isinstance(one, ast.Constant)]
        return same([of(one) for one in given])
    if isinstance(expr, ast.IfExp):
        return same([of(expr.body), of(expr.orelse)])
    if not isinstance(expr, ast.BinOp):
        return None
    return _of_operation(data, expr, of)


def _of_operation(data: Data, expr: ast.BinOp, of: Callable[[ast.expr], Growth | None]) -> Growth | None:
    plain = [isinstance(side, ast.Constant) and not of_number(data, side.value) for side in (expr.left, expr.right)]
    if isinstance(expr.op, (ast.Add, ast.Sub)):
        sides = [of(side) for side in (expr.left, expr.right) if not _is_small(side)]
        return same(sides)
    if isinstance(expr.op, ast.Mult):
        left, right = (SAMPLES if is_plain else of(side) for side, is_plain in zip((expr.left, expr.right), plain))
        return None if left is None or right is None else Growth(left.right + right.right, left.real + right.real)
    if isinstance(expr.op, (ast.Div, ast.FloorDiv)):
        left, right = of(expr.left), of(expr.right)
        return None if left is None or right is None else Growth(left.right - right.right, left.real - right.real)
    return None


def _is_small(expr: ast.expr) -> bool:
    """Tell whether a number is written out that is added to another: ``i + 1``, ``(n + 63) // 64``."""
    if isinstance(expr, ast.BinOp):
        return _is_small(expr.left) and _is_small(expr.right)
    return isinstance(expr, ast.Constant) or (isinstance(expr, ast.Name) and is_batch_name(expr.id))


def of_number(data: Data, value: object) -> Growth | None:
    """Tell it of a number that is written out: the size itself, or as many as there are batches; else it is unknown."""
    if type(value) not in (int, float):
        return None
    if value == data.setting.value:
        return Growth(-1, 0)
    return Growth(1, 0) if data.is_count(value) else None


def same(found: Iterable[Growth | None]) -> Growth | None:
    """Give the one growth that all have; None where they differ, or there are none."""
    known = set(found)
    return known.pop() if len(known) == 1 else None
