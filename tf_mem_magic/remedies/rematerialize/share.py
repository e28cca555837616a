"""How many of a model's blocks to compute again: no more than are expected to be needed for the step to fit."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from tf_mem_magic.core.effects import Effect
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.rematerialize.blocks import Block
from tf_mem_magic.remedies.rematerialize.instances import instances
from tf_mem_magic.remedies.rematerialize.structure import Structure

ALL = "@apply.rematerialize"
"""The decorator with which every instance of a block is computed again."""


@dataclass(frozen=True, slots=True)
class Share:
    """The first ``first`` of the ``of`` blocks of a model; ``of`` 0: how many there are is not known.

    ``effect`` is what computing these again does; None: it is not known.
    """

    first: int = 0
    of: int = 0
    effect: Effect | None = None

    @property
    def is_part(self) -> bool:
        """Whether it is fewer than all."""
        return self.first < self.of

    @property
    def decorator(self) -> str:
        """The line to put above a block's ``call``, or above the function that adds the block."""
        return f"{ALL}(first={self.first}, of={self.of})" if self.is_part else ALL

    def words(self, what: str) -> str:
        """Name the blocks, ``what`` being what the notebook calls them."""
        return f"{self.first} of {self.of} {what}" if self.is_part else what


def share_of(ask: Ask, structure: Structure, blocks: list[Block]) -> Share:
    """Find how many blocks to compute again.

    The blocks that run first are: what they would hold is waited for longest, and when they run again nothing else is
    kept any more. Where not even all are expected to fit for certain, or there are several kinds of blocks, it is all.
    """
    step = ask.recording.facts.step
    found = [instances(block, structure, step) for block in blocks]
    if not all(found):
        return Share()
    groups = tuple(group for one in found for group in one)
    every = Share(len(groups), len(groups), Effect(recompute=groups))
    diagnosis, limit = ask.diagnosis, ask.diagnosis.limit if ask.diagnosis is not None else None
    if len(found) > 1 or diagnosis is None or limit is None:
        return every

    def fits(count: int) -> bool:
        estimate = expected(ask.recording, diagnosis, ask.context.applied.then(Effect(recompute=groups[:count])))
        return estimate is not None and estimate.high <= limit

    # Each answer costs a walk through the step.
    fewest = bisect_left(range(1, len(groups)), True, key=fits) + 1
    return every if fewest == len(groups) else Share(fewest, len(groups), Effect(recompute=groups[:fewest]))
