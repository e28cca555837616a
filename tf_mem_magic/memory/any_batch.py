"""The peak of a step at any batch size, from two: each moment's bytes lie on a line through both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tf_mem_magic.core.step import Processor, Step
from tf_mem_magic.memory.executor import events_of
from tf_mem_magic.memory.forecast import BESIDE, Peak, moments, orders


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes of one moment at any batch size: ``at`` those of the batch that was walked, and more with each sample."""

    at: int
    slope: float


@dataclass(frozen=True, slots=True)
class AnyBatch:
    """The most that a step holds, at any batch size: the moments that can be the peak, in each order of execution.

    ``one_peak``: that in the middle of all orders counts, as :func:`peak_of` has it on a processor.
    """

    batch: int
    lower: tuple[tuple[Line, ...], ...]
    upper: tuple[tuple[Line, ...], ...]
    one_peak: bool = False

    def peak(self, batch: int) -> Peak:
        """Give the peak at a batch size, bounded as :func:`peak_of` does."""
        peaks = sorted(_highest(lines, batch - self.batch) for lines in self.upper)
        if self.one_peak:
            middle = peaks[len(peaks) // 2]
            return Peak(middle, middle)
        low = min(_highest(lines, batch - self.batch) for lines in self.lower)
        return Peak(low, max(low, peaks[-1]))


def any_batch(steps: Sequence[Step], batch: int, other: int, processor: Processor | None = None) -> AnyBatch:
    """Walk through a step at two batch sizes.

    Parameters
    ----------
    steps : sequence of Step
        The step at ``batch``, and at ``other``.
    batch, other : int
        Two batch sizes.
    processor : Processor, optional
        As for :func:`peak_of`.

    Raises
    ------
    ValueError
        If the two are not the same operations.
    """
    first, second = steps[0], steps[1]
    alike = [node.kind for node in first.nodes] == [node.kind for node in second.nodes]
    if not alike or batch == other:
        raise ValueError("the step has other operations at another batch size")

    lower: list[tuple[Line, ...]] = []
    upper: list[tuple[Line, ...]] = []
    for order in orders(processor):
        events = events_of(first, processor.threads, order) if processor is not None else None
        pairs = list(zip(moments(first, order, processor, events), moments(second, order, processor, events)))
        for found, beside in ((lower, BESIDE), (upper, 1.0)):
            held = ((one.held(beside), two.held(beside)) for one, two in pairs)
            found.append(_outermost([Line(a, (a - b) / (batch - other)) for a, b in held], batch))
    return AnyBatch(batch, tuple(lower), tuple(upper), processor is not None)


def _highest(lines: Sequence[Line], more: int) -> int:
    return max((int(line.at + line.slope * more) for line in lines), default=0)


def _outermost(lines: Sequence[Line], batch: int) -> tuple[Line, ...]:
    """Keep the lines that are the highest at some batch size: a step has thousands of moments, few can be its peak."""
    kept = []
    more: float = 1 - batch
    while lines:
        best = max(lines, key=lambda line: (line.at + line.slope * more, line.slope))
        kept.append(best)
        # Where a steeper line first overtakes it.
        crossing = [
            (more + (best.at + best.slope * more - line.at - line.slope * more) / (line.slope - best.slope))
            for line in lines
            if line.slope > best.slope
        ]
        if not crossing:
            break
        lines = [line for line in lines if line.slope > best.slope]
        more = min(crossing)
    return tuple(kept)
