"""The order in which TensorFlow's executor runs a step on a processor: several operations at once, each for its time.

The rules are those of executor.cc: of the operations that one makes ready, the cheap ones and one of the others are
run by the thread that made them ready; the rest waits in that thread's queue, newest first, from which idle threads
take the oldest. Which one is kept depends on the order of a graph's edges, which TensorFlow's optimizer changes, and
how long an operation takes is guessed from its sizes: so a step is run in several ways (:data:`WAYS`).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod

from tf_mem_magic.core.step import Node, Step
from tf_mem_magic.memory.kernels import (
    ASSIGNING,
    COPIES_ROWS,
    FORWARDS,
    FROM_VARIABLE,
    IN_PLACE,
    LISTS,
    SAME,
    copies_what_is_read,
    has_effect,
)

WAYS = ("keeps last", "keeps first", "oldest first")
"""Which of the operations that became ready at once a thread goes on with: the last, the first, or whatever has waited
longest of all."""

Event = tuple[int, bool]
"""An operation, and whether it begins (else it ends)."""

EXPENSIVE = 8000
"""Cycles from which on an operation is no cheap one (kOpIsExpensiveThresholdCycles)."""

_FLOPS = 8
"""Floating-point operations of a product that a thread does in a cycle, about."""

_FILTER = 3
"""How much longer the gradient of a filter takes than that of an image: it lays the image's patches out first."""

_OTHERWISE = SAME | FROM_VARIABLE | LISTS | {COPIES_ROWS, "ZerosLike"}
"""What makes other than one buffer for each output."""

_FREE = SAME | FROM_VARIABLE | LISTS | {"Const", "NoOp", "Shape", "ShapeN", "Size", "Rank"}

_events: dict[tuple[int, int, str], tuple[Step, tuple[Event, ...]]] = {}
_MOST_KEPT = 24


@dataclass(frozen=True, slots=True)
class Order:
    """What stays the same of a step at any batch size.

    ``readers`` counts the reads of each operation's outputs, ``waiting`` what each operation that runs waits for, and
    ``after`` lists what waits for it. ``changes`` marks those that copy a variable which is read, ``assigns`` those
    that may give one another chunk, or its first; ``takes_over`` names of each the output that may take over an
    input's buffer; -1: none.
    """

    readers: list[tuple[int, ...]]
    waiting: dict[int, int]
    after: dict[int, list[int]]
    changes: list[bool]
    assigns: list[bool]
    takes_over: list[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """What running a step needs to know of it.

    ``makes`` gives the bytes of each operation's outputs where each has a buffer of its own, but for what it may take
    over of an input; none where all are empty, None where it hands on others' or makes more than one. ``cycles``
    guesses how long each takes. ``takes`` marks those that may make a buffer, ``lets_go`` those that may read one.
    """

    order: Order
    makes: list[tuple[int | None, ...] | None]
    cycles: list[int]
    takes: list[bool]
    lets_go: list[bool]


_plans: dict[int, tuple[Step, Plan]] = {}
_MOST_PLANS = 16
_orders: list[tuple[Step, Order]] = []
_MOST_ORDERS = 4


def plan_of(step: Step) -> Plan:
    """Give the plan of a step; the same step is read once."""
    known = _plans.get(id(step))
    if known is not None and known[0] is step:
        return known[1]
    if len(_plans) >= _MOST_PLANS:
        _plans.clear()
    plan = _plan(step)
    _plans[id(step)] = (step, plan)
    return plan


def _plan(step: Step) -> Plan:
    order, makes = _order_of(step), [_makes(node) for node in step.nodes]
    takes = [made != () or changes or assigns for made, changes, assigns in zip(makes, order.changes, order.assigns)]
    lets_go = [any(makes[source] != () for source, _ in node.inputs) for node in step.nodes]
    return Plan(order, makes, [_cycles(step, node) for node in step.nodes], takes, lets_go)


def _order_of(step: Step) -> Order:
    """Give what a step has in common with itself at other batch sizes, which is found once."""
    for other, order in _orders:
        if _are_alike(step, other):
            return order
    order = _order(step)
    _orders.insert(0, (step, order))
    del _orders[_MOST_ORDERS:]
    return order


def _are_alike(step: Step, other: Step) -> bool:
    """Tell whether two steps are the same but for the sizes of their tensors, one having been made of the other."""
    return (
        step.results is other.results
        and len(step.nodes) == len(other.nodes)
        and all(
            a is b or (a.inputs is b.inputs and a.after is b.after and a.kind == b.kind)
            for a, b in zip(step.nodes, other.nodes)
        )
    )


def _order(step: Step) -> Order:
    needed = needed_in(step)
    waiting: dict[int, int] = {}
    after: dict[int, list[int]] = {}
    readers = [[0] * len(node.outputs) for node in step.nodes]
    for at, node in enumerate(step.nodes):
        if needed[at]:
            earlier = {source for source, _ in node.inputs} | {c for c in node.after if needed[c]}
            waiting[at] = len(earlier)
            for one in earlier:
                after.setdefault(one, []).append(at)
            for source, output in node.inputs:
                readers[source][output] += 1
    for source, output in step.results:
        readers[source][output] += 1
    return Order(
        [tuple(counts) for counts in readers],
        waiting,
        after,
        [copies_what_is_read(node.kind) for node in step.nodes],
        [node.kind in ASSIGNING and len(node.inputs) > 1 for node in step.nodes],
        [FORWARDS.get(node.kind, 0) if node.kind in IN_PLACE else -1 for node in step.nodes],
    )


def _makes(node: Node) -> tuple[int | None, ...] | None:
    if node.kind in FROM_VARIABLE and node.kind != "ReadVariableOp":
        return ()
    if node.kind in _OTHERWISE or node.body is not None or max(node.shares, default=-1) >= 0:
        return None
    sizes = tuple([tensor.bytes for tensor in node.outputs])
    return sizes if any(size != 0 for size in sizes) else ()


def needed_in(step: Step) -> list[bool]:
    """Mark the operations that run: those that a result or a side effect needs."""
    needed = [False] * len(step.nodes)
    waiting = [node for node, _ in step.results]
    waiting += [i for i, node in enumerate(step.nodes) if has_effect(node.kind)]
    while waiting:
        at = waiting.pop()
        if not needed[at]:
            needed[at] = True
            node = step.nodes[at]
            waiting += [source for source, _ in node.inputs]
            waiting += node.after
    return needed


def events_of(step: Step, threads: int, way: str = WAYS[0]) -> tuple[Event, ...]:
    """Give the beginnings and ends of a step's operations, in the order in which they come; the same step once.

    Parameters
    ----------
    step : Step
        The step.
    threads : int
        How many operations may run at once.
    way : str
        One of :data:`WAYS`.
    """
    key = id(step), threads, way
    known = _events.get(key)
    if known is None or known[0] is not step:
        if len(_events) >= _MOST_KEPT:
            _events.clear()
        known = _events[key] = (step, tuple(_Run(step, max(threads, 1), way).events()))
    return known[1]


class Ready:
    """Which of some operations of a step could begin, as the step runs.

    Parameters
    ----------
    step : Step
        The step.
    among : collection of int
        The operations that are asked about.
    """

    def __init__(self, step: Step, among: Collection[int]) -> None:
        plan = plan_of(step).order
        self._waiting = {at: plan.waiting[at] for at in among if at in plan.waiting}
        self._after: dict[int, list[int]] = {}
        for at in self._waiting:
            node = step.nodes[at]
            for one in {source for source, _ in node.inputs} | {c for c in node.after if c in plan.waiting}:
                self._after.setdefault(one, []).append(at)
        self.now = {at for at, count in self._waiting.items() if not count}

    def begin(self, at: int) -> None:
        """Take note that an operation begins."""
        self.now.discard(at)

    def end(self, at: int) -> None:
        """Take note that an operation ends: what waited for it alone could begin."""
        for one in self._after.get(at, ()):
            self._waiting[one] -= 1
            if not self._waiting[one]:
                self.now.add(one)

    def largest(self, needs: Mapping[int, int]) -> int:
        """Give the one of them that needs most; -1: there is none."""
        return max(self.now, key=needs.__getitem__) if self.now else -1


class _Run:
    """A run of a step by some threads."""

    def __init__(self, step: Step, threads: int, way: str) -> None:
        plan = plan_of(step)
        self.step, self.threads, self.way = step, threads, way
        order = plan.order
        self.after, self.waiting, self.cycles = order.after, dict(order.waiting), plan.cycles
        self.inline: list[deque[int]] = [deque() for _ in range(threads)]
        self.queues: list[deque[int]] = [deque() for _ in range(threads)]
        for i, at in enumerate(at for at, count in order.waiting.items() if not count):
            self.queues[0 if way == "oldest first" else i % threads].append(at)

    def events(self) -> list[Event]:
        """Run it."""
        found: list[Event] = []
        running: list[tuple[int, int, int, int]] = []
        idle = list(range(self.threads))
        clock = made = 0
        while True:
            for thread in list(idle):
                at = self._next(thread)
                if at is not None:
                    idle.remove(thread)
                    made += 1
                    found.append((at, True))
                    heapq.heappush(running, (clock + self.cycles[at], made, thread, at))
            if not running:
                return found
            clock, _, thread, at = heapq.heappop(running)
            found.append((at, False))
            self._ready(thread, at)
            # The thread that ended goes on before another takes what it has made ready.
            idle.insert(0, thread)

    def _next(self, thread: int) -> int | None:
        if self.inline[thread]:
            return self.inline[thread].popleft()
        if self.queues[thread]:
            return self.queues[thread].popleft()
        for other in range(1, self.threads):
            queue = self.queues[(thread + other) % self.threads]
            if queue:
                return queue.popleft() if self.way == "oldest first" else queue.pop()
        return None

    def _ready(self, thread: int, at: int) -> None:
        inline, expensive = self.inline[thread], []
        for one in self.after.get(at, ()):
            self.waiting[one] -= 1
            if self.waiting[one]:
                continue
            if self.cycles[one] < EXPENSIVE:
                inline.append(one)
            else:
                expensive.append(one)
        if self.way == "oldest first":
            # All wait in one queue, the oldest in front.
            self.queues[0].extend(expensive)
            return
        if expensive and not inline:
            inline.append(expensive.pop(0 if self.way == "keeps first" else -1))
        self.queues[thread].extendleft(expensive)


def _cycles(step: Step, node: Node) -> int:
    """Guess how long an operation takes."""
    kind = node.kind
    if kind in _FREE:
        return 0
    if node.body is not None:
        return max(node.trips, 1) * sum(_cycles(step.bodies[node.body], one) for one in step.bodies[node.body].nodes)
    given = [step.nodes[source].outputs[output].shape or () for source, output in node.inputs]
    made = [tensor.shape or () for tensor in node.outputs]
    products = 0
    if "MatMul" in kind and len(given) > 1 and made:
        products = _product(given[0], given[1], made[0])
    elif "Conv" in kind and len(given) > 1 and made:
        products = _convolution(kind, given, made[0])
    return max(2 * products // _FLOPS, sum(map(prod, made)) + sum(map(prod, given)))


def _product(first: tuple[int, ...], second: tuple[int, ...], out: tuple[int, ...]) -> int:
    """Count the multiplications in a product of matrices, or of a batch of them, from their sizes."""
    # Of m * k, k * n and m * n numbers the square root of all three is m * n * k.
    return isqrt(prod(first) * prod(second) * prod(out) // max(prod(out[:-2]), 1))


def _convolution(kind: str, given: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
    """Count the multiplications in a convolution or in one of its gradients."""
    is_gradient = "Backprop" in kind and len(given) > 2
    kernel = out if "BackpropFilter" in kind else given[1]
    image = given[2] if is_gradient else out
    products = prod(image) * prod(kernel[:-2] if "Depthwise" in kind else kernel[:-1])
    return products * _FILTER if "BackpropFilter" in kind else products
