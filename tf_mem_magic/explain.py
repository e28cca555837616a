"""Explain a recording: diagnosis, remedies, what the run already changed, before and after. Pure."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core import troubles
from tf_mem_magic.core.lineage import Lineage, Measured, measured_of
from tf_mem_magic.core.outcome import Change, Outcome
from tf_mem_magic.core.proposals import Answer, Choice, Context, Declined, Proposal
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.diagnose.breakdown import deployable
from tf_mem_magic.diagnose.cause import diagnose, last_seen
from tf_mem_magic.diagnose.comparison import compare
from tf_mem_magic.diagnose.notices import LEFT_BEHIND, caught, next_run, retraced, threaded, unnamed
from tf_mem_magic.diagnose.places import at_top_level
from tf_mem_magic.notebook.rerun.again import choices_again
from tf_mem_magic.notebook.rerun.changes import find_changes
from tf_mem_magic.remedies._engine.combine import changed_context
from tf_mem_magic.remedies._engine.ranking import combine, propose_after_fit, propose_after_success, propose_all

LITTLE_KNOWN = "What the notebook's names held is not known, because the kernel died so early: nothing is offered."

AFTER_XLA = "After an out-of-memory under XLA, training again in the same kernel can end it: a restart is safer."


def explain(
    recording: Recording,
    lineage: Lineage | None = None,
    notices: tuple[str, ...] = (),
    measured: tuple[Measured, ...] = (),
    deploys: bool = True,
    previous: Recording | None = None,
) -> Outcome:
    """Say what happened in a run, why, and what can be done.

    ``lineage`` holds the earlier runs where a remedy led to this one, its proposal included; ``measured`` what other
    runs of the notebook measured: those that differed in nothing but the batch size are points for an estimate.
    ``previous`` is the run of the same cell before this one, where nothing was changed between them.
    ``deploys``: after a run that went well, offer to make its model smaller; not where a remedy wrote the cell itself.
    """
    lineage, since = lineage or Lineage(), troubles.mark()
    outcome = Outcome(recording, diagnose(recording), notices=notices, leftovers=leftovers(recording))
    answers: Answer = ()
    if outcome.diagnosis is None and (seen := last_seen(recording)):
        outcome = replace(outcome, notices=(*notices, f"When it was last seen: {seen}"))
    outcome = replace(outcome, notices=(*outcome.notices, *retraced(recording), *threaded(recording)))
    outcome = replace(outcome, notices=(*outcome.notices, *next_run(outcome, previous), *unnamed(recording)))
    if recording.caught:
        outcome = replace(outcome, notices=(*outcome.notices, caught(recording)))
    if recording.status == "killed" and recording.facts.partial:
        outcome = replace(outcome, notices=(*outcome.notices, LITTLE_KNOWN))
    elif recording.status in ("oom", "killed"):
        answers = propose_all(context_of(outcome, lineage, measured))
    elif recording.status == "ok" and deploys and not recording.caught and deployable(recording):
        answers = propose_after_success(context_of(outcome, lineage, measured))
    outcome = replace(
        outcome,
        offered=tuple(_completed(a, outcome) for a in answers if isinstance(a, Proposal)),
        declined=tuple(_reachable(a, outcome) for a in answers if isinstance(a, Declined)),
    )
    outcome = _going_on(outcome, lineage, measured)
    if recording.status != "ok" or outcome.further:
        outcome = replace(outcome, changes=_changes(recording))
    before = lineage.beside(lineage.applied)
    if before is not None:
        outcome = replace(outcome, comparison=compare(before, outcome, lineage.applied))
    outcome = replace(outcome, notices=(*outcome.notices, *troubles.since(since)))
    return replace(outcome, history=lineage.finished(outcome).history if lineage.outcomes else ())


def _changes(recording: Recording) -> tuple[Change, ...]:
    """List what the run left behind; an error of ours there leaves the rest of the report as it is, and a note."""
    try:
        return find_changes(recording.cell.source, recording.facts, reached(recording))
    except Exception as error:
        troubles.note("what the run already changed could not be told", error)
        return ()


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
    about, instead_of = outcome, ""
    if outcome.recording.status in ("error", "interrupted"):
        # What is offered there is of the run that ran out, in place of the change that failed.
        about, instead_of = _full(lineage or Lineage()) or outcome, outcome.recording.cell.source
    context = replace(context_of(about, lineage or Lineage(), measured), picked=picked)
    answer = combine(context, keys)
    if isinstance(answer, Declined):
        return _reachable(answer, outcome)
    return replace(_completed(answer, outcome), instead_of=instead_of)


def context_of(outcome: Outcome, lineage: Lineage, measured: tuple[Measured, ...] = ()) -> Context:
    """Give what the remedies are asked with about a run; ``lineage`` and ``measured`` hold the measured points."""
    recording = outcome.recording
    this = measured_of(outcome)
    others = [point for m in measured if this is not None and (point := m.beside(this)) is not None]
    own = [this.point] if this is not None else []
    points = tuple(dict.fromkeys((*others, *lineage.points, *own)))
    return Context(recording.cell, recording, outcome.diagnosis, points)


def _going_on(outcome: Outcome, lineage: Lineage, measured: tuple[Measured, ...]) -> Outcome:
    """Add what else can be done after a rerun: where it failed for another reason, and where it fitted."""
    status, before = outcome.recording.status, _with_changes(lineage)
    if before is None:
        return outcome
    if status in ("error", "interrupted"):
        return replace(outcome, offered=untried(outcome, before), declined=_retold(outcome, before))
    if status == "ok":
        on_top = (_completed(p, outcome) for p in more_room(outcome, lineage, measured))
        found = {p.source: p for p in (*after_fit(outcome, lineage), *untried(outcome, before), *on_top) if not p.picks}
        return replace(outcome, further=tuple(sorted(found.values(), key=lambda p: bool(p.instead_of))))
    return outcome


def after_fit(outcome: Outcome, lineage: Lineage) -> tuple[Proposal, ...]:
    """Offer what the change that fitted leaves room for, such as a step back up after a smaller batch."""
    full, applied = _full(lineage), lineage.applied
    if full is None or applied is None:
        return ()
    try:
        found = propose_after_fit(applied.key, context_of(full, Lineage()), outcome.recording)
    except Exception as error:
        troubles.note("what there is room for now could not be told", error)
        return ()
    return tuple(replace(one, choices=_choices_again(one, outcome)) for one in found)


def _with_changes(lineage: Lineage) -> Outcome | None:
    """Find the newest run that had changes to offer; None where no remedy led to this one."""
    return next((o for o in reversed(lineage.outcomes) if o.edits or o.further), None) if lineage.applied else None


def untried(outcome: Outcome, before: Outcome) -> tuple[Proposal, ...]:
    """Give the changes that the run ``before`` offered, each in place of the one that this rerun tried.

    They are made from the cell as it was then; the cell as it is now is what they replace.
    """
    now = outcome.recording.cell.source
    options = (p for p in (*before.edits, *before.further) if p.takes_effect == "rerun")
    return tuple(
        replace(p, instead_of=now, answers_cause=False, choices=_chosen_anew(p, before, outcome))
        for p in options
        if now.rstrip() not in (source.rstrip() for source in (p.source, *(c.source for c in p.choices)))
    )


def _retold(outcome: Outcome, before: Outcome) -> tuple[Declined, ...]:
    """Give what the run ``before`` declined; what can be had under other settings replaces the cell as it is now."""
    now = outcome.recording.cell.source
    return tuple(
        replace(d, settings=replace(d.settings, instead_of=now)) if d.settings is not None else d
        for d in before.declined
    )


def _chosen_anew(proposal: Proposal, before: Outcome, now: Outcome) -> tuple[Choice, ...]:
    """Give a proposal's further choices as they are now: how to go on depends on the steps that were taken since."""
    old = choices_again(proposal.source, before.recording.facts)
    return (*(c for c in proposal.choices if c not in old), *choices_again(proposal.source, now.recording.facts))


def more_room(outcome: Outcome, lineage: Lineage, measured: tuple[Measured, ...]) -> tuple[Proposal, ...]:
    """Ask the remedies about a cell that one of them made fit: what would leave more room, on top of it.

    They are told of the run that ran out as if it had run the cell as it is now.
    """
    full, applied, recording = _full(lineage), lineage.applied, outcome.recording
    if full is None or applied is None:
        return ()
    context = changed_context(context_of(full, Lineage()), replace(applied, source=recording.cell.source))
    if isinstance(context, str) or context.diagnosis is None:
        return ()
    then = context.recording
    told = replace(recording, status="oom", errors=then.errors, dumps=then.dumps, stderr=then.stderr)
    points = context_of(outcome, lineage, measured).points
    # What was asked for at once belongs to the cell as it was.
    answers = propose_all(Context(recording.cell, told, replace(context.diagnosis, requested=None), points))
    return tuple(
        replace(p, answers_cause=False)
        for p in answers
        if isinstance(p, Proposal) and p.takes_effect == "rerun" and not p.new_cell
    )


def _full(lineage: Lineage) -> Outcome | None:
    """Find the newest run that ran out of memory and is explained."""
    full = (o for o in reversed(lineage.outcomes) if o.recording.status in ("oom", "killed"))
    return next((o for o in full if o.diagnosis is not None), None)


def _completed(proposal: Proposal, outcome: Outcome) -> Proposal:
    """Add what concerns every remedy: how to go on with a model that was trained on, and what XLA leaves behind."""
    here = any(c.source == proposal.source and c.takes_effect == "rerun" for c in proposal.choices)
    if proposal.new_cell or (proposal.takes_effect == "restart" and not here):
        return proposal
    choices = (*proposal.choices, *_choices_again(proposal, outcome))
    if proposal.takes_effect == "restart":
        return replace(proposal, choices=choices)
    if outcome.diagnosis is None or not outcome.diagnosis.jit:
        return replace(proposal, choices=choices)
    return replace(
        proposal,
        takes_effect="restart",
        choices=(*choices, Choice("Without a restart", proposal.source, AFTER_XLA)),
        caveats=(*proposal.caveats, AFTER_XLA),
    )


def _choices_again(proposal: Proposal, outcome: Outcome) -> tuple[Choice, ...]:
    try:
        return choices_again(proposal.source, outcome.recording.facts)
    except Exception as error:
        troubles.note(f"how to go on after {proposal.title} could not be told", error)
        return ()


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
    models = (m for m in facts.models if m.is_new and not m.local and m.device == device)
    named += [(m.name, m.weight_bytes - m.earlier_bytes + m.optimizer_bytes) for m in models]
    return tuple(sorted(((n, b) for n, b in named if b >= LEFT_BEHIND), key=lambda entry: -entry[1]))
