"""Numbers of batches that a cell takes from its data: as these shrink, they must grow, or be said."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from tf_mem_magic.notebook.batch.datasets import COUNTS, chain_of, trace
from tf_mem_magic.notebook.batch.means.through import BARS, hands_on, held_by
from tf_mem_magic.notebook.batch.steps import Steps, argument, divisors, find_steps, first_argument, follows
from tf_mem_magic.notebook.follow.entries import double_star, zipped
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.other_uses import is_drawn
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.uses import KERAS, called_name

Loop = ast.For | ast.AsyncFor | ast.While
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def with_loop_counts(reader: Reader, loop: Loop, setting: Setting) -> Setting | Unknown:
    """Let a loop over data take as many samples as before, where it takes a number of batches that does not follow.

    By ``islice``, by a ``range`` beside the data, or by a ``break`` after so many.
    """
    counted = [] if isinstance(loop, ast.While) else _counted(reader, loop.iter)
    if isinstance(counted, Unknown):
        return counted
    if not isinstance(loop, ast.While) and not _is_split_again(reader, loop.iter, setting):
        counted += _taken(loop.iter)
    limits = list(_limits(reader, loop))
    for expr in (*counted, *limits, *_again(reader, loop, limits)):
        if follows(reader, expr, setting):
            continue
        setting = replace(setting, slots=tuple(dict.fromkeys((*setting.slots, *_grown(reader, expr, setting)))))
    added = tuple(reader.slot(one, setting.value) for one in _sizes_added(loop, setting.value))
    setting = replace(setting, slots=tuple(dict.fromkeys((*setting.slots, *added))))
    if isinstance(loop, ast.While) and _counts_steps(reader, loop, setting):
        return with_steps(reader, setting, loop)
    return setting


def _sizes_added(loop: Loop, size: int) -> Iterator[ast.expr]:
    """Yield where each turn adds the batch size to what counts samples, as a number: ``seen += 64``."""
    for node in _own(loop.body):
        added: list[ast.expr] = []
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            added = [node.value]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add):
            sides = [node.value.left, node.value.right]
            same = [ast.dump(side).replace("Load()", "") for side in sides]
            own = ast.dump(node.targets[0]).replace("Store()", "")
            added = [side for side, text in zip(sides, same) if text != own] if own in same else []
        yield from (one for one in added if isinstance(one, ast.Constant) and one.value == size and size > 1)


def taken_by(reader: Reader, loop: Loop) -> list[ast.expr]:
    """List the numbers of batches by which a loop's own text says how many it takes."""
    counted = [] if isinstance(loop, ast.While) else _counted(reader, loop.iter)
    taken = [] if isinstance(loop, ast.While) else _taken(loop.iter)
    return [*([] if isinstance(counted, Unknown) else counted), *taken, *_limits(reader, loop)]


def with_steps(reader: Reader, setting: Setting, loop: Loop) -> Setting:
    """Say that a loop over a number of steps goes on taking so many."""
    note = f"The loop in {reader.cell.told(loop)} takes as many steps as before, each with fewer samples."
    return replace(setting, notes=(*setting.notes, note), same_steps=True)


def data_beside_a_range(source: ast.Call) -> list[ast.expr]:
    """List what ``zip(...)``, also that of datasets, goes through beside numbers."""
    return [one for one in zipped(source) if not _is_numbers(one)]


def _is_numbers(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Call) and called_name(expr) in ("range", "count", "trange")


def _counted(reader: Reader, source: ast.expr) -> list[ast.expr] | Unknown:
    """List the numbers of batches that a loop takes from its data, as its ``for`` tells."""
    found: list[ast.expr] = []
    queue = [source]
    while queue:
        one = queue.pop()
        held = held_by(reader.scopes, one)
        if held is not None:
            queue.append(held)
        if not isinstance(one, ast.Call):
            continue
        name = called_name(one)
        if name in ("islice", "zip") and any(isinstance(given, ast.Starred) for given in one.args):
            return Unknown(f"the arguments of `{name}` in {reader.cell.told(one)} cannot be followed")
        if name == "islice":
            if len(one.args) != 2:
                return Unknown(f"`islice` in {reader.cell.told(one)} counts batches")
            found += [] if _is_none(one.args[1]) else [one.args[1]]
            queue.append(one.args[0])
        elif name == "zip":
            ranges = [given for given in zipped(one) if isinstance(given, ast.Call) and called_name(given) == "range"]
            if any(len(given.args) != 1 for given in ranges):
                return Unknown(f"`range` in {reader.cell.told(one)} counts batches")
            found += [given.args[0] for given in ranges]
            queue += data_beside_a_range(one)
        elif hands_on(reader, one):
            queue.append(one.args[0])
    return found


def _is_split_again(reader: Reader, source: ast.expr, setting: Setting) -> bool:
    """Tell whether the edit splits the batches after what counts them, in the loop's own data."""
    first, last = reader.cell.start(source), reader.cell.end(source)
    return any(slot.before == ".rebatch(" and first <= slot.start <= last for slot in setting.slots)


def _taken(source: ast.expr) -> list[ast.expr]:
    """List the numbers of batches that methods of the loop's data take or leave out."""
    taking = (n for n in walk(source) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute))
    return [call.args[0] for call in taking if called_name(call) in ("take", "skip") and len(call.args) == 1]


def _is_none(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Constant) and expr.value is None


def _limits(reader: Reader, loop: Loop) -> Iterator[ast.expr]:
    """Yield what a counter of the loop's turns is compared with where the loop then ends."""
    counters = counters_of(reader.scopes, loop)
    for node in _own(loop.body) if counters else ():
        if isinstance(node, ast.If) and any(isinstance(inner, ast.Break) for inner in _own(node.body)):
            yield from _compared(node.test, counters)


def _again(reader: Reader, loop: Loop, limits: list[ast.expr]) -> Iterator[ast.expr]:
    """Yield the limits of a loop where the same counter is compared with them outside of it, to end another loop."""
    written = {reader.written(limit) for limit in limits}
    inside = set(walk(loop)) if written else set()
    counters = counters_of(reader.scopes, loop) if written else set()
    for node in reader.nodes if written else ():
        if isinstance(node, ast.Compare) and node not in inside:
            yield from (one for one in _compared(node, counters) if reader.written(one) in written)


def counters_of(scopes: Scopes, loop: Loop) -> set[str]:
    """Name what counts the turns of a loop: by ``enumerate``, beside a ``range``, or by adding 1 in each turn."""
    found: set[str] = set()
    if not isinstance(loop, ast.While) and isinstance(loop.target, ast.Tuple):
        call: ast.expr = held_by(scopes, loop.iter) or loop.iter
        while isinstance(call, ast.Call) and called_name(call) in BARS and call.args:
            call = held_by(scopes, call.args[0]) or call.args[0]
        first = loop.target.elts[0] if loop.target.elts else None
        counting = isinstance(call, ast.Call) and (
            called_name(call) == "enumerate"
            or (called_name(call) == "zip" and bool(call.args) and _is_numbers(call.args[0]))
        )
        found |= {first.id} if counting and isinstance(first, ast.Name) else set()
    found |= {name for statement in loop.body for name in [_counted_on(statement)] if name}
    stored = [n.id for s in loop.body for n in walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return {name for name in found if stored.count(name) <= 1}


def _counted_on(statement: ast.stmt) -> str:
    """Name what a statement adds 1 to: ``n += 1``, ``n = n + 1``, ``n.assign_add(1)``; empty where it does not."""
    if isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add) and _is_one(statement.value):
        return statement.target.id if isinstance(statement.target, ast.Name) else ""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.value, ast.BinOp):
        target, value = statement.targets[0], statement.value
        sides = [value.left, value.right]
        same = [n for n in sides if isinstance(n, ast.Name) and isinstance(target, ast.Name) and n.id == target.id]
        return same[0].id if same and isinstance(value.op, ast.Add) and any(map(_is_one, sides)) else ""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and called_name(call) == "assign_add" and isinstance(call.func, ast.Attribute):
        held = call.func.value
        return held.id if isinstance(held, ast.Name) and len(call.args) == 1 and _is_one(call.args[0]) else ""
    return ""


def _is_one(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Constant) and expr.value == 1


def _compared(test: ast.expr, counters: set[str]) -> Iterator[ast.expr]:
    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and len(node.comparators) == 1:
            sides = (node.left, node.comparators[0])
            counting = [any(isinstance(n, ast.Name) and n.id in counters for n in ast.walk(side)) for side in sides]
            if counting[0] != counting[1]:
                yield sides[int(counting[0])]


def _own(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield what stands in a loop's body, but not in a loop or function inside it: a ``break`` there is its own."""
    queue: list[ast.AST] = list(body)
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, (*_LOOPS, *SCOPES)):
            queue += ast.iter_child_nodes(node)


def _grown(reader: Reader, expr: ast.expr, setting: Setting) -> tuple[Slot, ...]:
    """Give what makes a number of batches grow as they shrink: the size that divides the samples, or a factor."""
    sizes = [one for one in divisors(reader, expr) if evaluate(reader, one) == setting.value]
    if sizes:
        return tuple(reader.slot(one, setting.value) for one in sizes)
    start, end = reader.cell.start(expr), reader.cell.end(expr)
    return (Slot(setting.value, start, end, counts=reader.cell.text(expr)),)


def _counts_steps(reader: Reader, loop: ast.While, setting: Setting) -> bool:
    """Tell whether a ``while`` goes on for a number of turns that does not follow the batch size."""
    limits = list(_compared(loop.test, counters_of(reader.scopes, loop)))
    return any(not follows(reader, limit, setting) for limit in limits)


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
    below: ast.expr = call
    for inner in chain_of(reader, call):
        if called_name(inner) in COUNTS:
            counting.append(inner)
            below = inner.func.value  # type: ignore[attr-defined]
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
            return Unknown(f"`.{called_name(one)}(...)` in {reader.cell.told(one)} counts batches")
        start, end = reader.cell.start(given[0]), reader.cell.end(given[0])
        found.append(Slot(slot.value, start, end, counts=reader.cell.text(given[0])))
    return tuple(found)


def counts_beside(reader: Reader, setting: Setting) -> tuple[Slot, ...]:
    """Let ``take`` and ``skip`` of other data of the cell, whose batches follow the same names, count as many samples.

    What only draws, or takes one batch to look at, is left alone.
    """
    placed = {(slot.start, slot.end) for slot in setting.slots}
    found: list[Slot] = []
    for call in reader.calls_of("take", "skip") if setting.names else ():
        given = _given(call)
        if not isinstance(call.func, ast.Attribute) or len(given) != 1 or isinstance(given[0], ast.Starred):
            continue
        start, end = reader.cell.start(given[0]), reader.cell.end(given[0])
        few = isinstance(given[0], ast.Constant) and given[0].value in (0, 1)
        if few or (start, end) in placed or is_drawn(reader, given[0]) or follows(reader, given[0], setting):
            continue
        if _is_of(reader, call.func.value, setting):
            found.append(Slot(setting.value, start, end, counts=reader.cell.text(given[0])))
    return tuple(found)


def steps_beside(reader: Reader, setting: Setting, call: ast.Call | None) -> tuple[Steps, ...]:
    """Find the numbers of steps of the cell's other calls of Keras whose data follow the same names."""
    found: list[Steps] = []
    for other in reader.calls_of(*KERAS) if setting.names else ():
        extra = double_star(reader, other)
        if other is call or isinstance(extra, Unknown):
            continue
        data, validated = first_argument(other, extra), argument(other, extra, "validation_data", None)
        of_it = data is not None and _is_of(reader, data, setting)
        own = {"validation_steps": validated is not None and _is_of(reader, validated, setting)}
        steps = find_steps(reader, other, extra, setting) if of_it or any(own.values()) else ()
        found += [one for one in steps if own.get(one.name, of_it) and (one.value is not None or one.stays)]
    return tuple(found)


def _is_of(reader: Reader, data: ast.expr, setting: Setting) -> bool:
    """Tell whether data come in batches of a size that the edit sets by a name."""
    traced = trace(reader, data)
    return isinstance(traced, Setting) and not traced.per_replica and bool(traced.names & setting.names)


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(k.value for k in call.keywords if k.arg in ("count", "num_shards"))]
