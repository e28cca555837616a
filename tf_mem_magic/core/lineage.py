"""Lineage: the runs of one cell that remedies led from one to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tf_mem_magic.core.outcome import Attempt, Outcome
from tf_mem_magic.core.proposals import Point, Proposal
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.tag import find_tag

SAME_START = 0.05
"""Share of the peak by which two runs of a cell may differ at their start and still be compared."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The finished runs of a cell, oldest first, and the proposal that led to each but the first.

    ``proposals[i]`` led from ``outcomes[i]`` to ``outcomes[i + 1]``; while a rerun is under way there are as many
    proposals as outcomes.
    """

    outcomes: tuple[Outcome, ...] = ()
    proposals: tuple[Proposal, ...] = ()

    @property
    def last(self) -> Outcome | None:
        """The newest finished run."""
        return self.outcomes[-1] if self.outcomes else None

    @property
    def applied(self) -> Proposal | None:
        """The proposal whose rerun is under way or was the last to finish."""
        return self.proposals[-1] if self.proposals else None

    def applying(self, proposal: Proposal) -> Lineage:
        """Note that ``proposal`` is about to run."""
        return replace(self, proposals=(*self.proposals[: max(len(self.outcomes) - 1, 0)], proposal))

    def finished(self, outcome: Outcome) -> Lineage:
        """Note that a run ended."""
        return replace(self, outcomes=(*self.outcomes, outcome))

    @property
    def effective(self) -> tuple[Proposal, ...]:
        """The proposals that the cell of the newest run holds: those before one that was tried instead are gone."""
        newest_first = reversed(self.proposals)
        kept: list[Proposal] = []
        for proposal in newest_first:
            kept.append(proposal)
            if proposal.instead_of:
                break
        return tuple(reversed(kept))

    def beside(self, proposal: Proposal | None) -> Outcome | None:
        """Give the run that a rerun with ``proposal`` is compared with: the newest of the code it was made from."""
        made_from = proposal.original.rstrip() if proposal else None
        same = (o for o in reversed(self.outcomes) if o.recording.cell.source.rstrip() == made_from)
        return next(same, self.last)

    @property
    def points(self) -> tuple[Point, ...]:
        """The measured points of earlier runs: batch, peak in bytes, and whether it fitted."""
        return tuple(p for o in self.outcomes if (p := point_of(o)) is not None)

    @property
    def history(self) -> tuple[Attempt, ...]:
        """The runs as short words: ``256 ✗ → 128 ✓``."""
        return tuple(attempt_of(o, i, self.proposals) for i, o in enumerate(self.outcomes))


def point_of(outcome: Outcome) -> Point | None:
    """Give what a run measured about its batch size; None where its batch was not observed."""
    recording = outcome.recording
    batch = batch_seen(recording)
    series = recording.main
    if batch is None or series is None or series.peak is None or series.peak_basis != "counter":
        return None
    if recording.status not in ("ok", "oom"):
        return None
    return Point(batch, series.peak, recording.status == "ok")


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured point, and on what: the cell with its batch size blanked, its models, the bytes in use before it.

    ``before`` is what a rerun would start from: without the garbage that was in use when the run began. ``stayed``:
    of what was in use when the run began, the bytes that stayed in use, as far as samples tell: so much of the peak
    was not the cell's own.
    """

    point: Point
    cell: str
    models: tuple[tuple[str, int], ...]
    before: int
    builds: bool
    stayed: int

    def beside(self, other: Measured) -> Point | None:
        """Give the point as it would be from the start of ``other``; None where more than the batch size differs.

        A cell that builds its models needs the same wherever it starts from. One that trains a model of an earlier
        cell must start from the same: its optimizer makes its variables in the first step.
        """
        if (self.cell, self.models, self.builds) != (other.cell, other.models, other.builds):
            return None
        shift = other.before - self.stayed
        if not self.builds and abs(shift) > SAME_START * min(self.point.peak, other.point.peak):
            return None
        return replace(self.point, peak=self.point.peak + shift)


def measured_of(outcome: Outcome) -> Measured | None:
    """Give what a run measured about its batch size, and on what; None as :func:`point_of`."""
    point, recording = point_of(outcome), outcome.recording
    if point is None or recording.main is None:
        return None
    named = [m for m in recording.facts.models if not m.local]
    models = tuple(sorted((m.name, m.weight_bytes) for m in named))
    untagged = [line for line in recording.cell.source.strip().splitlines(keepends=True) if find_tag(line) is None]
    blanked = re.sub(rf"(?<![\w.]){point.batch}(?![\w.])", "□", "".join(untagged))
    builds = bool(named) and all(m.is_new for m in named)
    name = recording.main.name
    begun = dict(recording.before).get(name, 0)
    start = begun - dict(recording.garbage).get(name, 0)
    return Measured(point, blanked, models, start, builds, min((begun, *recording.main.values)))


def batch_seen(recording: Recording, method: str = "fit") -> int | None:
    """Give the batch size that ``fit`` really used; None where nobody saw it, or where it saw several."""
    seen = {b.batch for b in recording.facts.batches if b.method == method}
    return seen.pop() if len(seen) == 1 else None


def attempt_of(outcome: Outcome, index: int, proposals: tuple[Proposal, ...]) -> Attempt:
    """Give one run as an entry of the history."""
    recording = outcome.recording
    batch = batch_seen(recording)
    if index and index <= len(proposals) and (proposals[index - 1].key != "smaller-batch" or batch is None):
        label = proposals[index - 1].title
    else:
        label = str(batch) if batch is not None else "first run"
    series = recording.main
    return Attempt(label, recording.status, series.peak if series else None, recording.seconds)
