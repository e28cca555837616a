"""What a rerun showed beside the run before it, as sentences; and the words for how a run can end."""

from __future__ import annotations

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.report.measures import amount, capital, limit_of, peak_words, quantity, unit_of

MARKS: dict[str, str] = {"ok": "✓", "oom": "✗", "error": "✗", "interrupted": "●", "killed": "✗"}
"""A sign for each status; the words beside it always say the same."""

NO_STEP = "It does not show whether the cell fits. Was the data used up? Run the cell that makes it, then this one."
"""What a rerun that trained on nothing says."""

STATUS_WORDS: dict[str, str] = {
    "ok": "ran to its end",
    "oom": "out of memory",
    "error": "stopped by an error",
    "interrupted": "interrupted",
    "killed": "the kernel died",
}


def headline(outcome: Outcome) -> str:
    """Say in one line how a rerun ended."""
    comparison = outcome.comparison
    assert comparison is not None
    verdicts: dict[str, str] = {
        "ok": "it fits" if comparison.status_before in ("oom", "killed") else "it ran again",
        "oom": "still out of memory",
        "error": f"the rerun stopped with {error_name(outcome)}, not an out-of-memory error",
        "interrupted": "the rerun was interrupted",
        "killed": "the kernel died in the rerun",
    }
    verdict = verdicts[comparison.status_after] if comparison.trained else "the rerun took no training step"
    return f"{comparison.title or 'The changed cell'}: {verdict}"


def result(outcome: Outcome) -> str:
    """Say what a rerun measured beside what was expected and what it was before; empty without a rerun."""
    comparison = outcome.comparison
    if comparison is None:
        return ""
    if not comparison.trained:
        return NO_STEP
    unit, limit, before = unit_of(outcome), limit_of(outcome), comparison.before
    sentence = f"{capital(peak_words(comparison.after, unit, limit, when=False))}" if comparison.after else ""
    if sentence and comparison.expected:
        sentence += f"; expected {comparison.expected}"
    sentence += "." if sentence else ""
    if comparison.status_before in ("oom", "killed"):
        # Its peak: where memory was in pieces, the request that failed may have met much less in use.
        held = f", peak {amount(before.peak, unit)}" if before and before.peak is not None else ""
        if held and before and (comparison.after is None or before.name != comparison.after.name):
            held += f" {quantity(before)}"
        sentence += f" Before: {STATUS_WORDS[comparison.status_before]}{held}."
    elif before is not None and before.peak is not None:
        sentence += f" Before: {peak_words(before, unit, limit, when=False)}."
    if _did_not_help(outcome):
        sentence += " The change did not lower the peak."
    return sentence.strip()


def _did_not_help(outcome: Outcome) -> bool:
    """Tell whether two complete runs show that the peak is no lower; a run that failed has no peak to compare."""
    comparison = outcome.comparison
    if comparison is None or not (comparison.before and comparison.after):
        return False
    before, after = comparison.before.peak, comparison.after.peak
    if (comparison.status_before, comparison.status_after) != ("ok", "ok") or before is None or after is None:
        return False
    return after >= before


def error_name(outcome: Outcome) -> str:
    """Name the exception that ended the run."""
    errors = outcome.recording.errors
    return errors[0].type.rsplit(".", 1)[-1] if errors else "An error"


def checks(outcome: Outcome) -> tuple[str, ...]:
    """Say whether the rerun showed what the edit promised: ``"✓ batch seen: 128"``."""
    if outcome.comparison is None:
        return ()
    lines = []
    for name, expected, seen in outcome.comparison.checks:
        if seen is None and outcome.recording.status == "ok":
            lines.append(f"● {name}: {expected} expected, not seen: only Keras's own methods show it")
        elif seen is None:
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
