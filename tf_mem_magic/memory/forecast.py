"""The peak of a step, from its operations: tensors alive, kernels' temporaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.step import Processor, Step
from tf_mem_magic.memory.temporaries import temporaries_of
from tf_mem_magic.memory.walk import Walk, follow

RUNNING = ("ready", "last")
"""Orders of execution between which the runtime's lies: what became ready first, and last (:mod:`.walk`)."""

ABOVE = 1.2
"""How far measured peaks lie above what tensors alone tell, at most, on a CPU with two cores: chunks are larger than
what is asked for, and several operations run at once."""

BESIDE = 0.5
"""The share of a second kernel's temporaries that is there at the least: two run at once more often than not."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that a step holds: ``low`` to ``high`` bytes over the orders of execution, and where."""

    low: int
    high: int
    at: str = ""


def peak_of(step: Step, processor: Processor | None = None) -> Peak:
    """Give the most bytes that a step holds at once.

    ``low``: as the operations say, a second kernel's temporaries counted in part. ``high``: those of two kernels, and
    tensors as much larger as they were measured to be at most.

    Parameters
    ----------
    step : Step
        The step at the batch size that is asked about.
    processor : Processor, optional
        The processor that runs it, by which TensorFlow's kernels on the CPU size their temporaries; None: it runs on
        another device.
    """
    low = min(_peak(step, order, processor, 1.0, BESIDE) for order in RUNNING)
    high = max(_peak(step, order, processor, ABOVE, 1.0) for order in RUNNING)
    return Peak(low[0], high[0], high[1])


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

    def held(self, above: float, share: float) -> int:
        """Give the bytes with tensors ``above`` times as large, and a ``share`` of what could run beside."""
        return int(self.tensors * above) + self.own + int(self.beside * share)


def moments(step: Step, order: str, processor: Processor | None = None) -> Iterator[Moment]:
    """Yield what is held as each operation runs, in one order of execution."""
    walk = Walk(step, order)
    temporaries = temporaries_of(step, processor)
    for at in walk.run():
        if step.nodes[at].body is not None:
            yield Moment(at, walk.bytes + loop_peak(step, at, processor))
        elif at in temporaries:
            # What is ready may run beside it.
            beside = max((temporaries.get(one, 0) for one in walk.ready), default=0)
            yield Moment(at, walk.bytes, temporaries[at], beside)
        else:
            yield Moment(at, walk.bytes)


def _peak(
    step: Step, order: str, processor: Processor | None, above: float = 1.0, beside: float = 0.0
) -> tuple[int, str]:
    """Find the peak in one order: tensors ``above`` times as large, and ``beside`` of a second kernel's temporaries."""
    best, where = 0, ""
    for moment in moments(step, order, processor):
        held = moment.held(above, beside)
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
    return max(_peak(body, "first", processor)[0] - state, 0)


def held_at_peak(step: Step, processor: Processor | None = None) -> dict[str, int]:
    """Give what is alive at the step's peak, bytes by the operation that made them."""
    _, where = _peak(step, RUNNING[0], processor)
    walk = Walk(step, RUNNING[0])
    for at in walk.run():
        if step.nodes[at].name == where:
            held: dict[str, int] = {}
            for buffer in walk.alive.values():
                name = step.nodes[buffer.node].name
                held[name] = held.get(name, 0) + buffer.size * buffer.count
            return held
    return {}
