"""The report as plain text, for terminals, logs and front ends that show nothing else."""

from __future__ import annotations

import re
import textwrap

from tf_mem_magic.core import sentences
from tf_mem_magic.core.curve import columns
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Series
from tf_mem_magic.core.units import duration

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN = str.maketrans(
    {
        **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*%#")),
        **{"✓": "[ok]", "✗": "[x]", "●": "[*]", "≥": ">=", "≤": "<=", "→": "->", "×": "x", "–": "-", "—": "-"},
        **{"…": "...", "▓": "#", "░": ".", "│": "|", "┤": "|", "└": "+", "─": "-", "┄": "-", "·": "-"},
    }
)
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def render_text(outcome: Outcome, width: int = 80, encoding: str | None = None) -> str:
    """Give the report as text of at most ``width`` columns where words allow.

    Characters that ``encoding`` cannot write are replaced by plain ones.
    """
    width = max(width, 30)
    done = (f"{sentences.mark(outcome)} {sentences.headline(outcome)}", sentences.left_behind(outcome))
    lines = _wrapped("   ".join(part for part in done if part), width, "", "  ")
    for block in (_explanation(outcome, width), _chart(outcome, width), _filled(outcome, width)):
        lines += block
    lines += _choices(outcome, width)
    lines += _remarks(outcome, width)
    return printable("\n".join(lines), encoding)


def printable(text: str, encoding: str | None = None) -> str:
    """Take control characters out of ``text``, and what ``encoding`` cannot write."""
    text = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)
    if encoding is None:
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text.translate(_PLAIN).encode("ascii", "replace").decode("ascii")
    return text


def _explanation(outcome: Outcome, width: int) -> list[str]:
    """Give where it happened, why, the rerun's numbers, and what the run had already changed."""
    where, code = sentences.place(outcome)
    lines = _wrapped(f"{where}:  {code}" if code else where, width)
    for sentence in (
        sentences.result(outcome),
        *sentences.checks(outcome),
        sentences.paragraph(outcome),
        *sentences.neighbours(outcome),
    ):
        lines += _wrapped(sentence, width)
    if changes := sentences.already_done(outcome):
        lines += _wrapped(f"this run already did: {'; '.join(changes)}", width)
    if runs := sentences.history(outcome):
        lines += _wrapped(f"runs of this cell: {runs}", width)
    return lines


def _chart(outcome: Outcome, width: int) -> list[str]:
    """Draw the main series, before and after where there is a comparison."""
    comparison, limit = outcome.comparison, sentences.limit_of(outcome)
    main = sentences.focus(outcome)
    pairs: list[tuple[str, Series | None, str]] = [("", main, outcome.recording.status)]
    if comparison is not None and comparison.before is not None:
        pairs = [
            ("before ", comparison.before, comparison.status_before),
            ("after  ", comparison.after, comparison.status_after),
        ]
    top = max(
        [limit or 0, *(s.peak or 0 for _, s, _ in pairs if s), *(max(s.values, default=0) for _, s, _ in pairs if s)]
    )
    if not top or (outcome.recording.status == "ok" and comparison is None and outcome.recording.seconds < 1):
        return []
    unit = sentences.unit_of(outcome)
    lines = [""]
    rows = 1 if len(pairs) > 1 else 3
    for label, series, status in pairs:
        if series is None or not series.values:
            lines.append(f"  {label}(too short for a timeline)")
            continue
        end = series.times[-1] if len(pairs) > 1 else max(outcome.recording.seconds, series.times[-1])
        gutter = f"  {label}" if len(pairs) > 1 else "  "
        body = columns(series.times, series.values, end, width - len(gutter) - 2)
        drawn = _rows(body, top, rows)
        drawn[-1] = drawn[-1].rstrip() + ("" if status == "ok" else f" {sentences.MARKS.get(status, '●')}")
        lines += [gutter + row.rstrip() for row in drawn]
    what = sentences.quantity(main) if main else ""
    ceiling = f"top: limit {sentences.amount(limit, unit)}" if limit == top else f"top: {sentences.amount(top, unit)}"
    lines += _wrapped(f"{what}, 0 to {duration(outcome.recording.seconds)}; {ceiling}", width)
    return lines


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
    lines = ["", "  what was in use"]
    widest = max(len(share.amount) for share in shares)
    for share in shares:
        bar = "█" * max(1, round(share.fraction * room))
        lines += _wrapped(
            f"{share.amount:>{widest}}  {share.label}", width, f"  {bar:<{room}} ", " " * (room + widest + 5)
        )
    return lines


def _choices(outcome: Outcome, width: int) -> list[str]:
    """Give the numbered proposals, each with its estimate, what it keeps, and its diff."""
    if not outcome.offered:
        return []
    lines = ["", *_wrapped(f"Change the cell and run it again; {sentences.expectation_heading(outcome)}", width)]
    for number, proposal in enumerate(outcome.offered, 1):
        lines += _wrapped(f"{proposal.title}  [{proposal.key}]", width, f"  {number}. ", "     ")
        lines += _wrapped(_terms(proposal, outcome), width, "     ", "     ")
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
    if outcome.declined:
        lines += ["", f"  {len(outcome.declined)} not offered"]
        for answer in outcome.declined:
            lines += _wrapped(f"{answer.title}: {answer.reason}", width, "  - ", "    ")
    also = (*sentences.other_peaks(outcome), *sentences.notes(outcome))
    if also and outcome.recording.status != "ok":
        lines += ["", *(line for remark in also for line in _wrapped(remark, width, "  ", "    "))]
    return lines


def _wrapped(text: str, width: int, first: str = "  ", rest: str = "  ") -> list[str]:
    """Break ``text`` at ``width``; words longer than that, such as paths, stay whole."""
    if not text:
        return []
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
