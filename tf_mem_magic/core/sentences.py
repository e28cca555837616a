"""What a person reads about a run, as plain sentences. Text, HTML, figure and panel all take their words from here."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Part
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.core.recording import Series, Status
from tf_mem_magic.core.units import Unit, brief_unit, duration, size, size_range

MARKS: dict[str, str] = {"ok": "✓", "oom": "✗", "error": "✗", "interrupted": "●", "killed": "✗"}
"""A sign for each status; the words beside it always say the same."""

STATUS_WORDS: dict[str, str] = {
    "ok": "ran to its end",
    "oom": "out of memory",
    "error": "stopped by an error",
    "interrupted": "interrupted",
    "killed": "the kernel died",
}

PART_WORDS: dict[str, str] = {
    "weights": "weights",
    "optimizer": "optimizer",
    "values": "named values",
    "earlier": "earlier cells",
    "other": "activations and temporaries",
}

_LONGEST_CODE = 100


def mark(outcome: Outcome) -> str:
    """Give the sign of the outcome: ✓, ✗ or ●."""
    return MARKS[outcome.recording.status]


def focus(outcome: Outcome) -> Series | None:
    """Find the series that the report is about: that of the device that ran out, else the fullest one."""
    recording, diagnosis = outcome.recording, outcome.diagnosis
    if outcome.comparison is not None and outcome.comparison.after is not None:
        return outcome.comparison.after
    if diagnosis is None:
        return recording.main
    if diagnosis.device == "host":
        return recording.get("host:rss") or recording.main
    names = (f"{kind}:{diagnosis.device}" for kind in ("allocator", "process", "device"))
    found = [series for series in map(recording.get, names) if series is not None]
    return found[0] if found else recording.main


def limit_of(outcome: Outcome) -> int | None:
    """Give the limit in bytes that the report's main series has to stay under; None where nobody tells."""
    series, diagnosis, comparison = focus(outcome), outcome.diagnosis, outcome.comparison
    known = (
        diagnosis.limit if diagnosis else None,
        comparison.limit if comparison else None,
        series.limit if series else None,
    )
    return next((limit for limit in known if limit is not None), None)


def unit_of(outcome: Outcome) -> Unit:
    """Choose the one unit of the report, so that all its numbers about one device can be compared by eye."""
    series, diagnosis, comparison = focus(outcome), outcome.diagnosis, outcome.comparison
    values = [limit_of(outcome), series.peak if series else None]
    if diagnosis is not None:
        values += [diagnosis.in_use]
    if comparison is not None and comparison.before is not None:
        values += [comparison.before.peak]
    return brief_unit([value for value in values if value is not None])


def amount(value: float | None, unit: Unit | None = None) -> str:
    """Give bytes in words, three digits at most; never "0.0" for something that is there."""
    if value is None:
        return "—"
    unit = unit or brief_unit([value])
    if value and not float(unit.text(value)):
        return f"< {0.1 if unit.size > 1 else 1} {unit.name}"
    return size(value, unit)


def quantity(series: Series) -> str:
    """Name what a series measures: ``"in use on GPU:0"``."""
    if series.kind == "host":
        return "host memory of this process"
    words = {
        "allocator": "in use on {}",
        "pool": "pool on {}",
        "process": "held by this process on {}",
        "device": "device used on {}, all processes",
    }
    return words.get(series.kind, f"{series.kind} on {{}}").format(series.device)


def peak_words(series: Series, unit: Unit | None = None, limit: int | None = None) -> str:
    """Say a series' peak: ``"peak 13.9 of 14.7 GiB in use on GPU:0 at 0:12 (95 %)"``; a sampled one with ≥."""
    limit = limit if limit is not None else series.limit
    if series.peak is None:
        return f"{quantity(series)}: not measured"
    unit = unit or brief_unit([series.peak, limit or 0])
    bound = "≥ " if series.peak_basis == "sampled" else ""
    if limit is None:
        return f"peak {bound}{amount(series.peak, unit)} {quantity(series)}{_when(series)}"
    share = f" ({bound}{100 * series.peak / limit:.0f} %)" if limit else ""
    number = amount(series.peak, unit).removesuffix(f" {unit.name}")
    return f"peak {bound}{number} of {amount(limit, unit)} {quantity(series)}{_when(series)}{share}"


def _when(series: Series) -> str:
    """Say when the peak was; a counter's peak that no sample came near has no known time."""
    if series.peak is None or series.peak_time is None:
        return ""
    seen = max(series.values)
    if seen < 0.9 * series.peak:
        return ""
    return f" {'at' if seen >= series.peak else 'near'} {duration(series.peak_time)}"


def headline(outcome: Outcome) -> str:
    """Say in one line what happened."""
    if outcome.comparison is not None:
        return _rerun_headline(outcome)
    recording = outcome.recording
    took = duration(recording.seconds)
    if recording.status == "oom":
        where = outcome.diagnosis.device if outcome.diagnosis else None
        place = {None: "", "host": " on the host"}.get(where, f" on {where}")
        return f"Out of memory{place} after {took}{_progress(outcome)}"
    if recording.status == "error":
        return f"{_error_name(outcome)} after {took}; this is not an out-of-memory error"
    if recording.status == "interrupted":
        return f"Interrupted after {took}{_progress(outcome)}"
    if recording.status == "killed":
        cause = "; it had run out of memory" if outcome.diagnosis else ""
        return f"The kernel died after {took}{cause}"
    series = recording.main
    return f"{took}  {peak_words(series, unit_of(outcome))}" if series else f"{took}  memory was not measured"


def _error_name(outcome: Outcome) -> str:
    errors = outcome.recording.errors
    return errors[0].type.rsplit(".", 1)[-1] if errors else "An error"


def _progress(outcome: Outcome) -> str:
    """Say how far the training was, where that is known."""
    facts = outcome.recording.facts
    if facts.steps_done == 0 and not facts.epochs_done:
        return ", in the first training step"
    if facts.epochs_done:
        return f", in epoch {facts.epochs_done + 1}"
    return ""


def _rerun_headline(outcome: Outcome) -> str:
    comparison = outcome.comparison
    assert comparison is not None
    verdicts: dict[str, str] = {
        "ok": "it fits" if comparison.status_before in ("oom", "killed") else "it ran again",
        "oom": "still out of memory",
        "error": f"the rerun stopped with {_error_name(outcome)}, not for memory",
        "interrupted": "the rerun was interrupted",
        "killed": "the kernel died in the rerun",
    }
    return f"{comparison.title}: {verdicts[comparison.status_after]}"


def result(outcome: Outcome) -> str:
    """Say what a rerun measured beside what was expected and what it was before; empty without a rerun."""
    comparison = outcome.comparison
    if comparison is None:
        return ""
    unit, limit = unit_of(outcome), limit_of(outcome)
    parts = [peak_words(comparison.after, unit, limit) if comparison.after else "peak not measured"]
    parts.append(f"expected {comparison.expected}" if comparison.expected else "no estimate was given")
    before = comparison.before
    if comparison.status_before in ("oom", "killed"):
        held = f" with {amount(before.peak, unit)} {quantity(before)}" if before and before.peak is not None else ""
        parts.append(f"before: {STATUS_WORDS[comparison.status_before]}{held}")
    elif before is not None and before.peak is not None:
        parts.append(f"before: {peak_words(before, unit, limit)}")
    sentence = "; ".join(parts) + "."
    if _did_not_help(outcome):
        sentence += " The change did not lower the peak."
    return sentence


def _did_not_help(outcome: Outcome) -> bool:
    comparison = outcome.comparison
    if comparison is None or not (comparison.before and comparison.after):
        return False
    before, after = comparison.before.peak, comparison.after.peak
    if comparison.status_before != comparison.status_after or before is None or after is None:
        return False
    return after >= before


def checks(outcome: Outcome) -> tuple[str, ...]:
    """Say whether the rerun showed what the edit promised: ``"✓ batch seen: 128"``."""
    if outcome.comparison is None:
        return ()
    lines = []
    for name, expected, seen in outcome.comparison.checks:
        if seen is None:
            lines.append(f"● {name}: {expected} expected, not seen in the rerun")
        elif seen == expected:
            lines.append(f"✓ {name} seen: {seen}")
        else:
            lines.append(f"✗ {name} seen: {seen}, expected: {expected}")
    return tuple(lines)


def history(outcome: Outcome) -> str:
    """Give the cell's runs so far: ``"256 ✗ → 128 ✓"``; empty for a first run."""
    if len(outcome.history) < 2:
        return ""
    return " → ".join(f"{attempt.label} {MARKS.get(attempt.status, '●')}" for attempt in outcome.history)


def place(outcome: Outcome) -> tuple[str, str]:
    """Say where in the user's code it happened, as words and the line of code; both empty where unknown."""
    diagnosis = outcome.diagnosis
    if diagnosis is None or diagnosis.line is None:
        return ("", "")
    lines = outcome.recording.cell.source.splitlines()
    code = lines[diagnosis.line - 1].strip() if 0 < diagnosis.line <= len(lines) else ""
    if len(code) > _LONGEST_CODE:
        code = code[: _LONGEST_CODE - 1] + "…"
    frame = diagnosis.frame
    if frame is not None and not frame.in_cell:
        name = os.path.basename(frame.file.replace("\\", "/"))
        return (f"{name}:{frame.line} in {frame.function}, called from line {diagnosis.line} of your cell", code)
    return (f"line {diagnosis.line} of your cell", code)


def paragraph(outcome: Outcome) -> str:
    """Explain an out-of-memory error: the diagnosis' own text, else what its numbers say."""
    diagnosis = outcome.diagnosis
    if diagnosis is None:
        return ""
    if diagnosis.text:
        return diagnosis.text
    unit = unit_of(outcome)
    parts = []
    if diagnosis.requested is not None:
        shape = f" [{', '.join(map(str, diagnosis.shape))}] {diagnosis.dtype or ''}".rstrip() if diagnosis.shape else ""
        what = diagnosis.layer or diagnosis.op
        user = f" for {what}{shape}" if what else f" for a tensor{shape}" if shape else ""
        parts.append(f"needed {amount(diagnosis.requested, unit)} more{user}")
    if diagnosis.in_use is not None:
        held = amount(diagnosis.in_use, unit)
        if diagnosis.limit is not None:
            held = f"{held.removesuffix(f' {unit.name}')} of {amount(diagnosis.limit, unit)}"
        parts.append(f"{held} were in use")
    return "; ".join(parts) + "." if parts else ""


def neighbours(outcome: Outcome) -> tuple[str, ...]:
    """Name the other processes on the device that ran out."""
    diagnosis = outcome.diagnosis
    device = outcome.recording.facts.device(diagnosis.device) if diagnosis else None
    if device is None or not device.others:
        return ()
    known = [other.bytes for other in device.others if other.bytes is not None]
    unit = brief_unit(known)
    return tuple(
        f"pid {other.pid}{f' ({other.user})' if other.user else ''} holds "
        f"{amount(other.bytes, unit) if other.bytes is not None else 'an unknown amount'} of {device.name}"
        for other in device.others
    )


@dataclass(frozen=True, slots=True)
class Share:
    """One part of the breakdown in words: ``fraction`` is 0–1 of what was in use."""

    kind: str
    label: str
    amount: str
    basis: str
    fraction: float


def breakdown(outcome: Outcome) -> tuple[Share, ...]:
    """Give what filled the memory, largest first; empty without a diagnosis."""
    parts = outcome.diagnosis.breakdown if outcome.diagnosis else ()
    total = sum(part.bytes for part in parts)
    if total <= 0:
        return ()
    unit = unit_of(outcome)
    ranked = sorted((part for part in parts if part.bytes > 0), key=lambda part: -part.bytes)
    return tuple(
        Share(part.kind, _part_label(part), amount(part.bytes, unit), part.basis, part.bytes / total) for part in ranked
    )


def _part_label(part: Part) -> str:
    label = PART_WORDS.get(part.kind, part.kind)
    if not part.names:
        return label
    shown = ", ".join(part.names[:4])
    return f"{label}: {shown}" + (f" and {len(part.names) - 4} more" if len(part.names) > 4 else "")


def left_behind(outcome: Outcome) -> str:
    """Say what the run left in memory: ``"+0.2 GiB left behind: model, history"``; empty where nothing."""
    leftovers = [(name, held) for name, held in outcome.leftovers if held > 0]
    if not leftovers:
        return ""
    names = ", ".join(name for name, _ in leftovers[:5])
    more = f" and {len(leftovers) - 5} more" if len(leftovers) > 5 else ""
    return f"+{amount(sum(held for _, held in leftovers))} left behind: {names}{more}"


def already_done(outcome: Outcome) -> tuple[str, ...]:
    """Say what the run that failed had already changed, one sentence each."""
    return tuple(change.text for change in outcome.changes)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The peak to expect from a proposal: ``"7.0–8.1 GiB"``, and the ``word`` (``"fits"``).

    ``low`` and ``high`` are shares of the limit, 0–1. Without an estimate ``range`` is ``"not measured"``.
    """

    range: str
    word: str = ""
    basis: str = ""
    low: float | None = None
    high: float | None = None


def expectation(proposal: Proposal, outcome: Outcome) -> Expectation:
    """Put a proposal's estimate in words, in the report's unit."""
    estimate, limit = proposal.estimate, limit_of(outcome)
    if estimate is None:
        return Expectation("not measured")
    words = size_range(estimate.low, estimate.high, unit_of(outcome))
    if not limit:
        return Expectation(words, "", estimate.basis)
    return Expectation(words, estimate.word(limit), estimate.basis, estimate.low / limit, estimate.high / limit)


def expectation_heading(outcome: Outcome) -> str:
    """Head the column of estimates: ``"peak to expect (limit 14.7 GiB)"``."""
    limit = limit_of(outcome)
    return f"peak to expect (limit {amount(limit, unit_of(outcome))})" if limit else "peak to expect"


def effect(proposal: Proposal) -> str:
    """Say when a proposal takes effect, where that is not the next run."""
    return "needs a restart of the kernel" if proposal.takes_effect == "restart" else ""


def not_offered(declined: tuple[Declined, ...]) -> str:
    """Sum up the declined remedies in one line; empty where there are none."""
    if not declined:
        return ""
    return f"{len(declined)} not offered: {', '.join(answer.title for answer in declined)}"


def other_peaks(outcome: Outcome) -> tuple[str, ...]:
    """Say the peaks of the series that the headline does not speak about."""
    main = focus(outcome)
    return tuple(
        peak_words(series)
        for series in outcome.recording.series
        if series.peak is not None and (main is None or series.name != main.name)
    )


def notes(outcome: Outcome) -> tuple[str, ...]:
    """Give the remarks that belong nowhere else: notices, then sources of numbers that were missing."""
    missing = (f"{source.name}: {source.reason}" for source in outcome.recording.missing)
    return (*outcome.notices, *missing)


def one_line(outcome: Outcome) -> str:
    """Give the whole outcome in one line, as the always-on mode shows it."""
    parts = [f"{mark(outcome)} {headline(outcome)}"]
    main = focus(outcome)
    if outcome.comparison is None and outcome.recording.status != "ok" and main is not None and main.peak is not None:
        parts.append(peak_words(main, unit_of(outcome), limit_of(outcome)))
    parts += [result(outcome), left_behind(outcome)]
    return "   ".join(part for part in parts if part)


def status_word(status: Status | str) -> str:
    """Say a status in words."""
    return STATUS_WORDS.get(status, status)


def describe(outcome: Outcome) -> str:
    """Describe the timeline in words, for those who cannot see the picture."""
    comparison, unit = outcome.comparison, unit_of(outcome)
    if comparison is not None and comparison.before is not None and comparison.after is not None:
        before = _course(comparison.before, unit, comparison.limit)
        after = _course(comparison.after, unit, comparison.limit)
        return (
            f"Timelines before and after {comparison.title}. "
            f"Before ({status_word(comparison.status_before)}): {before}. "
            f"After ({status_word(comparison.status_after)}): {after}."
        )
    recording, main = outcome.recording, focus(outcome)
    if main is None:
        return f"No timeline: memory was not measured in the {duration(recording.seconds)} of the run."
    lines = [f"Timeline over {duration(recording.seconds)}", _course(main, unit, limit_of(outcome))]
    lines += [_course(series, None, None) for series in recording.series if series.name != main.name]
    diagnosis = outcome.diagnosis
    if diagnosis is not None and diagnosis.requested is not None:
        lines.append(f"a request for {amount(diagnosis.requested, unit)} more failed at the end")
    return ". ".join(line[:1].upper() + line[1:] for line in lines) + "."


def _course(series: Series, unit: Unit | None, limit: int | None) -> str:
    words = peak_words(series, unit, limit)
    if not series.values:
        return f"{words}, no samples"
    unit = unit or brief_unit([series.peak or 0, series.limit or 0])
    return f"{words}, from {amount(series.values[0], unit)} to {amount(series.values[-1], unit)}"
