"""The report as HTML without scripts: what a page shows, what a saved notebook keeps, and the words of the panel."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Choice
from tf_mem_magic.report.choices import UNKNOWN, ChoiceView, DeclinedView, Group
from tf_mem_magic.report.html.drawing import bar_html, chart_html, expected_html
from tf_mem_magic.report.html.markup import (
    LINE,
    beside,
    changed_lines,
    code_to_copy,
    code_words,
    diff,
    escaped,
    explained_once,
    fold,
    folded,
    line,
    plain,
    prose,
    raw,
    table,
)
from tf_mem_magic.report.html.steps import steps_html
from tf_mem_magic.report.view import DumpTable, ReportView, Said, view_of

_CELL = "text-align:left;vertical-align:top;padding:4px 12px 2px 0;max-width:none"
_TONES = {
    "ok": "var(--jp-success-color1,#388e3c)",
    "oom": "var(--jp-error-color1,#d9362f)",
    "error": "var(--jp-error-color1,#d9362f)",
    "killed": "var(--jp-error-color1,#d9362f)",
    "interrupted": "var(--jp-warn-color1,#c26a12)",
}
EXPECTED, KEPT = "expected peak", "keeps"
"""Heads of the columns beside the changes."""

_PAGE = (
    "color:inherit;line-height:1.45;max-width:860px;overflow-wrap:anywhere;"
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:var(--jp-ui-font-size1,13px)"
)
NO_END = (
    "<div>No report yet: the run was going on when this was saved, or its kernel ended first. What was recorded is "
    "kept: <code>%load_ext tf_mem_magic</code>, then <code>%tfmem last</code> shows it.</div>"
)
"""What stands in the panel's place until the run has ended, in a saved notebook or where the kernel dies."""


def render_html(outcome: Outcome) -> str:
    """Give the whole report as one HTML element, in its order: what happened, what can be done, why."""
    view = view_of(outcome)
    return _section(view, _head(view), _choices(view), _rest(view))


def head_html(view: ReportView) -> str:
    """Give what happened and where: what stands above the panel. Where one line says it all, the rest is folded in."""
    return _section(view, _head(view), _rest(view) if view.is_quiet else "")


def choices_html(view: ReportView) -> str:
    """Give what the panel shows with its buttons, without them: for a saved notebook, or where nobody can click."""
    body = explained_once(_choices(view))
    return f'<div class="tfmem-frozen" style="{_PAGE}">{body}</div>' if body else ""


def rest_html(view: ReportView) -> str:
    """Give why: the timeline, what filled the memory, and everything that is folded."""
    body = "" if view.is_quiet else explained_once(_rest(view))
    return f'<div class="tfmem-rest" style="{_PAGE}">{body}</div>' if body else ""


def _section(view: ReportView, *parts: str) -> str:
    label = escaped(f"Memory report: {plain(view.headline)}")
    body = explained_once("".join(parts))
    return f'<section class="tfmem-report" aria-label="{label}" style="{_PAGE}">{body}</section>'


def _head(view: ReportView) -> str:
    sign = (
        f'<span role="img" aria-label="{view.word}" title="{view.word}" style="color:{_TONES[view.status]};'
        f'font-weight:600">{view.mark}</span>'
    )
    said = prose(view.headline)
    if not view.is_quiet:
        said = f'<span style="font-weight:600;font-size:1.15em">{said}</span>'
    left = f' <span style="display:inline-block;margin-left:12px">{prose(view.left)}</span>' if view.left else ""
    lines = [_with_code(each) for each in view.said]
    if view.is_quiet:
        lines = []
    why = folded("why", line(prose(" ".join(view.why)))) if view.why else ""
    return f'<div class="tfmem-headline">{sign} {said}{left}</div>' + "".join(map(line, lines)) + why


def _with_code(said: Said) -> str:
    """Give a line under the headline with its code, which stands below where it has several lines."""
    if not said.code:
        return prose(said.text)
    code = code_to_copy(said.code) if "\n" in said.code else f" {code_words(said.code)}"
    return f"{prose(said.text.removesuffix('.'))}:{code}"


def _steps(view: ReportView) -> str:
    """Fold the traced steps; why there are none stands there open, for they were asked for."""
    if view.traced is None:
        return ""
    told = steps_html(view.traced)
    return folded("traced steps", told) if view.traced.shares else told


def _rest(view: ReportView) -> str:
    chart = chart_html(view.chart, view.picture_words, timed=not view.is_timed) if view.chart else ""
    bar = bar_html(view.bar) if view.bar else ""
    original = code_to_copy(view.original, view.room) if view.original else ""
    told = "".join(map(line, map(prose, (*view.notes, *view.peaks))))
    folds = (
        folded("what filled it", bar) if view.is_quiet else "",
        _steps(view),
        folded("the cell as it was before, to copy", original),
        folded("details", told + _dumps(view)),
    )
    if view.is_quiet:
        return beside(folded("timeline", chart), *folds)
    return (changes_html(view) if view.status != "ok" else "") + chart + bar + beside(*folds)


def _dumps(view: ReportView) -> str:
    return "".join(map(_dump, view.dumps)) + folded("as the allocator wrote it", raw(view.raw) if view.raw else "")


def _dump(dump: DumpTable) -> str:
    listed = table(("bytes", "pieces", "operation"), dump.rows)
    return line(prose(dump.summary)) + listed + line(escaped(dump.more))


def changes_html(view: ReportView) -> str:
    """Name what the run had already changed before it failed; opened, say what a rerun meets."""
    return folded(view.changes_label, "".join(line(prose(change)) for change in view.changes))


# Rows of choices: as a table where nobody can click, and piece by piece for the panel.


def _choices(view: ReportView) -> str:
    parts = []
    if view.choices:
        estimated = any(choice.expected for choice in view.choices)
        parts.append(_table(view, view.shown, estimated))
        parts.append(folded(f"{len(view.more)} more", _table(view, view.more, estimated)) if view.more else "")
    if view.cells is not None:
        cells = "".join(_new_cell(choice, view.room) for choice in view.cells.rows)
        if view.status == "ok":
            cells += _declined(view)
        fold = folded(view.cells.heading, cells)
        parts.append(fold if view.status == "ok" else line(f"<b>{prose(view.cells.heading)}</b>") + cells)
    parts += [folded(group.heading, _group(view, group)) for group in view.further]
    if view.room is not None and view.numbered:
        parts.append(
            line(f"The cell is long: only changed lines stand here. {code_words('%tfmem apply 1')} writes all.")
        )
    if view.leftovers:
        names = ", ".join(f"{code_words(name)} {escaped(size)}" for name, size in view.leftovers)
        parts.append(folded(view.leftovers_label, line(names)) if not view.is_quiet else "")
    if view.declined and not (view.cells is not None and view.status == "ok"):
        parts.append(folded(view.declined_label, _declined(view)))
    return "".join(parts)


def _group(view: ReportView, group: Group) -> str:
    return _table(view, group.rows, any(choice.expected for choice in group.rows))


def _table(view: ReportView, rows: tuple[ChoiceView, ...], estimated: bool) -> str:
    heads = [prose(view.heading), *([expected_heading(view)] if estimated else []), KEPT]
    head = "".join(f'<th scope="col" style="{_CELL};font-weight:600">{text}</th>' for text in heads)
    style = "width:100%;margin:6px 0 4px;border-collapse:collapse;table-layout:fixed;font-size:inherit;border:0"
    body = "".join(_row(choice, estimated, choice.opens if choice is rows[0] else "", view.room) for choice in rows)
    return (
        f'<table style="{style}"><thead style="border-bottom:{LINE}"><tr style="background:none">{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _row(choice: ChoiceView, estimated: bool, opens: str, room: int | None) -> str:
    cost = line(prose(choice.cost)) if choice.cost else ""
    cells = [f"<b>{prose(choice.button)}</b>{cost}", *([expected_html(choice.expected)] if estimated else [])]
    cells.append(escaped(choice.keeps))
    row = "".join(f'<td style="{_CELL}">{text}</td>' for text in cells)
    name = f' aria-label="{escaped(plain(f"{choice.opens}: {choice.button}"))}"'
    more = fold(opens, details_html(choice, room) + _copies(choice, room), name)
    bottom = f"{_CELL};border-bottom:{LINE};padding-bottom:6px"
    return (
        f'<tr style="background:none">{row}</tr>'
        f'<tr style="background:none"><td colspan="{len(cells)}" style="{bottom}">{more}</td></tr>'
    )


def _new_cell(choice: ChoiceView, room: int | None) -> str:
    about = line(prose(choice.remarks[0])) if choice.remarks else ""
    said = line(f"Keeps: {escaped(choice.keeps)}")
    return f"<div><b>{prose(choice.button)}</b></div>{about}{said}" + folded(
        choice.opens, details_html(choice, room) + _copies(choice, room), choice.button
    )


def _copies(choice: ChoiceView, room: int | None) -> str:
    """Give the whole changed cell, and what each further way makes of it, to copy; of long cells what changes."""
    if not choice.diff:
        return ""
    what = "The new cell" if choice.proposal.new_cell else "The changed cell"
    if room is None:
        return f"<div>{what}, to copy:</div>{code_to_copy(choice.source)}" + "".join(map(_way, choice.ways))
    ways = tuple((_label(way), replace(choice.proposal, source=way.source).diff) for way in choice.ways)
    return changed_lines(ways, room) if ways else ""


def _way(way: Choice) -> str:
    return f"<div>{prose(_label(way))}, to copy:</div>{code_to_copy(way.source)}"


def _label(way: Choice) -> str:
    return f"{way.label} ({way.note})" if way.note else way.label


def expected_heading(view: ReportView) -> str:
    """Head the column of estimates; what they are to stay under is told on hovering."""
    limit = f' title="The limit is {escaped(view.limit)}"' if view.limit else ""
    return f"<span{limit}>{EXPECTED}</span>"


def head_of_columns(view: ReportView, estimated: bool) -> str:
    """Head what stands beside the buttons; what is kept says so itself."""
    first = expected_heading(view) if estimated else ""
    return f'<div class="tfmem-facts">{first} <span class="tfmem-unseen">{KEPT}</span></div>'


def facts_html(choice: ChoiceView, estimated: bool) -> str:
    """Give what stands beside a button: the peak to expect, what is kept, and what decides against it.

    ``estimated``: some row beside has an estimate, so there is a column for them. The hidden words tie each part to
    its column for those who hear it.
    """
    about = expected_html(choice.expected) if estimated else ""
    if choice.proposal.new_cell and choice.remarks:
        about = prose(choice.remarks[0])
    hidden = '<span class="tfmem-unseen">{}: </span>'
    first = f"<span>{hidden.format(EXPECTED) if estimated else ''}{about}</span>" if about else ""
    cost = f"<b>{prose(choice.cost)}</b>" if choice.cost else ""
    kept = f"<span>{hidden.format(KEPT)}{escaped(choice.keeps)}{', ' if cost else ''}{cost}</span>"
    return f'<div class="tfmem-facts">{first} {kept}</div>'


def details_html(choice: ChoiceView, room: int | None = None) -> str:
    """Give what a row opens to: the diff, what it is called, why and at what cost, and what the estimate rests on."""
    remarks = list(choice.remarks)
    parts = [diff(choice.diff, room) if choice.diff else line("The cell itself stays as it is.")]
    parts += [line(f"Sets {code_words(setting)} before TensorFlow is imported") for setting in choice.settings]
    parts += [line(f"Also called: {prose(choice.technique.lower())}.")] if choice.technique else []
    basis = f"The estimate rests on: {prose(choice.expected.basis)}" if choice.expected else UNKNOWN
    parts += [line(basis)] if not choice.proposal.new_cell else []
    listed = "".join(f"<li>{prose(text)}</li>" for text in remarks)
    return "".join(parts) + (f'<ul style="margin:2px 0;padding-left:18px">{listed}</ul>' if listed else "")


def _declined(view: ReportView) -> str:
    return "".join(declined_html(declined, view.room) for declined in view.declined)


def declined_html(declined: DeclinedView, room: int | None = None) -> str:
    """Give one change that is not offered, with its reason, and the change elsewhere that would help."""
    other = line(f"Under other settings: {prose(declined.settings.button)}") if declined.settings else ""
    patch = f"<div>A change elsewhere that would help, to copy:</div>{code_to_copy(declined.patch, room)}"
    return line(f"<b>{prose(declined.title)}</b>: {prose(declined.reason)}") + other + (patch if declined.patch else "")
