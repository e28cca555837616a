"""Before and after a remedy: what the rerun showed, in numbers and one sentence."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.lineage import batch_seen
from tf_mem_magic.core.outcome import Comparison, Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Recording, Series
from tf_mem_magic.core.units import Unit, brief_unit, duration, size, size_range
from tf_mem_magic.diagnose.breakdown import HOST
from tf_mem_magic.diagnose.explanation import why_not_free
from tf_mem_magic.report.comparison_words import NO_STEP

NOISE = 0.06
"""Two runs of the same cell differ by up to this share of their peak."""

_FULL = ("oom", "killed")


def compare(before: Outcome, after: Outcome, proposal: Proposal | None) -> Comparison:
    """Set two runs of a cell side by side.

    Parameters
    ----------
    before, after : Outcome
        The two runs. The series compared is that of the device which ran out of memory, else the main one.
    proposal : Proposal or None
        The remedy between them; None where the person changed the cell.
    """
    first = _series(before)
    second = after.recording.get(first.name) if first else after.recording.main
    limit = _limit(before, first, second)
    estimate = proposal.estimate if proposal else None
    values = [limit, first.peak if first else None, second.peak if second else None]
    unit = brief_unit([value for value in values if value is not None])
    checks = tuple(
        (name, value, _seen(name, after.recording)) for name, value in (proposal.expects if proposal else ())
    )
    expected = size_range(estimate.low, estimate.high, unit) if estimate else ""
    title = proposal.title if proposal else "The changed cell"
    sentences = (f"{title}: {_verdict(before, after)}", _numbers(before, after, first, second, limit, unit, expected))
    return Comparison(
        key=proposal.key if proposal else "",
        title=title,
        status_before=before.recording.status,
        status_after=after.recording.status,
        before=first,
        after=second,
        limit=limit,
        expected=expected,
        checks=checks,
        text=" ".join(s for s in (*sentences, *_failed_checks(checks)) if s),
        original=proposal.original if proposal else before.recording.cell.source,
        trained=_trained(before, after),
    )


def _trained(before: Outcome, after: Outcome) -> bool:
    """Tell whether a training that is run again took a step; data that can be read only once may have been used up."""
    was, now = before.recording.facts, after.recording.facts
    if was.epochs_done is None or after.recording.status != "ok":
        return True
    known = [model for model in now.models if model.optimizer]
    return not known or any(model.steps > (model.steps_before or 0) for model in known)


def _series(before: Outcome) -> Series | None:
    recording, diagnosis = before.recording, before.diagnosis
    if diagnosis is None:
        return recording.main
    name = "host:rss" if diagnosis.device == "host" else f"allocator:{diagnosis.device}"
    return recording.get(name) or recording.main


def _limit(before: Outcome, *series: Series | None) -> int | None:
    known = [one.limit for one in reversed(series) if one is not None]
    known.append(before.diagnosis.limit if before.diagnosis else None)
    return next((limit for limit in known if limit is not None), None)


def _seen(name: str, recording: Recording) -> int | None:
    """Give what the rerun showed of what a remedy promised; None where nobody saw it."""
    what, _, method = name.partition(" of ")
    return batch_seen(recording, method or "fit") if what == "batch" else None


def _verdict(before: Outcome, after: Outcome) -> str:
    was, now = before.recording, after.recording
    if not _trained(before, after):
        return f"the rerun took no training step. {NO_STEP}"
    if now.status == "ok":
        return "it fits." if was.status in _FULL else "it ran."
    if now.status == "oom":
        return "it still does not fit." if was.status in _FULL else "it ran out of memory."
    if now.status == "interrupted":
        return f"the rerun was interrupted after {duration(now.seconds)}."
    if now.status == "killed":
        return "the kernel died in the rerun."
    name = now.errors[0].type if now.errors else "an error"
    return f"the rerun stopped with {name}, which is not about memory."


def _numbers(
    before: Outcome,
    after: Outcome,
    first: Series | None,
    second: Series | None,
    limit: int | None,
    unit: Unit,
    expected: str,
) -> str:
    if after.recording.status == "oom":
        return _needed(before.diagnosis, after.diagnosis)
    if second is None or second.peak is None:
        return "Its peak was not measured."
    words = f"Peak {'≥ ' if second.peak_basis == 'sampled' else ''}{size(second.peak, unit)}"
    words += f" (expected {expected})" if expected else ""
    if before.recording.status in _FULL:
        return f"{words}, was over {size(limit, unit)}." if limit is not None else f"{words}."
    if first is None or first.peak is None:
        return f"{words}."
    helped = second.peak < (1 - NOISE) * first.peak
    return f"{words}, was {size(first.peak, unit)}." + ("" if helped else " It did not help.")


def _needed(before: Diagnosis | None, after: Diagnosis | None) -> str:
    """Say how much was missing, in both runs where both tell."""
    if after is None or after.requested is None:
        return ""
    was = before.requested if before and before.device == after.device else None
    values = [value for value in (after.requested, after.in_use, after.limit, was) if value is not None]
    unit = brief_unit(values)
    words = f"It needed {size(after.requested, unit)} more"
    if after.in_use is not None and after.limit is not None:
        free = after.limit - after.in_use
        fitted = after.requested <= free and after.device != HOST
        told = f"{unit.text(free)} of {size(after.limit, unit)} free, {why_not_free(after.requested)}"
        words += f" with {told if fitted else f'{unit.text(after.in_use)} of {size(after.limit, unit)} in use'}"
    if was is None or before is None:
        return f"{words}."
    held = f" with {size(before.in_use, unit)} in use" if before.in_use is not None else ""
    return f"{words}; before, {size(was, unit)} more{held}."


def _failed_checks(checks: tuple[tuple[str, int, int | None], ...]) -> tuple[str, ...]:
    return tuple(
        f"The {name} seen was {seen}, not {expected}: the change did not take effect."
        for name, expected, seen in checks
        if seen is not None and seen != expected
    )
