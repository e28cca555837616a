"""A step run through an allocator's pool: whether it fits in the pieces that there are, and the peak with rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tf_mem_magic.core.step import Processor, Step
from tf_mem_magic.memory.executor import WAYS, Ready, events_of
from tf_mem_magic.memory.forecast import RUNNING, loop_peak, own_of
from tf_mem_magic.memory.pool import GRANULE, Pool
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


_ASSIGNING = frozenset({"AssignVariableOp", "AssignAddVariableOp"})
"""What may give a variable another chunk, or its first."""


class _TrainingWalk(_PoolWalk):
    """A walk that moves variables in the pool, as a training's steps do.

    What an optimizer keeps of a weight begins as zeros that all weights of a shape share, and gets a chunk of its own
    where it is first changed: in the middle of a backward pass, among its buffers. A variable that is changed while it
    is read gets another chunk, and one that is assigned to keeps that of what was computed. Later steps find smaller
    pieces between them, and take chunks that are larger than what they ask for.

    Parameters
    ----------
    step : Step
        The step.
    pool : Pool
        The pool.
    variables : dict of int to list of int
        The chunks of variables by the bytes that each has; changed.
    unmade : Counter of int
        The bytes of variables that have no chunk yet; changed.
    """

    def __init__(self, step: Step, pool: Pool, variables: dict[int, list[int]], unmade: Counter[int]) -> None:
        self.variables, self.unmade = variables, unmade
        super().__init__(step, "first", pool)

    def begin(self, at: int) -> None:
        node = self.step.nodes[at]
        moves = node.kind in _ASSIGNING and len(node.inputs) > 1 and not self._to_copy(node)
        super().begin(at)
        if not moves:
            return
        source, output = node.inputs[1]
        size = self.step.nodes[source].outputs[output].bytes or 0
        if node.kind == "AssignVariableOp":
            self._keep((source, output), size)
        elif self.unmade[size]:
            self._instead(size, self.take(size))

    def copied(self, one: int, buffer: Buffer) -> None:
        self.chunks[one] = self._instead(buffer.size, self.take(buffer.size))

    def _keep(self, source: tuple[int, int], size: int) -> None:
        """Let a variable keep the chunk of what is assigned to it, where nothing else reads that."""
        held = self._of.get(source, ())
        buffer = self.alive.get(held[0]) if len(held) == 1 else None
        known = bool(self.unmade[size] or self.variables.get(size))
        if buffer is None or not known or buffer.users != 1 or buffer.lasting or len(self.chunks[held[0]]) != 1:
            return
        self.chunks[held[0]] = self._instead(size, self.chunks[held[0]][0])

    def _instead(self, size: int, new: int | None) -> list[int]:
        """Let a variable of ``size`` bytes lie in another chunk, and give the one where it lay, if it had one."""
        chunks = self.variables.setdefault(size, [])
        old = []
        if self.unmade[size]:
            self.unmade[size] -= 1
        elif chunks:
            old = [chunks.pop(0)]
        if new is not None:
            chunks.append(new)
        return old


def trained_in_pool(
    step: Step,
    processor: Processor,
    weights: Sequence[int],
    slots: Sequence[int] = (),
    regions: Sequence[int] = (),
) -> tuple[Trained, ...]:
    """Run some steps of a training, one after another, as the executor runs them, in a pool that grows.

    Parameters
    ----------
    step : Step
        The step.
    processor : Processor
        What runs it.
    weights, slots : sequence of int
        Bytes of the variables: what is there as the training begins, and what an optimizer makes in the first step.
    regions : sequence of int
        Bytes of the regions that the pool has already, all of them free; none where it begins anew.

    Returns
    -------
    tuple of Trained
        The steps after the first, each in another of :data:`~tf_mem_magic.memory.executor.WAYS`; the first one makes
        the slots. The variables are included.
    """
    pool, own = Pool(_ENDLESS, regions), _pieces(step, processor)
    variables: dict[int, list[int]] = {}
    unmade = Counter(slots)
    _place(weights, pool, variables)
    found = []
    for way in (WAYS[-1], *WAYS):
        walk = _TrainingWalk(step, pool, variables, unmade)
        found.append(_run(walk, own, processor.threads, way))
        for chunks in walk.chunks.values():
            for chunk in chunks:
                pool.release(chunk)
        _place(unmade.elements(), pool, variables)
        unmade.clear()
    return tuple(found[1:])


def _place(sizes: Iterable[int], pool: Pool, variables: dict[int, list[int]]) -> None:
    for size in sizes:
        chunk = pool.allocate(size)
        if chunk is not None:
            variables.setdefault(size, []).append(chunk)


def executed_in_pool(step: Step, processor: Processor, held: Sequence[int] = ()) -> tuple[int, ...]:
    """Give the most bytes in use as the executor runs a step on a processor, in a pool that begins anew and grows.

    One number for each of the ways in which it may run it (:data:`~tf_mem_magic.memory.executor.WAYS`), chunks counted
    whole, what is ``held`` beside the step included.
    """
    found = []
    for way in WAYS:
        walk = _PoolWalk(step, "first", Pool(_ENDLESS))
        for size in held:
            walk.take(size)
        found.append(max(walk.pool.peak, _run(walk, _pieces(step, processor), processor.threads, way).peak))
    return tuple(found)


def _pieces(step: Step, processor: Processor) -> dict[int, list[int]]:
    """Give what operations need while they run, chunk by chunk.

    Of a round of a loop they are its kernels' temporaries, the largest first, as many as it holds, and tensors.
    """
    found = {}
    for at, size in own_of(step, processor).items():
        body = step.bodies[node.body] if (node := step.nodes[at]).body is not None else None
        found[at] = [size] if body is None else _in_pieces(body, processor, size)
    return found


def _in_pieces(body: Step, processor: Processor, size: int) -> list[int]:
    left, pieces = size, []
    for one in sorted(temporaries_of(body, processor).values(), reverse=True):
        if one <= left:
            pieces.append(one)
            left -= one
    tensors = [tensor.bytes or 0 for node in body.nodes for tensor in node.outputs if not tensor.count]
    usual = max(max(tensors, default=0), left // _MOST_PIECES, GRANULE)
    return [*pieces, *(min(usual, left - done) for done in range(0, left, usual))]


def _run(walk: _PoolWalk, own: Mapping[int, list[int]], threads: int, way: str) -> Trained:
    """Run a step as the executor does; ``own``: what operations need while they run."""
    pool, ready = walk.pool, Ready(walk.step, own)
    needs = {at: sum(pieces) for at, pieces in own.items()}
    running: dict[int, list[int]] = {}
    asked = peak = most = temporaries = 0

    def take(at: int) -> list[int]:
        return [chunk for size in own[at] if (chunk := walk.take(size)) is not None]

    def give_back(chunks: list[int]) -> None:
        for chunk in chunks:
            pool.release(chunk)

    for at, begins in events_of(walk.step, threads, way):
        if not begins:
            give_back(running.pop(at, []))
            temporaries -= needs.get(at, 0)
            walk.end(at)
            ready.end(at)
            continue
        walk.begin(at)
        ready.begin(at)
        if at in own:
            running[at] = take(at)
            temporaries += needs[at]
        asked, peak = max(asked, walk.bytes + temporaries), max(peak, pool.in_use)
        most = max(most, pool.in_use)
        if ready.now and len(running) < threads:
            beside = max(ready.now, key=needs.__getitem__)
            # A chunk is less than twice as large as what it is asked for, or has little beside.
            if pool.in_use + 2 * needs[beside] > most:
                chunks = take(beside)
                most = max(most, pool.in_use)
                give_back(chunks)
    return Trained(asked, peak, most)


_MOST_PIECES = 64
"""Chunks in which the tensors of a round are counted, at the most."""

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
