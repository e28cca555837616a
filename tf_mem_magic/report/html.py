"""The report as static HTML: what a saved notebook shows, without scripts and without a kernel."""

from __future__ import annotations

import html
import re

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.report import comparison_words as rerun
from tf_mem_magic.report import sentences
from tf_mem_magic.report.glossary import MEANINGS
from tf_mem_magic.report.measures import amount, unit_of
from tf_mem_magic.report.palette import PARTS
from tf_mem_magic.report.printable import visible

_FAINT = "rgba(127,127,127,0.14)"
_LINE = "1px solid rgba(127,127,127,0.4)"
_MONO = "font-family:var(--jp-code-font-family,Menlo,Consolas,'DejaVu Sans Mono',monospace);font-size:12px"
_PRE = (
    f"margin:4px 0;padding:6px 8px;{_MONO};line-height:1.4;white-space:pre-wrap;overflow-wrap:anywhere;"
    f"background:{_FAINT};color:inherit;border-radius:3px"
)
_CELL = "text-align:left;vertical-align:top;padding:4px 10px 2px 0;overflow-wrap:anywhere;max-width:none"
_TONES = {
    "ok": "var(--jp-success-color1,#388e3c)",
    "oom": "var(--jp-error-color1,#d9362f)",
    "error": "var(--jp-error-color1,#d9362f)",
    "killed": "var(--jp-error-color1,#d9362f)",
    "interrupted": "var(--jp-warn-color1,#c26a12)",
}
_TERMS = re.compile(r"\b(" + "|".join(sorted(map(re.escape, MEANINGS), key=len, reverse=True)) + r")\b", re.I)
_MEANING = re.compile(r'<abbr title="([^"]*)"[^>]*>([^<]*)</abbr>')
_MOST_STDERR = 12_000
_MOST_GROUPS = 20


def render_html(outcome: Outcome, figure_png: str | None = None, *, above_panel: bool = False) -> str:
    """Give the report as one HTML element.

    Parameters
    ----------
    outcome : Outcome
        The run, explained.
    figure_png : str or None
        The timeline as a PNG in base64; None where there is none.
    above_panel : bool
        Leave out what a panel below shows with its buttons: the changes to try, and what the run already did.
    """
    image = _image(outcome, figure_png)
    if sentences.is_quiet(outcome):
        offers = "" if above_panel else _folded(sentences.new_cell_heading(outcome), _new_cells(outcome))
        parts = [_head(outcome), _line(_folded("timeline", image), *_details(outcome), offers)]
    else:
        parts = [_head(outcome), _explanation(outcome), image, _filled(outcome)]
        if not above_panel:
            parts += [_already_done(outcome), _choices(outcome), _beside(outcome), _declined(outcome.declined)]
        parts.append(_line(_original(outcome), *_details(outcome)))
    label = escaped(f"Memory report: {sentences.headline(outcome)}")
    style = (
        "color:inherit;line-height:1.45;max-width:760px;overflow-wrap:anywhere;"
        "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:var(--jp-ui-font-size1,13px)"
    )
    body = _explained_once("".join(parts))
    return f'<section class="tfmem-report" aria-label="{label}" style="{style}">{body}</section>'


def escaped(text: str) -> str:
    """Make ``text`` safe to stand in HTML, as text and as an attribute; control characters become visible."""
    return html.escape(visible(text))


def explained(text: str) -> str:
    """Escape a sentence and give its glossary terms their meaning for hovering."""
    style = "text-decoration:underline dotted;cursor:help;border:0"

    def meaning(match: re.Match[str]) -> str:
        term = match.group(0)
        return f'<abbr title="{escaped(MEANINGS[term.lower()])}" style="{style}">{term}</abbr>'

    return _TERMS.sub(meaning, escaped(text))


def _explained_once(body: str) -> str:
    """Keep the meaning of each term only where it first stands, so that the page stays calm."""
    seen: set[str] = set()

    def first(match: re.Match[str]) -> str:
        if match.group(1) in seen:
            return match.group(2)
        seen.add(match.group(1))
        return match.group(0)

    return _MEANING.sub(first, body)


def _line(*folds: str) -> str:
    """Put several folds beside one another; an open one takes the width it needs."""
    side = 'style="display:inline-block;vertical-align:top;max-width:100%;margin:3px 18px 3px 0"'
    return "".join(fold.replace('style="margin:3px 0"', side, 1) for fold in folds)


def _head(outcome: Outcome) -> str:
    status = outcome.recording.status
    word = rerun.STATUS_WORDS[status]
    sign = (
        f'<span role="img" aria-label="{word}" title="{word}" style="color:{_TONES[status]};font-weight:600">'
        f"{sentences.mark(outcome)}</span>"
    )
    said = escaped(sentences.headline(outcome))
    if sentences.is_quiet(outcome):
        said = explained(sentences.headline(outcome))
    else:
        said = f'<span style="font-weight:600;font-size:1.15em">{said}</span>'
    left = sentences.left_behind(outcome)
    behind = (
        f' <span style="display:inline-block;opacity:0.85;margin-left:12px">{explained(left)}</span>' if left else ""
    )
    return f"<div>{sign} {said}{behind}</div>"


def _explanation(outcome: Outcome) -> str:
    where, code = sentences.place(outcome)
    lines = [explained(text) for text in (rerun.result(outcome),) if text]
    lines += [escaped(text) for text in rerun.checks(outcome)]
    if where:
        quoted = f': <code style="{_MONO};background:{_FAINT};color:inherit;padding:1px 4px">{escaped(code)}</code>'
        lines.append(escaped(where) + (quoted if code else ""))
    lines += [explained(text) for text in (sentences.paragraph(outcome),) if text]
    lines += [escaped(text) for text in sentences.neighbours(outcome)]
    if runs := rerun.history(outcome):
        lines.append(f"Runs of this cell: {escaped(runs)}")
    return "".join(f'<div style="margin:2px 0">{line}</div>' for line in lines)


def _already_done(outcome: Outcome) -> str:
    changes = sentences.already_done(outcome)
    return (
        f'<div style="margin:2px 0"><b>This run already did:</b> {escaped("; ".join(changes))}</div>' if changes else ""
    )


def _image(outcome: Outcome, figure_png: str | None) -> str:
    if not figure_png:
        return ""
    alt = escaped(sentences.describe(outcome))
    style = "display:block;width:100%;max-width:700px;height:auto;margin:6px 0;background:transparent"
    return f'<img src="data:image/png;base64,{escaped(figure_png)}" alt="{alt}" style="{style}">'


def _filled(outcome: Outcome) -> str:
    shares = sentences.breakdown(outcome)
    if not shares:
        return ""
    bar = "".join(
        f'<span style="display:inline-block;vertical-align:top;height:12px;width:{100 * share.fraction:.2f}%;'
        f"box-sizing:border-box;border-right:1px solid rgba(127,127,127,0.15);"
        f'background:{PARTS.get(share.kind, PARTS["other"])}"></span>'
        for share in shares
    )
    names = "".join(
        f'<span style="display:inline-block;margin-right:14px" title="{escaped(share.basis)}">'
        f'<span style="color:{PARTS.get(share.kind, PARTS["other"])}" aria-hidden="true">■</span> '
        f"{explained(share.label)} <b>{escaped(share.amount)}</b></span>"
        for share in shares
    )
    frame = "white-space:nowrap;overflow:hidden;font-size:0;line-height:0;border-radius:2px"
    return (
        f'<div style="margin:6px 0 10px">{explained(sentences.breakdown_heading(outcome))}'
        f'<div style="{frame};margin:2px 0" aria-hidden="true">{bar}</div><div>{names}</div></div>'
    )


def _choices(outcome: Outcome) -> str:
    if not outcome.edits:
        return ""
    heads = (sentences.changes_heading(outcome), sentences.expectation_heading(outcome), "Keeps")
    head = "".join(f'<th scope="col" style="{_CELL};font-weight:600">{explained(text)}</th>' for text in heads)
    rows = "".join(_choice(proposal, outcome) for proposal in outcome.edits)
    table = "width:100%;margin:8px 0 4px;border-collapse:collapse;table-layout:fixed;font-size:inherit;border:0"
    return (
        f'<table style="{table}"><thead style="border-bottom:{_LINE}"><tr style="background:none">{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _beside(outcome: Outcome) -> str:
    """Give the cells of their own that are offered beside the changes; folded after a rerun that went well."""
    heading, cells = sentences.new_cell_heading(outcome), _new_cells(outcome)
    if not cells or outcome.recording.status == "ok":
        return _folded(heading, cells)
    return f'<div style="margin:8px 0 4px;font-weight:600">{explained(heading)}</div>{cells}'


def _new_cells(outcome: Outcome) -> str:
    """Give the proposals that are cells of their own, each to copy; after a run that went well, also the declined."""
    parts = []
    for proposal in outcome.new_cells:
        remarks = (proposal.why, f"Keeps: {proposal.preserves}", *proposal.caveats)
        said = "".join(f'<div style="opacity:0.85">{explained(text)}</div>' for text in remarks if text)
        code = f"<div>The new cell, to copy:</div>{_code(proposal.source)}"
        for choice in proposal.choices:
            note = f" ({escaped(choice.note)})" if choice.note else ""
            code += f"<div>{escaped(choice.label)}{note}, to copy:</div>{_code(choice.source)}"
        parts.append(f"<div><b>{escaped(proposal.title)}</b></div>{said}{_folded('the new cell', code)}")
    if parts and sentences.is_quiet(outcome):
        parts.append(_declined(outcome.declined))
    return "".join(parts)


def _choice(proposal: Proposal, outcome: Outcome) -> str:
    title = f"<b>{escaped(proposal.title)}</b>"
    if later := sentences.effect(proposal):
        title += f'<div style="opacity:0.8">{escaped(later)}</div>'
    row = "".join(
        f'<td style="{_CELL}">{text}</td>'
        for text in (title, _expected(proposal, outcome), escaped(proposal.preserves))
    )
    remarks = (proposal.why, *proposal.caveats)
    more = "".join(f'<div style="opacity:0.85">{explained(text)}</div>' for text in remarks if text)
    bottom = f"{_CELL};border-bottom:{_LINE};padding-bottom:6px"
    return (
        f'<tr style="background:none">{row}</tr>'
        f'<tr style="background:none"><td colspan="3" style="{bottom}">{more}{_change(proposal)}</td></tr>'
    )


def _expected(proposal: Proposal, outcome: Outcome) -> str:
    expected = sentences.expectation(proposal, outcome)
    words = escaped(expected.range) + (f" <b>{escaped(expected.word)}</b>" if expected.word else "")
    if expected.low is None or expected.high is None:
        return words
    low, high = (100 * min(1.0, max(0.0, share)) for share in (expected.low, expected.high))
    bar = (
        f'<span aria-hidden="true" style="display:block;width:90%;height:6px;margin-top:3px;font-size:0;'
        f'background:{_FAINT};border:{_LINE};white-space:nowrap;overflow:hidden">'
        f'<span style="display:inline-block;height:6px;width:{low:.1f}%;background:{PARTS["other"]}"></span>'
        f'<span style="display:inline-block;height:6px;width:{high - low:.1f}%;background:{PARTS["other"]};'
        f'opacity:0.5"></span></span>'
    )
    return f'<span title="{escaped(expected.basis)}">{words}{bar}</span>'


def _change(proposal: Proposal) -> str:
    """Show what a proposal changes: its diff, then the whole changed cell to copy."""
    parts = []
    if proposal.estimate is not None:
        parts.append(f"<div>The estimate rests on: {explained(proposal.estimate.basis)}</div>")
    for name, value in proposal.environment:
        parts.append(f"<div>Sets <code>{escaped(name)}={escaped(value)}</code> before TensorFlow is imported</div>")
    if not proposal.diff:
        return _folded("what it does", "".join(parts) + "<div>The cell stays as it is.</div>")
    parts += [_diff(proposal.diff), f"<div>The changed cell, to copy:</div>{_code(proposal.source)}"]
    for choice in proposal.choices:
        note = f" ({escaped(choice.note)})" if choice.note else ""
        parts.append(f"<div>{escaped(choice.label)}{note}, to copy:</div>{_code(choice.source)}")
    return _folded("the change", "".join(parts))


def _diff(diff: str) -> str:
    tints = {"+": "background:rgba(60,160,80,0.22)", "-": "background:rgba(217,54,47,0.20)"}
    lines = "".join(
        f'<span style="display:block;{tints.get(line[:1], "opacity:0.8")}">{escaped(line) or " "}</span>'
        for line in diff.splitlines()[2:]
    )
    return f'<pre style="{_PRE}">{lines}</pre>'


def _code(source: str) -> str:
    return f'<pre style="{_PRE};user-select:all">{escaped(source)}</pre>'


def _declined(declined: tuple[Declined, ...]) -> str:
    if not declined:
        return ""
    rows = []
    for answer in declined:
        patch = f"<div>A change that would help, to copy:</div>{_code(answer.patch)}" if answer.patch else ""
        other = f"<div>Under other settings: {escaped(answer.settings.title)}</div>" if answer.settings else ""
        rows.append(
            f'<li style="margin:2px 0"><b>{escaped(answer.title)}</b>: {explained(answer.reason)}{other}{patch}</li>'
        )
    return _folded(sentences.not_offered(declined), f'<ul style="margin:2px 0;padding-left:18px">{"".join(rows)}</ul>')


def _original(outcome: Outcome) -> str:
    comparison = outcome.comparison
    if comparison is None or not comparison.original:
        return ""
    return _folded("the cell as it was before, to copy", _code(comparison.original))


def _details(outcome: Outcome) -> tuple[str, ...]:
    """Fold away the other series' peaks, the allocator's dump, and the notes."""
    peaks = "".join(f"<div>{explained(text)}</div>" for text in sentences.other_peaks(outcome))
    notes = sentences.notes(outcome)
    listed = "".join(f"<div>{escaped(text)}</div>" for text in notes)
    return (
        _folded("other peaks", peaks),
        _folded("allocator's dump", _dump(outcome)),
        _folded(f"{len(notes)} notes" if len(notes) > 1 else "1 note", listed),
    )


def _dump(outcome: Outcome) -> str:
    """Give what the allocator wrote: its totals, the largest operations, and the beginning of the raw text."""
    parts = []
    for dump in outcome.recording.dumps:
        parts.append(f"<div>{explained(sentences.dump_summary(dump))}</div>")
        unit = unit_of(outcome)
        rows = [f"{amount(group.bytes, unit):>12}  {group.count} × {group.op}" for group in dump.groups[:_MOST_GROUPS]]
        if len(dump.groups) > _MOST_GROUPS:
            rows.append(f"and {len(dump.groups) - _MOST_GROUPS} smaller operations")
        if rows:
            lines = "\n".join(rows)
            parts.append(f'<pre style="{_PRE}">{escaped(lines)}</pre>')
    text = outcome.recording.stderr
    if len(text) > _MOST_STDERR:
        text = f"{text[:_MOST_STDERR]}\n… {len(text) - _MOST_STDERR} more characters are in the recording"
    if text:
        parts.append(f'<pre style="{_PRE};max-height:300px;overflow-y:auto">{escaped(text)}</pre>')
    return "".join(parts)


def _folded(summary: str, body: str) -> str:
    """Fold ``body`` behind a line; nothing where there is nothing to fold."""
    if not body:
        return ""
    return (
        f'<details style="margin:3px 0"><summary style="cursor:pointer;opacity:0.9">{explained(summary)}</summary>'
        f'<div style="margin:2px 0 6px 14px">{body}</div></details>'
    )
