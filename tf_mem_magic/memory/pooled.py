"""A step run through an allocator's pool: whether it fits in the pieces that there are, and the peak with rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tf_mem_magic.core.step import Processor, Step
from tf_mem_magic.memory.executor import WAYS, events_of
from tf_mem_magic.memory.forecast import RUNNING, loop_peak, own_of
from tf_mem_magic.memory.pool import Pool
from tf_mem_magic.memory.temporaries import temporaries_of
from tf_mem_magic.memory.walk import Buffer, Walk


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


class _PoolWalk(Walk):
    """A walk whose buffers are chunks of a pool."""

    def __init__(self, step: Step, order: str, pool: Pool) -> None:
        self.pool = pool
        self.chunks: dict[int, list[int]] = {}
        self.failed = 0
        super().__init__(step, order)

    def allocated(self, one: int, buffer: Buffer) -> None:
        self.chunks[one] = [at for _ in range(buffer.count) if (at := self.take(buffer.size)) is not None]

    def released(self, one: int, buffer: Buffer) -> None:
        for at in self.chunks.pop(one, ()):
            self.pool.release(at)

    def take(self, size: int) -> int | None:
        at = self.pool.allocate(size)
        if at is None:
            self.failed = self.failed or size
        return at


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
        How many kernels with temporaries run at once, where as many could.
    """
    walk = _PoolWalk(step, order, pool)
    for size in held:
        walk.take(size)
    temporaries = temporaries_of(step, processor)
    for at in walk.run():
        own = [temporaries[at]] if at in temporaries else []
        if own:
            own += sorted((temporaries.get(one, 0) for one in walk.ready), reverse=True)[: at_once - 1]
        elif step.nodes[at].body is not None:
            own = [loop_peak(step, at, processor)]
        taken = [chunk for size in own if size and (chunk := walk.take(size)) is not None]
        for chunk in taken:
            pool.release(chunk)
        if walk.failed:
            return Pooled(pool.peak, walk.failed, step.nodes[at].name, at_once)
    return Pooled(pool.peak, walk.failed, at_once=at_once)


def executed_in_pool(step: Step, processor: Processor, held: Sequence[int] = ()) -> tuple[int, ...]:
    """Give the most bytes in use as the executor runs a step on a processor, in a pool that begins anew and grows.

    One number for each of the ways in which it may run it (:data:`~tf_mem_magic.memory.executor.WAYS`), chunks counted
    whole, what is ``held`` beside the step included.
    """
    return tuple(_executed(step, processor, held, way) for way in WAYS)


def _executed(step: Step, processor: Processor, held: Sequence[int], way: str) -> int:
    pool = Pool(_ENDLESS)
    walk = _PoolWalk(step, "first", pool)
    for size in held:
        walk.take(size)
    own = own_of(step, processor)
    running: dict[int, int | None] = {}
    for at, begins in events_of(step, processor.threads, way):
        if begins:
            walk.begin(at)
            if at in own:
                running[at] = walk.take(own[at])
        else:
            chunk = running.pop(at, None)
            if chunk is not None:
                pool.release(chunk)
            walk.end(at)
    return pool.peak


_ENDLESS = 1 << 50
"""Bytes of a device that never runs out."""


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
