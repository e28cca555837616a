"""Explain a recording: diagnosis, remedies, what the run already changed, before and after. Pure."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.cells.again import choices_again
from tf_mem_magic.cells.changes import find_changes
from tf_mem_magic.core.compare import compare
from tf_mem_magic.core.deployable import deployable
from tf_mem_magic.core.diagnose import diagnose
from tf_mem_magic.core.lineage import Lineage, Measured, measured_of
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.places import at_top_level
from tf_mem_magic.core.proposals import Answer, Choice, Context, Declined, Proposal
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.remedies import combine, propose_after_success, propose_all

LEFT_BEHIND = 1 << 20
"""Bytes below which what a run left behind is not worth a word."""


AFTER_XLA = "After an out-of-memory under XLA, training again in the same kernel can end it: a restart is safer."


def explain(
    recording: Recording,
    lineage: Lineage | None = None,
    notices: tuple[str, ...] = (),
    measured: tuple[Measured, ...] = (),
    deploys: bool = True,
) -> Outcome:
    """Say what happened in a run, why, and what can be done.

    ``lineage`` holds the earlier runs where a remedy led to this one, its proposal included; ``measured`` what other
    runs of the notebook measured: those that differed in nothing but the batch size are points for an estimate.
    ``deploys``: after a run that went well, offer to make its model smaller; not where a remedy wrote the cell itself.
    """
    lineage = lineage or Lineage()
    outcome = Outcome(recording, diagnose(recording), notices=notices, leftovers=leftovers(recording))
    answers: Answer = ()
    if recording.status in ("oom", "killed"):
        answers = propose_all(context_of(outcome, lineage, measured))
    elif recording.status == "ok" and deploys and deployable(recording):
        answers = propose_after_success(context_of(outcome, lineage, measured))
    outcome = replace(
        outcome,
        offered=tuple(_completed(a, outcome) for a in answers if isinstance(a, Proposal)),
        declined=tuple(_reachable(a, outcome) for a in answers if isinstance(a, Declined)),
    )
    if recording.status != "ok":
        outcome = replace(outcome, changes=find_changes(recording.cell.source, recording.facts, reached(recording)))
    if lineage.last is not None:
        outcome = replace(outcome, comparison=compare(lineage.last, outcome, lineage.applied))
    return replace(outcome, history=lineage.finished(outcome).history if lineage.outcomes else ())


def combined(
    outcome: Outcome,
    keys: tuple[str, ...],
    lineage: Lineage | None = None,
    measured: tuple[Measured, ...] = (),
    picked: tuple[str, ...] | None = None,
) -> Proposal | Declined:
    """Give one proposal that applies the remedies ``keys`` to the cell of a run that :func:`explain` has explained.

    ``picked`` are the parts that a person has ticked; None: those that the remedies tick themselves.
    """
    context = replace(context_of(outcome, lineage or Lineage(), measured), picked=picked)
    answer = combine(context, keys)
    return _completed(answer, outcome) if isinstance(answer, Proposal) else _reachable(answer, outcome)


def context_of(outcome: Outcome, lineage: Lineage, measured: tuple[Measured, ...] = ()) -> Context:
    """Give what the remedies are asked with about a run; ``lineage`` and ``measured`` hold the measured points."""
    recording = outcome.recording
    this = measured_of(outcome)
    others = [point for m in measured if this is not None and (point := m.beside(this)) is not None]
    own = [this.point] if this is not None else []
    points = tuple(dict.fromkeys((*others, *lineage.points, *own)))
    return Context(recording.cell, recording, outcome.diagnosis, points)


def _completed(proposal: Proposal, outcome: Outcome) -> Proposal:
    """Add what concerns every remedy: how to go on with a model that was trained on, and what XLA leaves behind."""
    if proposal.takes_effect == "restart" or proposal.new_cell:
        return proposal
    choices = (*proposal.choices, *choices_again(proposal.source, outcome.recording.facts))
    if outcome.diagnosis is None or not outcome.diagnosis.jit:
        return replace(proposal, choices=choices)
    return replace(
        proposal,
        takes_effect="restart",
        choices=(*choices, Choice("Without a restart", proposal.source, AFTER_XLA)),
        caveats=(*proposal.caveats, AFTER_XLA),
    )


def _reachable(declined: Declined, outcome: Outcome) -> Declined:
    """Complete what is reachable under other settings."""
    return declined if declined.settings is None else replace(declined, settings=_completed(declined.settings, outcome))


def reached(recording: Recording) -> int | None:
    """Give the cell's line (the first being 1) that failed; None where that is unknown."""
    frames = recording.errors[0].frames if recording.errors else ()
    lines = [frame.line for frame in frames if frame.in_cell and at_top_level(frame)]
    return lines[-1] + dropped_lines(recording.cell.source) if lines else None


def leftovers(recording: Recording) -> tuple[tuple[str, int], ...]:
    """Name what the run left in memory, with bytes, largest first; empty where the memory in use did not grow.

    The names are those the cell made; only memory that the device's own counter confirms is reported.
    """
    series = recording.main
    if series is None:
        return ()
    grown = dict(recording.after).get(series.name, 0) - dict(recording.before).get(series.name, 0)
    if grown < LEFT_BEHIND:
        return ()
    facts, device = recording.facts, series.device
    named = [(v.name, v.bytes) for v in facts.values if v.origin == "cell" and v.device == device]
    named += [(m.name, m.weight_bytes + m.optimizer_bytes) for m in facts.models if m.is_new and m.device == device]
    return tuple(sorted(((n, b) for n, b in named if b >= LEFT_BEHIND), key=lambda entry: -entry[1]))
