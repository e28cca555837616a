"""Means over the batches of a loop: what divides their sum grows with the number of batches, or it is said."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tf_mem_magic.notebook.batch.counts import Loop, data_beside_a_range, taken_by
from tf_mem_magic.notebook.batch.datasets import COUNTS, chain_of, trace
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.means.growth import growth
from tf_mem_magic.notebook.batch.means.lengths import counted_elsewhere, is_a_size, totals_shown
from tf_mem_magic.notebook.batch.means.powers import Data, is_by_chance
from tf_mem_magic.notebook.batch.means.summands import power_of
from tf_mem_magic.notebook.batch.means.sums import Read, Summed, reads_of, summed_in
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.batch.steps import follows, surely_stays
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.uses import called_name

_LOOPS = (ast.For, ast.AsyncFor)


@dataclass(frozen=True, slots=True)
class Means:
    """What the means of a loop need.

    Attributes
    ----------
    slots : tuple of Slot
        The numbers of batches that must grow.
    unclear : tuple of ast.AST
        Where a sum is read that would be another after the edit, or may be.
    odd : tuple of ast.AST
        Where a list of the loop's batches is used in another way than as a whole.
    unread : bool
        A sum that grows is read nowhere in the cell: a later one may.
    counting : tuple of ast.expr
        Where else the cell reads how many batches there were, and goes on with that.
    sized : tuple of ast.expr
        Where it made something as long as that; among ``slots``.
    dividing : frozenset of ast.AST
        What divides a sum, whether it grows or not.
    """

    slots: tuple[Slot, ...] = ()
    unclear: tuple[ast.expr | ast.stmt, ...] = ()
    odd: tuple[ast.expr | ast.stmt, ...] = ()
    unread: bool = False
    counting: tuple[ast.expr, ...] = ()
    sized: tuple[ast.expr, ...] = ()
    dividing: frozenset[ast.AST] = frozenset()


def means_of(reader: Reader, loop: Loop, own: Setting, slots_too: tuple[Slot, ...], names_too: frozenset[str]) -> Means:
    """Find what the means over a loop need whose data get smaller batches by ``own``, beside what else is edited."""
    sums = summed_in(reader, loop)
    lists = frozenset(one.key for one in sums if one.is_list)
    both = Setting(own.value, tuple(dict.fromkeys((*own.slots, *slots_too))), own.names | names_too)
    taken = frozenset(reader.written(one) for one in taken_by(reader, loop) if not is_by_chance(one))
    data = Data(reader, loop, both, own.datasets, lists, taken, _count(reader, loop, own))
    slots: list[Slot] = []
    unclear: list[ast.expr | ast.stmt] = []
    odd: list[ast.expr | ast.stmt] = []
    unread = False
    handled: set[ast.AST] = set()
    for one in sums:
        each = _divided_in_turns(data, one)
        if each is not None:
            slots += each
            handled |= {n for part in one.parts for n in walk(part)}
            continue
        reads = reads_of(reader, loop, one)
        odd += [part for part in one.parts if _is_bent(part)]
        unread = unread or not (reads or one.is_list or _power(data, one) == 0)
        handled |= {n for read in reads if read.by is not None for n in walk(read.by)}
        for read in reads:
            found = _kept(data, one, read)
            if found is None:
                (odd if one.is_list and read.by is None else unclear).append(read.node)
            else:
                slots += found
    counting = list(counted_elsewhere(data, handled))
    lengths = [*totals_shown(data), *(node for node in counting if is_a_size(data, node))]
    sized = {node: _slot(data, node) for node in lengths}
    slots += [slot for slot in sized.values() if slot is not None]
    counting = [node for node in counting if sized.get(node) is None]
    return Means(
        tuple(dict.fromkeys(slots)),
        tuple(dict.fromkeys(unclear)),
        tuple(dict.fromkeys(odd)),
        unread,
        tuple(counting),
        tuple(node for node, slot in sized.items() if slot is not None),
        frozenset(handled),
    )


def _count(reader: Reader, loop: Loop, setting: Setting) -> int | None:
    """Give how many batches a loop takes of the data that the setting makes smaller; None where that is not known."""
    if not isinstance(loop, ast.While) and any(
        called_name(one) in COUNTS for one in chain_of(reader, gone_through(reader, loop.iter))
    ):
        return None
    known = [reader.facts.dataset(name) for name in setting.datasets]
    return known[0].cardinality if len(known) == 1 and known[0] is not None else None


def _divided_in_turns(data: Data, summed: Summed) -> list[Slot] | None:
    """Give the slots where each turn adds a share of a mean, ``total += loss / len(ds)``; None: it adds something else.

    An empty list: it is a share already, and grows as it should.
    """
    found: list[Slot] = []
    for part in summed.parts:
        by = _by(part)
        grows = None if by is None else growth(data, by)
        if by is None or grows is None or grows.right != 1 or not isinstance(part, (ast.BinOp, ast.Call)):
            return None
        assert isinstance(part, (ast.BinOp, ast.Call))
        left = part.left if isinstance(part, ast.BinOp) else part.args[0]
        power = power_of(data, left)
        needs = (1 if power is None else power) - grows.real
        if needs == 0:
            continue
        slot = _slot(data, by) if needs == 1 else None
        if slot is None:
            return None
        found.append(slot)
    return found


def _by(part: ast.expr) -> ast.expr | None:
    if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Div):
        return part.right
    divides = isinstance(part, ast.Call) and called_name(part) in ("divide", "truediv") and len(part.args) == 2
    return part.args[1] if divides and isinstance(part, ast.Call) else None


def _kept(data: Data, summed: Summed, read: Read) -> list[Slot] | None:
    """Give the slots by which what is read stays what it was; None where that is not sure."""
    power = _power(data, summed)
    if read.by is None:
        return [] if power == 0 and not summed.is_list else None
    grows = growth(data, read.by)
    if grows is None:
        still = power == 0 and surely_stays(data.reader, read.by, data.setting.names)
        return [] if still else None
    # Whoever divides by a number of batches has added up means, and by one of samples, sums.
    wanted = power if power is not None else grows.right if grows.right in (0, 1) else None
    needs = None if wanted is None else wanted - grows.real
    if needs == 0:
        return []
    slot = _slot(data, read.by) if needs == 1 else None
    return None if slot is None else [slot]


_BENDS = ("sqrt", "exp", "log", "pow")


def _is_bent(part: ast.expr) -> bool:
    """Tell whether a turn adds the root, or the like, of a mean over its batch: of smaller batches it is another."""
    bent = (n for n in ast.walk(part) if isinstance(n, ast.Call) and called_name(n) in _BENDS)
    inside = (n for call in bent for n in ast.walk(call) if isinstance(n, ast.Call))
    return any(called_name(n) in ("reduce_mean", "mean") and len(n.args) <= 1 and not n.keywords for n in inside)


def _power(data: Data, summed: Summed) -> int | None:
    powers = {power_of(data, part) for part in summed.parts}
    return powers.pop() if len(powers) == 1 else None


def _slot(data: Data, by: ast.expr) -> Slot | None:
    reader = data.reader
    if not _is_there(reader, by):
        return None
    start, end = reader.cell.start(by), reader.cell.end(by)
    if any(slot.start < end and start < slot.end for slot in data.setting.slots):
        return None
    around = (
        ("(", ")")
        if isinstance(reader.scopes.parents[by], (ast.BinOp, ast.UnaryOp)) and not isinstance(by, ast.Constant)
        else ("", "")
    )
    return Slot(data.setting.value, start, end, *around, counts=reader.cell.text(by))


def _is_there(reader: Reader, node: ast.expr) -> bool:
    """Tell whether a place in an f-string is surely known: before Python 3.12 it may be that of a like text before."""
    inside = next((n for n in reader.scopes.up(node) if isinstance(n, ast.JoinedStr)), None)
    quotient = reader.scopes.parents[node]
    text = quotient if isinstance(quotient, ast.expr) else node
    return inside is None or reader.cell.text(inside).count(reader.cell.text(text)) == 1


def with_means(reader: Reader, found: BatchFound) -> BatchFound:
    """Let the means over the batches of all loops stay means, each by its own size, and say what may not."""
    told: dict[bool, list[str]] = {False: [], True: []}
    kept: dict[bool, list[Slot]] = {False: [], True: []}
    edited = Setting(found.value, (*found.slots, *found.validation), found.names)
    of_loops: list[tuple[bool, Means]] = []
    for loop in (node for node in reader.nodes if isinstance(node, _LOOPS)):
        for validates, slots in ((False, found.slots), (True, found.validation)):
            setting = _over(reader, loop, slots)
            if setting is not None:
                of_loops.append((validates, means_of(reader, loop, setting, edited.slots, edited.names)))
                break
        else:
            told[False] += _told_of_others(reader, loop, edited)
    dividing = frozenset().union(*(means.dividing for _, means in of_loops))
    for validates, means in of_loops:
        kept[validates] += means.slots
        others = tuple(node for node in means.counting if node not in dividing)
        told[validates] += _told(reader, replace(means, counting=others))
    return replace(
        found,
        slots=tuple(dict.fromkeys((*found.slots, *kept[False]))),
        validation=tuple(dict.fromkeys((*found.validation, *kept[True]))),
        notes=tuple(dict.fromkeys((*found.notes, *told[False]))),
        validation_notes=tuple(dict.fromkeys((*found.validation_notes, *told[True]))),
    )


def _told_of_others(reader: Reader, loop: ast.For | ast.AsyncFor, edited: Setting) -> Iterator[str]:
    """Say where a sum over batches that stay is divided by what follows the smaller ones."""
    if not isinstance(trace(reader, gone_through(reader, loop.iter)), Setting):
        return
    reads = [read for one in summed_in(reader, loop) for read in reads_of(reader, loop, one)]
    places = [read.node for read in reads if read.by is not None and follows(reader, read.by, edited)]
    if places:
        where = reader.cell.told(*places)
        yield f"{where[:1].upper()}{where[1:]} counts smaller batches than its loop gets: look at what it tells."


def _told(reader: Reader, means: Means) -> Iterator[str]:
    tell, lengths = reader.cell.told, {reader.cell.start(node) for node in means.sized}
    means_at = [slot for slot in means.slots if slot.start not in lengths]
    if means_at:
        places = {reader.cell.source.count("\n", 0, slot.start) + 1 for slot in means_at}
        yield f"What divides a sum over batches in {tell(*places)} grows with their number: the mean stays."
    if means.sized:
        yield f"What is as long as there are batches in {tell(*means.sized)} grows with their number."
    if means.unclear:
        where = tell(*means.unclear)
        yield f"{where[:1].upper()}{where[1:]} may count batches, of which there are more now: look at what it tells."
    others = [one for one in means.counting if one not in _within(means.unclear)]
    if others:
        yield f"The number of batches in {tell(*others)} stays as it was, and there are more now."


def _within(nodes: tuple[ast.expr | ast.stmt, ...]) -> set[ast.AST]:
    return {inner for node in nodes for inner in walk(node)}


def _over(reader: Reader, loop: ast.For | ast.AsyncFor, slots: tuple[Slot, ...]) -> Setting | None:
    """Give how the data of a loop are batched that ``slots`` make smaller and all of which it takes; else None."""
    source = gone_through(reader, loop.iter)
    zipped = isinstance(source, ast.Call) and called_name(source) == "zip"
    each = data_beside_a_range(source) if zipped and isinstance(source, ast.Call) else [source]
    for traced in (trace(reader, one) for one in each):
        if not isinstance(traced, Setting) or traced.per_replica or traced.same_steps:
            continue
        here = [s for s in slots if s.before == ".rebatch(" and s.start == s.end == reader.cell.end(source)]
        if here or set(traced.slots) & set(slots):
            return replace(traced, slots=tuple(here)) if here else traced
    return None


def looks_at_batches(loop: Loop) -> bool:
    """Tell whether a loop only looks at some of its data: it ends early, or takes one batch, or none."""
    leaves = any(isinstance(n, (ast.Break, ast.Return)) for one in loop.body for n in walk(one))
    taken = [] if isinstance(loop, ast.While) else [n for n in walk(loop.iter) if isinstance(n, ast.Call)]
    few = any(
        called_name(call) == "take" and any(isinstance(a, ast.Constant) and a.value in (0, 1) for a in call.args)
        for call in taken
    )
    return leaves or few
