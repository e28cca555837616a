"""The report as plain text, for terminals, logs and front ends that show nothing else."""

from __future__ import annotations

import textwrap

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.report.choices import ChoiceView, Expected
from tf_mem_magic.report.html.markup import plain
from tf_mem_magic.report.html.page import EXPECTED
from tf_mem_magic.report.picture.blocks import drawn, scale
from tf_mem_magic.report.picture.chart import Chart
from tf_mem_magic.report.printable import printable
from tf_mem_magic.report.traced import StepsView
from tf_mem_magic.report.tries import tries_text
from tf_mem_magic.report.view import Bar, ReportView, Said, view_of


def render_text(
    outcome: Outcome, width: int = 80, encoding: str | None = None, *, everything: bool = False, chart: bool = True
) -> str:
    """Give the report as text of at most ``width`` columns where words allow.

    Parameters
    ----------
    outcome : Outcome
        The run, explained.
    width : int
        Columns of the terminal.
    encoding : str or None
        Characters that it cannot write are replaced by plain ones.
    everything : bool
        Unfold each change, and what is not offered with its reasons.
    chart : bool
        Draw the timeline; not where a picture stands beside.
    """
    view, width = view_of(outcome), max(width, 30)
    lines = _wrapped(f"{view.mark} {view.headline}", width, "", "  ") + _wrapped(view.left, width)
    if not view.is_quiet:
        for said in view.said:
            lines += _said(said, width)
        lines += _wrapped(" ".join(view.why), width) if view.why else []
    if view.status != "ok" and view.changes:
        lines += _wrapped(f"This run already did: {' '.join(view.changes)}", width)
    lines += _choices(view, width, everything)
    if view.chart is not None and chart:
        lines += _chart(view.chart, width)
    if view.bar is not None:
        lines += _filled(view.bar, width)
    if view.traced is not None:
        lines += _traced(view.traced, width, everything)
    lines += _folded(view, width, everything)
    if outcome.tries:
        lines += ["", tries_text(outcome)]
    return printable("\n".join(lines), encoding)


def _choices(view: ReportView, width: int, everything: bool) -> list[str]:
    """List what can be taken, numbered, and say how to take one."""
    rows = view.choices + (view.cells.rows if view.cells is not None and view.status != "ok" else ())
    lines: list[str] = []
    if rows:
        if view.choices:
            estimated = any(choice.expected for choice in rows)
            expected = f"{EXPECTED}, limit {view.limit}" if view.limit else EXPECTED
            head = f"{view.heading} ({expected}):" if estimated else f"{view.heading}:"
            lines += ["", *_wrapped(head, width)]
        widest = min(max(len(plain(choice.button)) for choice in rows), max(width // 2, 24))
        for choice in rows:
            if view.cells is not None and choice is view.cells.rows[0]:
                lines += ["", *_wrapped(f"{view.cells.heading}:", width)]
            lines += _choice(choice, width, widest, everything)
    for group in view.further:
        lines += ["", *_wrapped(f"{group.heading}:", width)]
        widest = max(len(plain(choice.button)) for choice in group.rows)
        for choice in group.rows:
            lines += _choice(choice, width, widest, everything)
    if view.cells is not None and view.status == "ok":
        titles = ", ".join(f"{plain(choice.button)} [{choice.proposal.key}]" for choice in view.cells.rows)
        lines += _wrapped(f"{view.cells.heading}: {titles}", width, "  ", "    ")
    first = next(iter((*rows, *(choice for group in view.further for choice in group.rows))), None)
    if first is not None:
        key = first.proposal.key
        lines += ["", *_wrapped(f"Take one: %tfmem apply {first.number}, or by its key: %tfmem apply {key}", width)]
    return lines


def _choice(choice: ChoiceView, width: int, widest: int, everything: bool) -> list[str]:
    """Give one change in a line, in columns; with ``everything`` what it changes and at what cost below."""
    rest = " · ".join(part for part in (_expected(choice.expected), choice.keeps, choice.cost) if part)
    first = f"  {choice.number}. "
    lines = _wrapped(f"{plain(choice.button):<{widest}}\x00{rest}", width, first, " " * (len(first) + 2))
    lines = [row.replace("\x00", "  ") for row in lines]
    if not everything:
        return lines
    lines += _wrapped(f"[{choice.proposal.key}]  {choice.technique}".rstrip(), width, "     ", "     ")
    for remark in (*choice.settings, *choice.remarks):
        lines += _wrapped(remark, width, "     - ", "       ")
    return lines + [f"     {row}" for row in choice.diff.splitlines()[2:] if row[:1] in "+-"]


def _said(said: Said, width: int) -> list[str]:
    """Give a line under the headline; code of several lines, or that is to be copied whole, stands below it."""
    if not said.code:
        return _wrapped(said.text, width)
    rows = said.code.splitlines()
    if len(rows) == 1:
        return _wrapped(f"{said.text.removesuffix('.')}:  {said.code}", width)
    return [*_wrapped(f"{said.text.removesuffix('.')}:", width), *(f"    {row}" for row in rows)]


def _expected(expected: Expected | None) -> str:
    """Say what to expect: ``"7.0–8.1 GiB ▓▓▓▓▓░░░░ fits"``."""
    if expected is None:
        return ""
    bar = ""
    if expected.high is not None:
        full = min(9, max(1, round(expected.high * 9)))
        bar = "▓" * full + "░" * (9 - full)
    return " ".join(part for part in (expected.range, bar, expected.word) if part)


def _chart(chart: Chart, width: int) -> list[str]:
    """Draw the timeline, and say what is drawn."""
    return ["", *(f"  {row}".rstrip() for row in drawn(chart, width - 4)), *_wrapped(scale(chart), width)]


def _filled(bar: Bar, width: int) -> list[str]:
    """Draw what filled the memory, one line for each part."""
    room = max(6, min(24, width // 4))
    lines = ["", *_wrapped(bar.heading, width)]
    widest = max(len(share.amount) for share in bar.shares)
    for share in bar.shares:
        full = "█" * max(1, round(share.fraction * room))
        lines += _wrapped(
            f"{share.amount:>{widest}}  {share.label}", width, f"  {full:<{room}} ", " " * (room + widest + 5)
        )
    return lines + _wrapped(plain(bar.layers), width)


def _traced(steps: StepsView, width: int, everything: bool) -> list[str]:
    """Draw what filled the traced steps' peak; with ``everything`` by layer too."""
    lines = _filled(Bar(steps.heading, steps.shares, 1, steps.layers), width) if steps.shares else []
    lines = lines or ["", *_wrapped(steps.heading, width)]
    if everything and steps.rows:
        widest = max(len(held) for held, *_ in steps.rows)
        for held, share, layer, kind in steps.rows:
            lines += _wrapped(f"{held:>{widest}} {share:>5}  {layer}: {kind}", width, "    ", " " * (widest + 12))
        lines += _wrapped(steps.more, width, "    ", "    ")
    return lines + [row for note in steps.notes for row in _wrapped(note, width)]


def _folded(view: ReportView, width: int, everything: bool) -> list[str]:
    """Count what is not offered, or give it with its reasons; then the other series' peaks and the notes."""
    lines: list[str] = []
    declined = () if view.is_quiet else view.declined
    if declined and not everything:
        lines += ["", *_wrapped(f"{view.declined_label}: %tfmem last --all tells why, and shows each change", width)]
    for answer in declined if everything else ():
        lines += _wrapped(f"{answer.title}: {answer.reason}", width, "  - ", "    ")
        lines += [f"    {row}".rstrip() for row in answer.patch.splitlines()]
    if declined and everything:
        lines[:0] = ["", f"  {view.declined_label}"]
    also = (*view.peaks, *view.notes) if everything else view.urgent
    return lines + [row for remark in also for row in _wrapped(remark, width, "  ", "    ")]


def _wrapped(text: str, width: int, first: str = "  ", rest: str = "  ") -> list[str]:
    """Break ``text`` at ``width``; words longer than that, such as paths, stay whole."""
    if not text:
        return []
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
