"""The panel's words as HTML, also frozen: pure functions of an outcome. Everything from outside is escaped."""

from __future__ import annotations

import re
from html import escape

from tf_mem_magic.core import units
from tf_mem_magic.core.outcome import Change, Outcome
from tf_mem_magic.core.proposals import Declined, Estimate, Proposal
from tf_mem_magic.report.measures import amount, limit_of
from tf_mem_magic.report.sentences import further_groups, headline, new_cell_heading, not_offered

_NO_END = (
    "<div>No report yet: the run was going on when this was saved, or its kernel ended first. What was recorded is "
    "kept: <code>%load_ext tf_mem_magic</code>, then <code>%tfmem last</code> shows it.</div>"
)
"""What stands in the panel's place until the run has ended, in a saved notebook or where the kernel dies."""


def prose(text: str) -> str:
    """Give a sentence as HTML; what stands in backticks is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def announcement(outcome: Outcome) -> str:
    """Give the one sentence that a screen reader speaks when the run has ended (plain text)."""
    said = f"{headline(outcome)}."
    if outcome.edits:
        count = len(outcome.edits)
        said += f" {count} {'change is' if count == 1 else 'changes are'} offered below."
    return said


def estimate_html(proposal: Proposal, limit: int | None) -> str:
    """Give the peak to expect with its word and a small bar, or say that it is not measured."""
    estimate = proposal.estimate
    if estimate is None:
        why = f"; {prose(_inside(proposal.why))}" if _is_short(proposal.why) else ""
        return f'<span class="tfmem-dim">not measured{why}</span>'
    words = units.size_range(estimate.low, estimate.high)
    if limit is None:
        return escape(words)
    return f"{escape(words)} {_bar(estimate, limit)} <b>{estimate.word(limit)}</b>"


def _is_short(sentence: str) -> bool:
    """Tell whether a sentence fits beside a button."""
    return 0 < len(sentence) <= 60


def _inside(sentence: str) -> str:
    """Give a sentence as it goes on after a semicolon: without its capital, unless that belongs to a name."""
    plain = sentence[1:2].islower() or sentence[1:2] == " "
    return sentence[:1].lower() + sentence[1:] if plain else sentence


def _bar(estimate: Estimate, limit: int) -> str:
    low, high = (round(56 * min(value / limit, 1.0)) for value in (estimate.low, estimate.high))
    part = "display:inline-block;vertical-align:top;height:8px;background:currentColor"
    outer = "display:inline-block;width:56px;height:8px;vertical-align:middle;border:1px solid currentColor"
    return (
        f'<span aria-hidden="true" style="{outer};overflow:hidden;line-height:0;white-space:nowrap">'
        f'<span style="{part};width:{low}px;opacity:.7"></span>'
        f'<span style="{part};width:{high - low}px;opacity:.35"></span></span>'
    )


def details_html(proposal: Proposal) -> str:
    """Give what opens below a row: the diff, the caveats, and what the estimate rests on."""
    parts = [diff_html(proposal.diff)]
    if proposal.environment:
        names = ", ".join(f"<code>{escape(name)}={escape(value)}</code>" for name, value in proposal.environment)
        parts.append(f"<p>Set before TensorFlow is imported: {names}</p>")
    if proposal.why and not proposal.new_cell and (proposal.estimate is not None or not _is_short(proposal.why)):
        parts.append(f"<p>{prose(proposal.why)}</p>")
    if proposal.estimate is not None:
        parts.append(f"<p>The estimate rests on: {prose(proposal.estimate.basis)}</p>")
    if proposal.caveats:
        parts.append("<ul>" + "".join(f"<li>{prose(text)}</li>" for text in proposal.caveats) + "</ul>")
    return "".join(parts)


def columns_html(outcome: Outcome) -> str:
    """Give the heads of the columns beside the buttons."""
    limit = limit_of(outcome)
    held = "" if limit is None else f" (limit {amount(limit)})"
    return f'<div class="tfmem-facts tfmem-dim"><span>peak to expect{held}</span> <span>keeps</span></div>'


def row_html(proposal: Proposal, limit: int | None) -> str:
    """Give what stands beside a proposal's button, the change included."""
    opens = "the new cell" if proposal.new_cell else "the change"
    details = f"<summary>{opens}</summary>{details_html(proposal)}"
    return f'{facts_html(proposal, limit)}<details class="tfmem-details">{details}</details>'


def facts_html(proposal: Proposal, limit: int | None) -> str:
    """Give the peak to expect, or why the new cell, and what is kept."""
    about = estimate_html(proposal, limit)
    if proposal.new_cell:
        about = f'<span class="tfmem-dim">{prose(proposal.why)}</span>'
    restart = " · restarts the kernel" if proposal.takes_effect == "restart" else ""
    return (
        f'<div class="tfmem-facts"><span>{about}</span> '
        f'<span class="tfmem-dim">{escape(proposal.preserves)}{restart}</span></div>'
    )


def ticked_html(ticked: int, found: int) -> str:
    """Say how much is ticked of what was found."""
    said = f"{units.size(ticked)} of {units.size(found)} ticked" if ticked else "Nothing is ticked"
    return f'<div role="status" class="tfmem-dim">{said}.</div>'


def diff_html(diff: str) -> str:
    """Give a unified diff line by line; its signs carry the meaning, the colour only helps."""
    if not diff:
        return "<p>The cell itself stays as it is.</p>"
    lines = []
    for line in diff.splitlines()[2:]:
        kind = {"+": "tfmem-add", "-": "tfmem-cut", "@": "tfmem-dim"}.get(line[:1], "")
        lines.append(f'<span class="{kind}">{escape(line)}</span>')
    return f'<pre class="tfmem-diff">{chr(10).join(lines)}</pre>'


def declined_html(declined: Declined) -> str:
    """Give one remedy that is not offered, with its reason."""
    patch = ""
    if declined.patch:
        patch = "<p>A change elsewhere that would help, to copy:</p>"
        patch += diff_html(declined.patch)
    return f"<div><b>{escape(declined.title)}</b>: {prose(declined.reason)}{patch}</div>"


def changes_html(changes: tuple[Change, ...]) -> str:
    """Say what the run had already done before it failed."""
    if not changes:
        return ""
    items = "; ".join(prose(change.text.rstrip(".")) for change in changes)
    return f'<div class="tfmem-changes"><b>This run already did:</b> {items}.</div>'


def _frozen_changes(proposals: tuple[Proposal, ...], limit: int | None) -> str:
    items = "".join(
        f"<li><b>{escape(p.title)}</b> {estimate_html(p, limit)} · {escape(p.preserves)}"
        f"<details><summary>the change</summary>{details_html(p)}</details></li>"
        for p in proposals
    )
    return f"<ul>{items}</ul>"


def frozen_html(outcome: Outcome | None) -> str:
    """Give the whole panel as static HTML without scripts: what is saved, printed and exported."""
    if outcome is None:
        return _NO_END
    limit = limit_of(outcome)
    parts = [changes_html(outcome.changes) if outcome.recording.status != "ok" else ""]
    if outcome.edits:
        offered = _frozen_changes(outcome.edits, limit)
        parts.append(f"<div>Changes to this cell that were offered:</div>{offered}")
    for heading, proposals in further_groups(outcome):
        others = _frozen_changes(proposals, limit)
        parts.append(f"<details><summary>{escape(heading)}</summary>{others}</details>")
    if outcome.new_cells:
        cells = "".join(
            f"<li><b>{escape(p.title)}</b> · {escape(p.preserves)}"
            f"<details><summary>the new cell</summary>{details_html(p)}</details></li>"
            for p in outcome.new_cells
        )
        parts.append(f"<details><summary>{prose(new_cell_heading(outcome))}</summary><ul>{cells}</ul></details>")
    if outcome.leftovers:
        names = ", ".join(f"<code>{escape(name)}</code> {amount(size)}" for name, size in outcome.leftovers)
        parts.append(f"<div>Left in memory: {names}</div>")
    if outcome.declined:
        reasons = "".join(declined_html(d) for d in outcome.declined)
        parts.append(f"<details><summary>{escape(not_offered(outcome.declined))}</summary>{reasons}</details>")
    return '<div class="tfmem-frozen">' + "".join(parts) + "</div>"
