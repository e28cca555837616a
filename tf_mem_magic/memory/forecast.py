"""The peak of a step, from its operations: tensors alive, kernels' temporaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tf_mem_magic.core.step import Processor, Step
from tf_mem_magic.memory.executor import WAYS, Event, events_of
from tf_mem_magic.memory.loops import follow
from tf_mem_magic.memory.temporaries import temporaries_of
from tf_mem_magic.memory.walk import Walk

RUNNING = ("ready", "last")
"""Orders of execution between which the runtime's lies: what became ready first, and last (:mod:`.walk`)."""


AT_ONCE = 32
"""Rounds of a loop that run at once, at the most (``parallel_iterations`` of Keras's loops)."""

BESIDE = 0.5
"""The share of a second kernel's temporaries that is there at the least: two run at once more often than not."""


COMPUTED_AT_ONCE = 4
"""Values as large as the largest weight that an optimizer computes at one time, at the most: two for each of two
weights, measured with Adam, RMSprop and SGD (``tests/diagnose/test_sums_live.py``)."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that a step holds: ``low`` to ``high`` bytes over the orders of execution, and where."""

    low: int
    high: int
    at: str = ""


def peak_of(step: Step, processor: Processor | None = None) -> Peak:
    """Give the most bytes that a step holds at once, by its operations: chunks may be larger than what is asked for.

    On a processor it is that in the middle of the ways in which the executor may run it. Elsewhere
    ``low`` and ``high`` are those of the orders between which the real one lies, a second kernel's temporaries counted
    in part and as a whole.

    Parameters
    ----------
    step : Step
        The step at the batch size that is asked about.
    processor : Processor, optional
        The processor that runs it, by which TensorFlow's kernels on the CPU size their temporaries; None: it runs on
        another device.
    """
    peaks = sorted(_peak(step, order, processor, 1.0) for order in orders(processor))
    if processor is not None:
        middle = peaks[len(peaks) // 2]
        return Peak(middle[0], middle[0], middle[1])
    low = min(_peak(step, order, processor, BESIDE) for order in RUNNING)
    return Peak(low[0], peaks[-1][0], peaks[-1][1])


@dataclass(frozen=True, slots=True)
class Moment:
    """What a step holds while operation ``at`` runs, in bytes.

    ``tensors``: all that is alive. ``own``: temporaries of the operation. ``beside``: those of the largest that could
    run beside it.
    """

    at: int
    tensors: int
    own: int = 0
    beside: int = 0

    def held(self, share: float = 1.0) -> int:
        """Give the bytes with a ``share`` of what could run beside."""
        return self.tensors + self.own + int(self.beside * share)


def orders(processor: Processor | None) -> tuple[str, ...]:
    """Name the orders of execution that are looked at: of the runtime on a processor, or of a walk."""
    return RUNNING if processor is None else WAYS


def moments(
    step: Step, order: str, processor: Processor | None = None, events: Sequence[Event] | None = None
) -> Iterator[Moment]:
    """Yield what is held as each operation runs, in one order of execution.

    ``events``: those of the executor where they are not the step's own, but of the same step at another batch size.
    """
    if processor is not None and (events is not None or order in WAYS):
        yield from _executed(step, processor, events or events_of(step, processor.threads, order))
        return
    walk, temporaries = Walk(step, order), temporaries_of(step, processor)
    for at in walk.run():
        if step.nodes[at].body is not None:
            yield Moment(at, walk.bytes + loop_peak(step, at, processor))
        elif at in temporaries:
            # What is ready may run beside it.
            beside = max((temporaries.get(one, 0) for one in walk.ready), default=0)
            yield Moment(at, walk.bytes, temporaries[at], beside)
        else:
            yield Moment(at, walk.bytes)


def own_of(step: Step, processor: Processor) -> dict[int, int]:
    """Give what operations need while they run: the temporaries of kernels, and one round of a loop's body."""
    loops = {at: loop_peak(step, at, processor) for at, node in enumerate(step.nodes) if node.body is not None}
    # The rounds of loops that wait for others' results run ahead in what does not.
    further = 0
    for at in reversed(loops):
        further += made_ahead(step, at)
        loops[at] += further
    return {at: size for at, size in {**temporaries_of(step, processor), **loops}.items() if size}


def made_ahead(step: Step, at: int) -> int:
    """Give the bytes of the zeros that a loop makes in rounds ahead of the one that waits for something.

    TensorFlow runs several rounds at once; the zeros that a gradient's lists begin with wait for nothing.
    """
    node = step.nodes[at]
    if node.body is None:
        return 0
    zeros = (one.outputs[0].bytes or 0 for one in step.bodies[node.body].nodes if one.kind == "Fill")
    return max(min(node.trips, AT_ONCE) - 1, 0) * sum(zeros)


def _executed(step: Step, processor: Processor, events: Sequence[Event]) -> Iterator[Moment]:
    """Yield what is held as each operation begins, several of them running."""
    walk, running, own = Walk(step), 0, own_of(step, processor)
    for at, begins in events:
        if begins:
            walk.begin(at)
            running += own.get(at, 0)
            yield Moment(at, walk.bytes, running)
        else:
            running -= own.get(at, 0)
            walk.end(at)


def _peak(step: Step, order: str, processor: Processor | None, beside: float = 0.0) -> tuple[int, str]:
    """Find the peak in one order, with ``beside`` of a second kernel's temporaries."""
    best, where = 0, ""
    for moment in moments(step, order, processor):
        held = moment.held(beside)
        if held > best:
            best, where = held, step.nodes[moment.at].name
    return best, where


def loop_peak(step: Step, at: int, processor: Processor | None) -> int:
    """Bytes that the body of a loop holds at once in one round, beside what the loop leaves."""
    node = step.nodes[at]
    assert node.body is not None
    body = step.bodies[node.body]
    state = 0
    for output, tensor in enumerate(node.outputs):
        if output < len(body.results) and not tensor.count:
            kept, _ = follow(body, body.results[output])
            state += 0 if kept == output else tensor.bytes or 0
    # Operations of one round run at once as others do.
    ways = ("first",) if processor is None else ("first", *WAYS)
    return max(max(_peak(body, way, processor)[0] for way in ways) - state, 0)


def zeros_of(sums: Iterable[int]) -> int:
    """Give the bytes of the zeros with which Keras clears sums of gradients.

    The graph optimizer makes constants of them, one for all sums of one shape, which lie in memory as long as the
    training's function does.
    """
    return sum(set(sums))


def updating_from_sums(weights: list[int]) -> tuple[int, int]:
    """Give what an update from summed gradients takes beside the variables, at the least and at the most, in bytes.

    Keras updates ``weights`` under a condition, which holds the gradients of all of them until it is done; their means
    come beside them, one after the other or all of them, and so do what an optimizer computes of the largest ones.
    """
    whole, largest = sum(weights), max(weights, default=0)
    return whole + largest, 2 * whole + min(COMPUTED_AT_ONCE * largest, 2 * whole)
