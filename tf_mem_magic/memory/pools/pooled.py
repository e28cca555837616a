"""A step run through an allocator's pool: whether it fits in the pieces that there are, and the peak with rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tf_mem_magic.core.step import Processor, Step
from tf_mem_magic.memory.executor import WAYS
from tf_mem_magic.memory.forecast import RUNNING
from tf_mem_magic.memory.pools.pool import Pool
from tf_mem_magic.memory.pools.requests import (
    BEGIN,
    COPY,
    DONE,
    END,
    GIVE,
    KEEP,
    LOOK,
    PASS,
    TAKE,
    TAKE_MANY,
    Requests,
    executed,
    in_order,
    own_pieces,
)

_ENDLESS = 1 << 50
"""Bytes of a device that never runs out."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """How a step went through a pool.

    ``peak``: the most bytes in use, chunks counted whole. ``failed``: the request that was not met, 0: all were; ``at``
    is the operation that made it. ``at_once``: how many kernels with temporaries ran at once where as many could.
    """

    peak: int
    failed: int = 0
    at: str = ""
    at_once: int = 1


def through_pool(
    step: Step, order: str, pool: Pool, held: Sequence[int] = (), processor: Processor | None = None, at_once: int = 1
) -> Pooled:
    """Run a step through a pool, up to the first request that is not met.

    Parameters
    ----------
    step : Step
        The step.
    order : str
        The order of execution (:data:`~tf_mem_magic.memory.walk.ORDERS`).
    pool : Pool
        The pool; it is changed.
    held : sequence of int
        Bytes of what is in it already, chunk by chunk.
    processor : Processor, optional
        As in :func:`~tf_mem_magic.memory.forecast.peak_of`.
    at_once : int
        How many kernels with temporaries run at once, where as many could: one or two.
    """
    requests = in_order(step, order, processor)
    chunks = _Chunks(pool, requests.counts)
    chunks.take_all(held)
    for what, one, size in requests.of:
        if what == DONE:
            if chunks.failed:
                return Pooled(pool.peak, chunks.failed, step.nodes[one].name, at_once)
        elif what == PASS:
            for chunk in chunks.take_all(requests.own[one][:at_once]):
                pool.release(chunk)
        elif what == GIVE:
            chunks.give(one)
        else:
            chunks.take(one, size)
    return Pooled(pool.peak, chunks.failed, at_once=at_once)


class _Chunks:
    """The chunks of a step's buffers. ``failed``: the first request that was not met; 0: none."""

    def __init__(self, pool: Pool, counts: Mapping[int, int]) -> None:
        self.pool, self.counts = pool, counts
        self.of: dict[int, list[int]] = {}
        self.failed = 0

    def take(self, one: int, size: int) -> None:
        """Take the chunks of a buffer."""
        self.of[one] = self.take_all([size] * self.counts.get(one, 1))

    def give(self, one: int) -> None:
        """Give those of a buffer back."""
        for chunk in self.of.pop(one, ()):
            self.pool.release(chunk)

    def take_all(self, sizes: Iterable[int]) -> list[int]:
        """Take chunks of these sizes, as many as there is room for."""
        taken = []
        for size in sizes:
            chunk = self.pool.allocate(size) if size else None
            if chunk is not None:
                taken.append(chunk)
            elif size:
                self.failed = self.failed or size
        return taken


@dataclass(frozen=True, slots=True)
class Trained:
    """A step of a training in a pool, in bytes.

    ``asked``: the most that was asked for, beside the variables. ``peak``: the most in use, chunks counted whole.
    ``most``: the same where, beside what ran, the largest kernel ran that could have: which of them run at once is a
    matter of microseconds, and of many steps the worst one counts.
    """

    asked: int
    peak: int
    most: int


@dataclass(slots=True)
class _Variables:
    """Where variables lie in a pool, which they change as a training's steps run.

    What an optimizer keeps of a weight begins as zeros that all weights of a shape share, and gets a chunk of its own
    where it is first changed: in the middle of a backward pass, among its buffers. A variable that is changed while it
    is read gets another chunk, and one that is assigned to keeps that of what was computed. Later steps find smaller
    pieces between them, and take chunks that are larger than what they ask for.

    ``chunks``: theirs, by the bytes that each has. ``unmade``: the bytes of those that have none yet.
    """

    pool: Pool
    chunks: dict[int, list[int]] = field(default_factory=dict)
    unmade: Counter[int] = field(default_factory=Counter)

    def place(self, sizes: Iterable[int]) -> None:
        """Give variables of these sizes a chunk each."""
        for size in sizes:
            chunk = self.pool.allocate(size)
            if chunk is not None:
                self.chunks.setdefault(size, []).append(chunk)

    def instead(self, size: int, new: int | None) -> list[int]:
        """Let a variable of ``size`` bytes lie in another chunk, and give the one where it lay, if it had one."""
        chunks = self.chunks.setdefault(size, [])
        old = []
        if self.unmade[size]:
            self.unmade[size] -= 1
        elif chunks:
            old = [chunks.pop(0)]
        if new is not None:
            chunks.append(new)
        return old

    def has(self, size: int) -> bool:
        """Tell whether there is a variable of that size."""
        return bool(self.unmade[size] or self.chunks.get(size))


def trained_in_pool(
    step: Step,
    processor: Processor,
    weights: Sequence[int],
    slots: Sequence[int] = (),
    pools: Sequence[Sequence[int]] = ((),),
) -> tuple[Trained, ...]:
    """Run some steps of a training, one after another, as the executor runs them, in pools that grow.

    Parameters
    ----------
    step : Step
        The step.
    processor : Processor
        What runs it.
    weights, slots : sequence of int
        Bytes of the variables: what is there as the training begins, and what an optimizer makes in the first step.
    pools : sequence of sequences of int
        Of each pool the bytes of the regions that it has already, all of them free; none where it begins anew.

    Returns
    -------
    tuple of Trained
        In each pool the steps after the first, each in another of :data:`~tf_mem_magic.memory.executor.WAYS`; the first
        one makes the slots. The variables are included.
    """
    own = own_pieces(step, processor)
    requests = [executed(step, processor, way, own) for way in WAYS]
    found = []
    for regions in pools:
        variables = _Variables(Pool(_ENDLESS, regions))
        variables.place(weights)
        variables.unmade.update(slots)
        _run(requests[-1], variables.pool, variables)
        variables.place(variables.unmade.elements())
        variables.unmade.clear()
        found += [_run(one, variables.pool, variables) for one in requests]
    return tuple(found)


def executed_in_pool(step: Step, processor: Processor, held: Sequence[int] = ()) -> tuple[int, ...]:
    """Give the most bytes in use as the executor runs a step on a processor, in a pool that begins anew and grows.

    One number for each of the ways in which it may run it (:data:`~tf_mem_magic.memory.executor.WAYS`), chunks counted
    whole, what is ``held`` beside the step included.
    """
    own, found = own_pieces(step, processor), []
    for way in WAYS:
        pool = Pool(_ENDLESS)
        for size in held:
            pool.allocate(size)
        found.append(max(pool.peak, _run(executed(step, processor, way, own), pool).peak))
    return tuple(found)


def _run(requests: Requests, pool: Pool, variables: _Variables | None = None) -> Trained:
    """Meet a step's requests as the executor makes them; ``variables``: those that it moves."""
    chunks = _Chunks(pool, requests.counts)
    running: dict[int, list[int]] = {}
    of, own = chunks.of, requests.own
    allocate, release = pool.allocate, pool.release
    peak = most = 0
    for what, one, size in requests.of:
        if what == LOOK:
            in_use = pool.in_use
            peak, most = max(peak, in_use), max(most, in_use)
            # A chunk is less than twice as large as what it is asked for, or has little beside.
            if in_use + size > most:
                beside = chunks.take_all(own[one])
                most = max(most, pool.in_use)
                for chunk in beside:
                    release(chunk)
        elif what == GIVE:
            for chunk in of.pop(one):
                release(chunk)
        elif what == TAKE or (what == COPY and variables is None):
            taken = allocate(size)
            of[one] = [] if taken is None else [taken]
        elif what == BEGIN:
            running[one] = chunks.take_all(own[one])
        elif what == END:
            for chunk in running.pop(one):
                release(chunk)
        elif what == TAKE_MANY:
            chunks.take(one, size)
        elif variables is None:
            continue
        elif what == COPY:
            of[one] = variables.instead(size, allocate(size))
        elif what == KEEP:
            if len(of[one]) == 1 and variables.has(size):
                of[one] = variables.instead(size, of[one][0])
        elif variables.unmade[size]:
            variables.instead(size, allocate(size))
    for held in of.values():
        for chunk in held:
            release(chunk)
    return Trained(requests.asked, peak, most)


def ways(
    step: Step, limit: int, regions: Sequence[int], held: Sequence[int] = (), processor: Processor | None = None
) -> tuple[Pooled, ...]:
    """Run a step through a growing pool in each way in which it may run.

    ``regions``: those that the pool has already; none in a process that begins.
    """
    return tuple(
        through_pool(step, order, Pool(limit, regions), held, processor, at_once)
        for order in RUNNING
        for at_once in ((1, 2) if processor is not None else (1,))
    )
