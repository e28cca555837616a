"""The tensors that are alive when an operation of a step fails, by name and size."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tf_mem_magic.core.step import Step
from tf_mem_magic.memory.kernels import FUSED, IN_PLACE, LASTING
from tf_mem_magic.memory.loops import follow, pushes_the_same
from tf_mem_magic.memory.roles import Role, layer_of, roles, scopes_in
from tf_mem_magic.memory.walk import ORDERS, Buffer, Walk

GRANULE = 256
"""Bytes to which TensorFlow's allocator rounds a request (kMinAllocationSize)."""

ENOUGH = 0.995
"""Share of the bytes with which an order of execution agrees well enough to try no other."""

MOST_AHEAD = 200
"""Operations that are tried to have run before one that did not wait for them."""

_CALLED = re.compile(r"(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_LOWERED = re.compile(r"/(?:body|cond)/_\d+/")


@dataclass(frozen=True, slots=True)
class Held:
    """Memory that a step holds: ``count`` pieces of ``bytes`` each, of the operation ``op``.

    ``least`` of them are there for sure; a loop that is running has filled its lists only in part.
    """

    op: str
    kind: str
    role: Role
    layer: str
    bytes: int
    count: int = 1
    least: int = 1
    shape: tuple[int, ...] | None = None
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """What a step holds just before the operation ``stop``.

    ``order`` is the order of execution that was assumed; ``unknown`` tensors before it have sizes that only the run
    tells.
    """

    stop: str
    held: tuple[Held, ...]
    order: str = "first"
    unknown: int = 0

    @property
    def bytes(self) -> int:
        """All of it, lists of loops filled."""
        return sum(one.bytes * one.count for one in self.held)


def find_stop(step: Step, op: str) -> tuple[int, ...] | None:
    """Find the operation that an error names; inside a loop, the way to it. None where it is not in the step.

    Running a graph puts functions in line and loops apart, which changes names in front: the end decides.
    """
    plain = _CALLED.sub("", op)
    for wanted in dict.fromkeys((plain, *reversed(_LOWERED.split(plain)))):
        found = _find(step, wanted)
        if found is not None:
            return found
    return None


def _find(step: Step, wanted: str) -> tuple[int, ...] | None:
    best: tuple[int, ...] | None = None
    for at, node in enumerate(step.nodes):
        if node.body is not None:
            inner = _find(step.bodies[node.body], wanted)
            if inner is not None:
                best = best or (at, *inner)
        name = _CALLED.sub("", node.name)
        if name == wanted:
            return (at,)
    return best


def live_at(
    step: Step,
    stop: tuple[int, ...],
    order: str,
    scopes: Mapping[str, str],
    requested: int | None = None,
    chunks: Mapping[int, int] | None = None,
) -> Live | None:
    """Give what ``step`` holds when ``stop`` (:func:`find_stop`) asks for ``requested`` bytes; None: it never runs.

    ``scopes``: which layer opened a scope (:func:`scopes_in`). ``chunks``: what the allocator handed out, by which
    operations are found that ran ahead.
    """
    walk = Walk(step, order)
    if not walk.before(stop[0]):
        return None
    if chunks is not None:
        _run_ahead(walk, stop[0], chunks)
    node = step.nodes[stop[0]]
    missing = _not_made_yet(walk, stop[0], requested) if len(stop) == 1 else None
    held = [_held(step, buffer, scopes) for buffer in walk.alive.values() if buffer is not missing]
    if len(stop) == 1 and requested is not None:
        held += _made_already(step, stop[0], requested, scopes)
    unknown = walk.unknown
    name = node.name
    if len(stop) > 1 and node.body is not None:
        body = step.bodies[node.body]
        inner = live_at(body, stop[1:], order, scopes, requested)
        if inner is None:
            return None
        held += inner.held
        held += list(_growing(step, stop[0], scopes))
        unknown, name = unknown + inner.unknown, inner.stop
    return Live(name, tuple(held), order, unknown)


def _run_ahead(walk: Walk, stop: int, chunks: Mapping[int, int]) -> None:
    """Run operations that did not wait for ``stop``, as long as the chunks say that they had run.

    TensorFlow runs several operations at once; what each would take and give back is compared with what was there.
    """
    alive: Counter[int] = Counter()
    for buffer in walk.alive.values():
        alive[buffer.size] += buffer.count
    for _ in range(MOST_AHEAD):
        best, gain, change = None, 0, (list[int](), list[int]())
        for at in sorted(walk.ready - {stop}):
            taken, freed = walk.would(at)
            if not taken and not freed:
                walk.execute(at)
                continue
            better = _better(alive, chunks, taken, freed)
            if better > gain:
                best, gain, change = at, better, (taken, freed)
        if best is None:
            return
        walk.execute(best)
        alive.update(change[0])
        alive.subtract(change[1])


def _better(alive: Mapping[int, int], chunks: Mapping[int, int], taken: Sequence[int], freed: Sequence[int]) -> int:
    """Give the bytes by which the agreement with the chunks would grow; negative where it would shrink."""
    change: Counter[int] = Counter(taken)
    change.subtract(freed)
    gain = 0
    for size, count in change.items():
        before = abs(alive.get(size, 0) - chunks.get(size, 0))
        after = abs(alive.get(size, 0) + count - chunks.get(size, 0))
        gain += (before - after) * size
    return gain


def _not_made_yet(walk: Walk, stop: int, requested: int | None) -> Buffer | None:
    """Find the input into which the operation that failed would have written: it asked for memory all the same.

    Then the optimizer has fused it with what makes that input (a convolution with its bias and activation), and what
    was asked for is that one buffer.
    """
    node = walk.step.nodes[stop]
    if node.kind not in IN_PLACE or requested is None:
        return None
    for source in node.inputs:
        held = walk.buffers_of(*source)
        fused = walk.step.nodes[source[0]].kind.startswith(FUSED)
        if fused and walk.readers[source[0]][source[1]] == 1 and len(held) == 1 and held[0].size == requested:
            return held[0]
    return None


def _made_already(step: Step, stop: int, requested: int, scopes: Mapping[str, str]) -> list[Held]:
    """List the outputs of the operation that failed, where it had made them and failed for a temporary."""
    node = step.nodes[stop]
    sizes = [tensor.bytes for tensor in node.outputs]
    if not all(sizes) or any(abs(requested - (size or 0)) < GRANULE for size in sizes):
        return []
    role, layer = _roles(step)[stop], layer_of(node.name, scopes)
    made = [(t, t.bytes or 0) for t in node.outputs]
    return [Held(node.name, node.kind, role, layer, size, 1, 0, tensor.shape, tensor.dtype) for tensor, size in made]


def _growing(step: Step, at: int, scopes: Mapping[str, str]) -> list[Held]:
    """List what a running loop is filling: its lists, of which any number may be there, and the state it carries."""
    node = step.nodes[at]
    assert node.body is not None
    body = step.bodies[node.body]
    role = roles(step)[at]
    found = []
    for output, tensor in enumerate(node.outputs):
        if output >= len(body.results) or not tensor.bytes:
            continue
        kept, grows = follow(body, body.results[output])
        if kept == output and (not grows or pushes_the_same(body, output)):
            continue
        layer = layer_of(node.name + "/", scopes)
        count = tensor.count or 1
        found.append(Held(node.name, node.kind, role, layer, tensor.bytes, count, 0, tensor.shape, tensor.dtype))
    return found


def _held(step: Step, buffer: Buffer, scopes: Mapping[str, str]) -> Held:
    node = step.nodes[buffer.node]
    tensor = node.outputs[buffer.output]
    role = _roles(step)[buffer.node]
    return Held(
        node.name,
        node.kind,
        role,
        layer_of(node.name, scopes),
        buffer.size,
        buffer.count,
        0 if node.kind in LASTING else buffer.count,
        tensor.shape,
        tensor.dtype,
    )


_cache: dict[int, tuple[Step, tuple[Role, ...]]] = {}


def _roles(step: Step) -> tuple[Role, ...]:
    known = _cache.get(id(step))
    if known is None or known[0] is not step:
        _cache.clear()
        known = _cache[id(step)] = (step, roles(step))
    return known[1]


def best_live(
    step: Step, op: str, chunks: Mapping[int, int], layers: Collection[str] = (), requested: int | None = None
) -> Live | None:
    """Give what the step held when ``op`` failed, in the order of execution that agrees best with the chunks.

    ``chunks`` counts what the allocator handed out by requested bytes, without what is known otherwise. TensorFlow
    runs what is ready, several operations at a time; which of two independent ones came first is not in the graph.
    """
    stop = find_stop(step, op)
    if stop is None:
        return None
    scopes = scopes_in(step, layers)
    runs = (live_at(step, stop, order, scopes, requested) for order in ORDERS)
    best = max((live for live in runs if live is not None), key=lambda live: _agreement(live, chunks), default=None)
    if best is None or _agrees(best, chunks):
        return best
    ahead = live_at(step, stop, best.order, scopes, requested, chunks)
    return best if ahead is None or _agreement(ahead, chunks) <= _agreement(best, chunks) else ahead


def _agrees(live: Live, chunks: Mapping[int, int]) -> bool:
    """Whether nearly all that is there is explained."""
    return _agreement(live, chunks) >= ENOUGH * sum(size * count for size, count in chunks.items())


def _agreement(live: Live, chunks: Mapping[int, int]) -> int:
    """Bytes that are in both, less those that are only in the walk."""
    most: Counter[int] = Counter()
    least: Counter[int] = Counter()
    for one in live.held:
        most[one.bytes] += one.count
        least[one.bytes] += one.least
    both = sum(size * min(count, chunks.get(size, 0)) for size, count in most.items())
    return both - sum(size * max(count - chunks.get(size, 0), 0) for size, count in least.items())
