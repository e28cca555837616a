"""The report as plain text, for terminals, logs and front ends that show nothing else."""

from __future__ import annotations

import textwrap

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Series
from tf_mem_magic.report import comparison_words as rerun
from tf_mem_magic.report import sentences
from tf_mem_magic.report.curve import columns
from tf_mem_magic.report.measures import OFF_SCALE, amount, focus, limit_of, quantity, took, unit_of
from tf_mem_magic.report.printable import printable

_BLOCKS = " ▁▂▃▄▅▆▇█"


def render_text(outcome: Outcome, width: int = 80, encoding: str | None = None) -> str:
    """Give the report as text of at most ``width`` columns where words allow.

    Characters that ``encoding`` cannot write are replaced by plain ones.
    """
    width = max(width, 30)
    lines = _wrapped(f"{sentences.mark(outcome)} {sentences.headline(outcome)}", width, "", "  ")
    lines += _wrapped(sentences.left_behind(outcome), width)
    for block in (_explanation(outcome, width), _chart(outcome, width), _filled(outcome, width)):
        lines += block
    lines += _choices(outcome, width) + _further(outcome, width) + _new_cells(outcome, width)
    lines += _remarks(outcome, width)
    return printable("\n".join(lines), encoding)


def _explanation(outcome: Outcome, width: int) -> list[str]:
    """Give where it happened, why, the rerun's numbers, and what the run had already changed."""
    where, code = sentences.place(outcome)
    lines = [row for words in (rerun.result(outcome), *rerun.checks(outcome)) for row in _wrapped(words, width)]
    lines += _wrapped(f"{where}:  {code}" if code else where, width)
    for sentence in (sentences.paragraph(outcome), *sentences.neighbours(outcome)):
        lines += _wrapped(sentence, width)
    if changes := sentences.already_done(outcome):
        lines += _wrapped(f"This run already did: {' '.join(changes)}", width)
    if runs := rerun.history(outcome):
        lines += _wrapped(f"Runs of this cell: {runs}", width)
    return lines


def _chart(outcome: Outcome, width: int) -> list[str]:
    """Draw the main series; before and after, one above the other, where there is a comparison."""
    comparison, main, unit = outcome.comparison, focus(outcome), unit_of(outcome)
    if main is None or not sentences.has_timeline(outcome):
        return []
    runs: list[tuple[str, Series, str, float]]
    runs = [("", main, outcome.recording.status, max(outcome.recording.seconds, _last(main)))]
    if comparison is not None and comparison.before is not None:
        before = comparison.before
        runs = [("before ", before, comparison.status_before, _last(before)), ("after  ", *runs[0][1:])]
    highest = max(max(series.peak or 0, *series.values, 0) for _, series, _, _ in runs)
    limit = limit_of(outcome)
    near = limit is not None and limit <= OFF_SCALE * highest
    top = max(highest, limit) if near and limit is not None else highest
    if not top or not any(series.values for _, series, _, _ in runs):
        return []
    lines = [""]
    for label, series, status, end in runs:
        body = columns(series.times, series.values, end, width - len(label) - 4)
        drawn = _rows(body, top, 1 if label else 3)
        sign = "" if status == "ok" else f" {rerun.MARKS[status]}"
        lines += [f"  {label}{row}".rstrip() for row in drawn[:-1]]
        lines.append(f"  {label}{drawn[-1].rstrip()}{sign}")
    spans = " and ".join(f"{took(end)} {label}".rstrip() for label, _, _, end in runs)
    ceiling = f"the limit, {amount(limit, unit)}" if near and top == limit else amount(top, unit)
    return lines + _wrapped(f"{quantity(main)}: 0 to {ceiling}, over {spans}", width)


def _last(series: Series) -> float:
    return series.times[-1] if series.times else 0.0


def _rows(body: tuple[int | None, ...], top: int, rows: int) -> list[str]:
    """Draw values as ``rows`` lines of eighth-blocks, the highest line first; something is never drawn as nothing."""
    eighths = [None if v is None else max(1 if v else 0, round(v / top * rows * 8)) for v in body]
    return [
        "".join(" " if e is None else _BLOCKS[min(8, max(0, e - row * 8))] for e in eighths)
        for row in reversed(range(rows))
    ]


def _filled(outcome: Outcome, width: int) -> list[str]:
    """Draw what filled the memory, one line for each part."""
    shares = sentences.breakdown(outcome)
    if not shares:
        return []
    room = max(6, min(24, width // 4))
    lines = ["", *_wrapped(sentences.breakdown_heading(outcome), width)]
    widest = max(len(share.amount) for share in shares)
    for share in shares:
        bar = "█" * max(1, round(share.fraction * room))
        lines += _wrapped(
            f"{share.amount:>{widest}}  {share.label}", width, f"  {bar:<{room}} ", " " * (room + widest + 5)
        )
    return lines


def _choices(outcome: Outcome, width: int) -> list[str]:
    """Give the numbered proposals, each with its estimate, what it keeps, and its diff."""
    if not outcome.edits:
        return []
    lines = ["", *_wrapped(f"{sentences.changes_heading(outcome)}. {sentences.expectation_heading(outcome)}:", width)]
    for number, proposal in enumerate(outcome.edits, 1):
        lines += _wrapped(f"{proposal.title}  [{proposal.key}]", width, f"  {number}. ", "     ")
        lines += _wrapped(_terms(proposal, outcome), width, "     ", "     ")
        lines += _wrapped(proposal.why, width, "     ", "     ")
        for caveat in proposal.caveats:
            lines += _wrapped(caveat, width, "     - ", "       ")
        lines += [f"     {line}" for line in _changed_lines(proposal)]
    return lines


def _further(outcome: Outcome, width: int) -> list[str]:
    """Name in a line each what else could be changed after a rerun that fitted."""
    lines = []
    for heading, proposals in sentences.further_groups(outcome):
        titles = ", ".join(f"{proposal.title} [{proposal.key}]" for proposal in proposals)
        lines += _wrapped(f"{heading}: {titles}", width, "  ", "    ")
    return ["", *lines] if lines else []


def _new_cells(outcome: Outcome, width: int) -> list[str]:
    """Give the proposals that are cells of their own; in one line after a run that went well."""
    heading = sentences.new_cell_heading(outcome)
    if outcome.recording.status == "ok":
        titles = ", ".join(f"{proposal.title} [{proposal.key}]" for proposal in outcome.new_cells)
        return _wrapped(f"{heading}: {titles}", width, "  ", "    ") if titles else []
    lines = ["", *_wrapped(f"{heading}:", width)] if heading else []
    for number, proposal in enumerate(outcome.new_cells, len(outcome.edits) + 1):
        lines += _wrapped(f"{proposal.title}  [{proposal.key}]", width, f"  {number}. ", "     ")
        for words in (f"keeps: {proposal.preserves}", proposal.why):
            lines += _wrapped(words, width, "     ", "     ")
        for caveat in proposal.caveats:
            lines += _wrapped(caveat, width, "     - ", "       ")
        lines += [f"     {line}" for line in _changed_lines(proposal)]
    return lines


def _terms(proposal: Proposal, outcome: Outcome) -> str:
    """Say what to expect of a proposal: ``"7.0–8.1 GiB ▓▓▓▓▓░░░░ fits · keeps: same results"``."""
    expected = sentences.expectation(proposal, outcome)
    bar = ""
    if expected.high is not None:
        full = min(9, max(1, round(expected.high * 9)))
        bar = "▓" * full + "░" * (9 - full)
    first = " ".join(part for part in (expected.range, bar, expected.word) if part)
    return " · ".join(part for part in (first, f"keeps: {proposal.preserves}", sentences.effect(proposal)) if part)


def _changed_lines(proposal: Proposal) -> list[str]:
    return [line for line in proposal.diff.splitlines()[2:] if line[:1] in "+-"]


def _remarks(outcome: Outcome, width: int) -> list[str]:
    """Give what was not offered and why, the other series' peaks, and the notes."""
    lines: list[str] = []
    if outcome.declined and not sentences.is_quiet(outcome):
        lines += ["", f"  {len(outcome.declined)} not offered"]
        for answer in outcome.declined:
            lines += _wrapped(f"{answer.title}: {answer.reason}", width, "  - ", "    ")
            lines += [f"    {line}".rstrip() for line in answer.patch.splitlines()]
    also = (*sentences.other_peaks(outcome), *sentences.notes(outcome))
    if sentences.is_quiet(outcome):
        also = outcome.notices
    if also:
        blank = () if sentences.is_quiet(outcome) else ("",)
        lines += [*blank, *(line for remark in also for line in _wrapped(remark, width, "  ", "    "))]
    return lines


def _wrapped(text: str, width: int, first: str = "  ", rest: str = "  ") -> list[str]:
    """Break ``text`` at ``width``; words longer than that, such as paths, stay whole."""
    if not text:
        return []
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
