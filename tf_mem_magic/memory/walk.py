"""Going through a step in execution order: which buffers are alive when."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.step import Node, Step
from tf_mem_magic.memory.executor import plan_of
from tf_mem_magic.memory.kernels import (
    COPIES_ROWS,
    FROM_VARIABLE,
    LASTING,
    LISTS,
    SAME,
)
from tf_mem_magic.memory.loops import follow, pushed_argument, pushes_the_same

ORDERS = ("first", "ready", "last")
"""The orders that are tried: as traced; first come, first served; what became ready last. The real one lies between."""


@dataclass(slots=True)
class Buffer:
    """Memory that an operation made: ``count`` pieces of ``size`` bytes; ``users`` still need it."""

    size: int
    node: int
    output: int
    count: int = 1
    users: int = 0
    lasting: bool = False


class Walk:
    """A run through a step, one operation at a time.

    Parameters
    ----------
    step : Step
        The step.
    order : str
        One of :data:`ORDERS`.
    """

    def __init__(self, step: Step, order: str = "first") -> None:
        plan = plan_of(step)
        self.step, self.order = step, order
        self._plan, self._makes, self.readers = plan.order, plan.makes, plan.order.readers
        self.alive: dict[int, Buffer] = {}
        self.bytes = 0
        self.unknown = 0
        self._read: dict[int, Buffer] = {}
        self._contents: dict[int, int] = {}
        self._of: dict[tuple[int, int], tuple[int, ...]] = {}
        self._made = 0
        self._clock = 0
        self._ready: set[int] = set()
        self._queue: list[tuple[int, int]] = []
        self._after = plan.order.after
        self._waiting = dict(plan.order.waiting)
        for at, count in plan.order.waiting.items():
            if not count:
                self._is_ready(at)

    def run(self) -> Iterator[int]:
        """Yield each operation's index when its outputs are made and its inputs are not let go yet."""
        while (at := self._next()) is not None:
            self._allocate(at)
            yield at
            self._finish(at)

    def before(self, stop: int) -> bool:
        """Go on until operation ``stop`` is about to make its outputs; False where it is never reached."""
        while (at := self._next()) is not None:
            if at == stop:
                return True
            self.execute(at)
        return False

    def execute(self, at: int) -> None:
        """Run one operation that is ready."""
        self._ready.discard(at)
        self._allocate(at)
        self._finish(at)

    def begin(self, at: int) -> None:
        """Make an operation's outputs, its turn having been found elsewhere."""
        self._allocate(at)

    def end(self, at: int) -> None:
        """Let go of an operation's inputs."""
        self._release(at)

    @property
    def ready(self) -> frozenset[int]:
        """The operations that could run now."""
        return frozenset(self._ready)

    def _next(self) -> int | None:
        while self._queue:
            _, at = heapq.heappop(self._queue)
            if at in self._ready:
                self._ready.discard(at)
                return at
        return None

    def _finish(self, at: int) -> None:
        self._release(at)
        for one in self._after.get(at, ()):
            self._waiting[one] -= 1
            if not self._waiting[one]:
                self._is_ready(one)

    def _is_ready(self, at: int) -> None:
        self._clock += 1
        self._ready.add(at)
        heapq.heappush(self._queue, (_rank(self.order, at, self._clock), at))

    def would(self, at: int) -> tuple[list[int], list[int]]:
        """Give the bytes that running ``at`` would take and give back, buffer by buffer."""
        node = self.step.nodes[at]
        freed = []
        reads: dict[int, int] = {}
        for source in node.inputs:
            for one in self._of.get(source, ()):
                reads[one] = reads.get(one, 0) + 1
        kind = node.kind
        passes_on = kind in SAME or kind in LISTS or node.body is not None or max(node.shares, default=-1) >= 0
        for one, count in reads.items():
            buffer = self.alive.get(one)
            if buffer is not None and not buffer.lasting and buffer.users <= count:
                freed.append(buffer.size * buffer.count)
        if passes_on:
            return [], []
        taken = []
        taken += [self._read[one].size for _, one in self._to_copy(at, node)]
        for output, tensor in enumerate(node.outputs):
            size = tensor.bytes
            if not size or kind in FROM_VARIABLE or not self.readers[at][output]:
                continue
            if output == self._plan.takes_over[at] and size in freed:
                freed.remove(size)
            else:
                taken.append(size)
        return taken, freed

    def buffers_of(self, node: int, output: int) -> tuple[Buffer, ...]:
        """Give the buffers that hold an output now."""
        return tuple(self.alive[b] for b in self._of.get((node, output), ()) if b in self.alive)

    def _allocate(self, at: int) -> None:
        makes = self._makes[at]
        if self._read and self._plan.changes[at]:
            self._copy_on_write(at, self.step.nodes[at])
        if makes == ():
            return
        node = self.step.nodes[at]
        lasting = node.kind in LASTING
        for i, readers in enumerate(self.readers[at]):
            held = self._buffers(at, node, i) if makes is None else self._made_by(at, node, i, makes[i])
            self._of[at, i] = held
            for one in held:
                buffer = self.alive.get(one) or self._read.get(one)
                if buffer is not None:
                    buffer.users += readers
                    buffer.lasting = buffer.lasting or lasting
            if not readers and not lasting:
                for one in held:
                    self._drop_if_unused(one)

    def _release(self, at: int) -> None:
        of, alive, read = self._of, self.alive, self._read
        for source in self.step.nodes[at].inputs:
            for one in of.get(source, ()):
                buffer = alive.get(one) or read.get(one)
                if buffer is not None:
                    buffer.users -= 1
                    if buffer.users <= 0 and not buffer.lasting:
                        self._drop(one, buffer)

    def _drop_if_unused(self, one: int) -> None:
        buffer = self.alive.get(one) or self._read.get(one)
        if buffer is not None and buffer.users <= 0 and not buffer.lasting:
            self._drop(one, buffer)

    def _drop(self, one: int, buffer: Buffer) -> None:
        if self._read.pop(one, None) is None:
            del self.alive[one]
            self.bytes -= buffer.size * buffer.count
            self.released(one, buffer)

    def _variable(self, source: tuple[int, int]) -> int:
        """Give the operation that gives a variable's handle."""
        node = self.step.nodes[source[0]]
        while node.kind in SAME and node.inputs:
            source = node.inputs[min(source[1], len(node.inputs) - 1)]
            node = self.step.nodes[source[0]]
        return source[0]

    def _read_of(self, at: int, node: Node) -> tuple[int, ...]:
        """Find or make what stands for a variable's own buffer while something reads it; it takes nothing."""
        size = node.outputs[0].bytes if node.outputs else None
        if not size or not node.inputs:
            return ()
        variable = self._variable(node.inputs[0])
        one = self._contents.get(variable, 0)
        if one not in self._read:
            self._made += 1
            one = self._contents[variable] = self._made
            self._read[one] = Buffer(size, at, 0)
        return (one,)

    def _to_copy(self, at: int, node: Node) -> list[tuple[int, int]]:
        """List the variables that an operation changes while they are read, and what stands for their buffers."""
        if not self._read or not self._plan.changes[at]:
            return []
        found = ((variable, self._contents.get(variable, 0)) for variable in map(self._variable, node.inputs))
        return [(variable, one) for variable, one in found if one in self._read]

    def _copy_on_write(self, at: int, node: Node) -> None:
        """Let an operation change variables in copies where something reads them: what is read stays until then."""
        for variable, one in self._to_copy(at, node):
            del self._contents[variable]
            buffer = self.alive[one] = self._read.pop(one)
            self.bytes += buffer.size
            self.copied(one, buffer)

    def _buffers(self, at: int, node: Node, output: int) -> tuple[int, ...]:
        """Find or make the buffers of one output."""
        kind = node.kind
        if kind in FROM_VARIABLE:
            return self._read_of(at, node) if kind == "ReadVariableOp" else ()
        if node.body is not None:
            return self._loop_result(at, node, output)
        shared = node.shares[output] if node.shares else -1
        if kind in SAME and node.inputs:
            shared = min(output, len(node.inputs) - 1) if kind in ("IdentityN", "OptionalFromValue") else 0
            if kind == "OptionalFromValue":
                return tuple(b for source in node.inputs for b in self._of.get(source, ()))
        if shared >= 0:
            return self._of.get(node.inputs[shared], ())
        if kind == COPIES_ROWS:
            return self._rows_of(at, node)
        if kind in LISTS:
            return tuple(b for source in node.inputs for b in self._of.get(source, ())) if output == 0 else ()
        return self._made_by(at, node, output, node.outputs[output].bytes)

    def _made_by(self, at: int, node: Node, output: int, size: int | None) -> tuple[int, ...]:
        """Find or make the buffer of an output of ``size`` bytes: an input's where it may take that over."""
        if size is None:
            self.unknown += 1
        if not size:
            return self._zeros_like_a_list(at, node) if node.kind == "ZerosLike" else ()
        if output == self._plan.takes_over[at]:
            taken = self._forwarded(node, size, node.outputs[output].dtype)
            if taken is not None:
                return (taken,)
        return (self._make(at, output, size),)

    def _rows_of(self, at: int, node: Node) -> tuple[int, ...]:
        """Make a list of a tensor's rows, each a copy in a buffer of its own."""
        source, output = node.inputs[0]
        tensor = self.step.nodes[source].outputs[output]
        if not tensor.bytes or not tensor.shape:
            return self._of.get(node.inputs[0], ())
        return (self._make(at, 0, tensor.bytes // tensor.shape[0], tensor.shape[0]),)

    def _zeros_like_a_list(self, at: int, node: Node) -> tuple[int, ...]:
        """Make as many zeros as a list has elements, each in a buffer of its own: where its gradient begins."""
        source, output = node.inputs[0]
        held = self.step.nodes[source].outputs[output]
        return (self._make(at, 0, held.bytes, held.count),) if held.count and held.bytes else ()

    def _forwarded(self, node: Node, size: int, dtype: str) -> int | None:
        for source in node.inputs:
            held = self._of.get(source, ())
            if len(held) != 1 or held[0] not in self.alive:
                continue
            buffer = self.alive[held[0]]
            if buffer.size != size or buffer.users != 1 or buffer.lasting:
                continue
            given = self.step.nodes[source[0]].outputs[source[1]]
            if given.bytes == size and given.dtype == dtype:
                return held[0]
        return None

    def _make(self, at: int, output: int, size: int, count: int = 1) -> int:
        self._made += 1
        buffer = self.alive[self._made] = Buffer(size, at, output, count)
        self.bytes += size * count
        self.allocated(self._made, buffer)
        return self._made

    def allocated(self, one: int, buffer: Buffer) -> None:
        """Do what else is to be done when buffer ``one`` is made."""

    def copied(self, one: int, buffer: Buffer) -> None:
        """Do what else is to be done when a variable is changed in a copy; buffer ``one`` is what is read of it."""
        self.allocated(one, buffer)

    def released(self, one: int, buffer: Buffer) -> None:
        """Do what else is to be done when buffer ``one`` is let go."""

    def _loop_result(self, at: int, node: Node, output: int) -> tuple[int, ...]:
        """Give what a loop's result holds: what it was given, where the body hands that on; else its own."""
        body = self.step.bodies[node.body] if node.body is not None else None
        given = self._of.get(node.inputs[output], ()) if output < len(node.inputs) else ()
        tensor = node.outputs[output]
        if body is None or output >= len(body.results):
            return given
        kept, grows = follow(body, body.results[output])
        if kept == output and (not grows or pushes_the_same(body, output)):
            pushed = pushed_argument(body, output) if grows else -1
            return (*given, *self._of.get(node.inputs[pushed], ())) if 0 <= pushed < len(node.inputs) else given
        size = tensor.bytes
        if size is None:
            self.unknown += 1
        if not size:
            return given if tensor.count else ()
        if tensor.count:
            return (*given, self._make(at, output, size, tensor.count))
        return (self._make(at, output, size),)


def _rank(order: str, at: int, clock: int) -> int:
    return {"first": at, "ready": clock, "last": -clock}[order]
