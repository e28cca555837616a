"""Counts of batches: ``ds.take(n)`` goes on covering the samples that it covered; those that nobody knows any more."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace

from tf_mem_magic.notebook.batch.datasets import COUNTS, KEEP, trace
from tf_mem_magic.notebook.batch.steps import Steps, argument, follows
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.uses import called_name


def with_counts(
    reader: Reader, slots: tuple[Slot, ...], names: frozenset[str], others: tuple[Slot, ...] = ()
) -> tuple[Slot, ...] | Unknown:
    """Let ``ds.take(n)`` cover as many samples as before, where the edit changes ``names`` and ``others`` too.

    The batches are split after what counts them, which is right while neither these batches nor the count follow the
    names that the edit sets. Else they are split before it, or made smaller there already, and a count that does not
    follow is multiplied.
    """
    setting = Setting(0, (*slots, *others), names)
    found: list[Slot] = []
    for slot in slots:
        call = _counting(reader, slot)
        one = (slot,) if call is None else _in_chain(reader, slot, call, setting)
        if isinstance(one, Unknown):
            return one
        found += one
    return tuple(dict.fromkeys(found))


def _counting(reader: Reader, slot: Slot) -> ast.Call | None:
    """Find the call of ``take`` or the like after which ``slot`` splits the batches again."""
    if slot.before != ".rebatch(" or slot.start != slot.end:
        return None
    ends = (n for n in reader.nodes if isinstance(n, ast.Call) and reader.cell.end(n) == slot.start)
    return next((n for n in ends if called_name(n) in COUNTS and isinstance(n.func, ast.Attribute)), None)


def _in_chain(reader: Reader, slot: Slot, call: ast.Call, setting: Setting) -> tuple[Slot, ...] | Unknown:
    counting: list[ast.Call] = []
    inner: ast.expr = call
    below: ast.expr = call
    while isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr in KEEP:
        if inner.func.attr in COUNTS:
            counting.append(inner)
            below = inner.func.value
        inner = inner.func.value
    traced = trace(reader, below)
    smaller = isinstance(traced, Setting) and bool(
        traced.names & setting.names or set(traced.slots) & (set(setting.slots) - {slot})
    )
    follow = {one: any(follows(reader, given, setting) for given in _given(one)) for one in counting}
    if not smaller and not any(follow.values()):
        return (slot,)
    at = reader.cell.end(below)
    found = [] if smaller else [replace(slot, start=at, end=at)]
    for one in counting:
        if follow[one]:
            continue
        given = _given(one)
        if called_name(one) == "shard" or len(given) != 1 or isinstance(given[0], ast.Starred):
            return Unknown(f"`.{called_name(one)}(...)` in line {one.lineno} counts batches")
        start, end = reader.cell.start(given[0]), reader.cell.end(given[0])
        found.append(Slot(slot.value, start, end, counts=reader.cell.text(given[0])))
    return tuple(found)


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(k.value for k in call.keywords if k.arg in ("count", "num_shards"))]


def unknown_counts(
    slots: Iterable[Slot], method: str, call: ast.Call | None, extra: ast.expr | None, steps: Iterable[Steps]
) -> tuple[str, ...]:
    """Say of the data that ``method`` computes on what follows where TensorFlow no longer knows how many batches it has.

    The number of steps is known where the call gives one.
    """
    given = call is not None and _gives(call, extra, "steps_per_epoch" if method == "fit" else "steps", steps)
    if method != "fit":
        effect = "" if given else "its progress shows no total, and Keras may warn that the input ran out"
    elif given:
        effect = "where the steps of all epochs go past its end, one epoch ends early and Keras warns"
    else:
        effect = "the first epoch shows no total, and Keras may warn that the input ran out"
    return _notes(slots, effect)


def unknown_in_validation(
    slots: Iterable[Slot], call: ast.Call, extra: ast.expr | None, steps: Iterable[Steps]
) -> tuple[str, ...]:
    """Say it of the data that ``fit`` validates on: each validation begins anew, and shows no total anyway."""
    given = _gives(call, extra, "validation_steps", steps)
    return _notes(slots, "" if given else "Keras may warn that the input of the validation ran out")


def _gives(call: ast.Call, extra: ast.expr | None, name: str, steps: Iterable[Steps]) -> bool:
    expr = argument(call, extra, name, None)
    none = expr is None or (isinstance(expr, ast.Constant) and expr.value is None)
    return not none and not any(one.name == name and one.whole for one in steps)


def _notes(slots: Iterable[Slot], effect: str) -> tuple[str, ...]:
    names = dict.fromkeys(slot.dataset for slot in slots if slot.uncounted) if effect else ()
    return tuple(f"TensorFlow no longer knows how many batches `{name}` has: {effect}." for name in names)
