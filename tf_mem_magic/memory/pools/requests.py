"""What a step asks an allocator for and gives back, in order: the same in every pool, so it is found once for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tf_mem_magic.core.step import Processor, Step
from tf_mem_magic.memory.executor import Ready, events_of, plan_of
from tf_mem_magic.memory.forecast import loop_peak, own_of
from tf_mem_magic.memory.pools.pool import GRANULE
from tf_mem_magic.memory.temporaries import temporaries_of
from tf_mem_magic.memory.walk import Buffer, Walk

TAKE, TAKE_MANY, GIVE, COPY, KEEP, ADD, BEGIN, END, LOOK, PASS, DONE = range(11)
"""What is done, with buffer ``one`` of ``size`` bytes or with what operation ``one`` needs while it runs.

- ``TAKE``: the buffer is made. ``TAKE_MANY``: so it is, of :attr:`Requests.counts` pieces. ``GIVE``: it is let go.
- ``COPY``: a variable is changed in a copy; the buffer is what is read of it.
- ``KEEP``: a variable may keep the buffer as its own, in place of the one that it has.
- ``ADD``: a variable is added to, which makes its buffer where it has none yet.
- ``BEGIN``, ``END``: the operation takes what it needs, and gives it back. ``PASS``: it does both at once.
- ``LOOK``: an operation runs; beside it could ``one``, with half of ``size`` bytes of its own (-1: none).
- ``DONE``: the operation is over.
"""

Request = tuple[int, int, int]
"""What is done, ``one`` and ``size``."""


@dataclass(frozen=True, slots=True)
class Requests:
    """A step's requests.

    Attributes
    ----------
    of : sequence of (int, int, int)
        In their order.
    own : mapping of int to sequence of int
        What operations need while they run, chunk by chunk.
    counts : mapping of int to int
        How many pieces buffers have that have several.
    asked : int
        The most bytes that are asked for at one time.
    """

    of: Sequence[Request]
    own: Mapping[int, Sequence[int]]
    counts: Mapping[int, int]
    asked: int = 0


class _Recorder(Walk):
    """A walk that takes down what it makes and lets go of."""

    def __init__(self, step: Step, order: str = "first") -> None:
        self.of: list[Request] = []
        self.counts: dict[int, int] = {}
        super().__init__(step, order)

    def allocated(self, one: int, buffer: Buffer) -> None:
        if buffer.count == 1:
            self.of.append((TAKE, one, buffer.size))
        else:
            self.counts[one] = buffer.count
            self.of.append((TAKE_MANY, one, buffer.size))

    def copied(self, one: int, buffer: Buffer) -> None:
        self.of.append((COPY, one, buffer.size))

    def released(self, one: int, buffer: Buffer) -> None:
        self.of.append((GIVE, one, buffer.size))

    def begin(self, at: int) -> None:
        if not self._plan.assigns[at]:
            self._allocate(at)
            return
        node = self.step.nodes[at]
        moves = not self._to_copy(at, node)
        self._allocate(at)
        if not moves:
            return
        source, output = node.inputs[1]
        size = self.step.nodes[source].outputs[output].bytes or 0
        if node.kind == "AssignVariableOp":
            self._may_keep((source, output), size)
        else:
            self.of.append((ADD, -1, size))

    def _may_keep(self, source: tuple[int, int], size: int) -> None:
        """Let a variable keep the chunk of what is assigned to it, where nothing else reads that."""
        held = self._of.get(source, ())
        buffer = self.alive.get(held[0]) if len(held) == 1 else None
        if buffer is not None and buffer.users == 1 and not buffer.lasting:
            self.of.append((KEEP, held[0], size))

    def beside(self, temporaries: Mapping[int, int]) -> int:
        """Give the largest temporaries of what could run now."""
        return max((temporaries.get(one, 0) for one in self._ready), default=0)


_in_order: dict[tuple[int, str, Processor | None], tuple[Step, Requests]] = {}
_MOST_KEPT = 16


def in_order(step: Step, order: str, processor: Processor | None = None) -> Requests:
    """Give a step's requests, its operations one after another; the same step is walked through once.

    ``own`` are a kernel's temporaries, and those of the largest that could run beside it.

    Parameters
    ----------
    step : Step
        The step.
    order : str
        One of :data:`~tf_mem_magic.memory.walk.ORDERS`.
    processor : Processor, optional
        As in :func:`~tf_mem_magic.memory.forecast.peak_of`.
    """
    key = id(step), order, processor
    known = _in_order.get(key)
    if known is None or known[0] is not step:
        if len(_in_order) >= _MOST_KEPT:
            _in_order.clear()
        known = _in_order[key] = (step, _one_by_one(step, order, processor))
    return known[1]


def _one_by_one(step: Step, order: str, processor: Processor | None) -> Requests:
    walk, temporaries = _Recorder(step, order), temporaries_of(step, processor)
    own: dict[int, list[int]] = {}
    for at in walk.run():
        if at in temporaries:
            own[at] = [temporaries[at], walk.beside(temporaries)]
        elif step.nodes[at].body is not None:
            own[at] = [loop_peak(step, at, processor)]
        if at in own:
            walk.of.append((PASS, at, 0))
        walk.of.append((DONE, at, 0))
    return Requests(walk.of, own, walk.counts)


def executed(step: Step, processor: Processor, way: str, own: Mapping[int, Sequence[int]]) -> Requests:
    """Give a step's requests as the executor runs it.

    Parameters
    ----------
    step : Step
        The step.
    processor : Processor
        What runs it.
    way : str
        One of :data:`~tf_mem_magic.memory.executor.WAYS`.
    own : mapping of int to sequence of int
        What operations need while they run, chunk by chunk (:func:`own_pieces`).
    """
    walk, ready = _Recorder(step), Ready(step, own)
    of, needs = walk.of, {at: sum(pieces) for at, pieces in own.items()}
    asked = temporaries = running = looked = 0
    looked_beside = -1
    plan = plan_of(step)
    takes, lets_go = plan.takes, plan.lets_go
    for at, begins in events_of(step, processor.threads, way):
        if not begins:
            if at in own:
                of.append((END, at, 0))
                running -= 1
                temporaries -= needs[at]
            if lets_go[at]:
                walk.end(at)
            ready.end(at)
            continue
        if takes[at]:
            walk.begin(at)
        elif at not in own and not ready.now:
            continue
        if at in own:
            ready.begin(at)
            of.append((BEGIN, at, 0))
            running += 1
            temporaries += needs[at]
        beside = ready.largest(needs) if ready.now and running < processor.threads else -1
        if len(of) > looked or beside != looked_beside:
            asked = max(asked, walk.bytes + temporaries)
            of.append((LOOK, beside, 2 * needs.get(beside, 0)))
            looked, looked_beside = len(of), beside
    return Requests(of, own, walk.counts, asked)


def own_pieces(step: Step, processor: Processor) -> dict[int, list[int]]:
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


_MOST_PIECES = 64
"""Chunks in which the tensors of a round are counted, at the most."""
