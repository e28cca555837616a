"""What a report shows, decided once: pages, the panel and plain text only set it out."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Status
from tf_mem_magic.core.units import size
from tf_mem_magic.report import comparison_words as rerun
from tf_mem_magic.report import sentences
from tf_mem_magic.report.brevity import within_reach
from tf_mem_magic.report.changed import changes_label
from tf_mem_magic.report.choices import (
    SHOWN,
    ChoiceView,
    DeclinedView,
    Group,
    choice_view,
    declined_view,
    not_offered,
    nothing_fits,
)
from tf_mem_magic.report.measures import amount, limit_of, took, unit_of
from tf_mem_magic.report.picture.chart import Chart, chart_of
from tf_mem_magic.report.sentences import Share
from tf_mem_magic.report.traced import StepsView, steps_view

MOST_STDERR = 4_000
"""Characters of the allocator's raw text that a report holds, counted as in HTML; the recording has the rest."""

MOST_CODE, LEAST_CODE = 6_000, 160
"""Characters of code that a report repeats in whole; of more, each change keeps its share of them, or the least."""

MOST_GROUPS = 12
"""Operations of an allocator's dump that are listed."""

MOST_OF_IT, MOST_MAIN = 0.5, 2
"""The largest parts of what filled the memory are named at once, until they are this share of it, or so many."""

TRIFLE = 0.05 * 2**20
"""Bytes that would be shown as "< 0.1 MiB": not worth a row."""


@dataclass(frozen=True, slots=True)
class Said:
    """One line under the headline, with the line of code that it is about (empty: none).

    ``may_shrink``: its last sentences may be folded.
    """

    text: str
    code: str = ""
    may_shrink: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """What filled the memory: ``shares``, largest first, under a ``heading``.

    ``main`` of them are named at once, the others where it is opened; ``layers`` is a sentence, empty where unknown.
    """

    heading: str
    shares: tuple[Share, ...]
    main: int = 1
    layers: str = ""


@dataclass(frozen=True, slots=True)
class DumpTable:
    """What an allocator wrote when it failed: a sentence, and rows of (bytes, count, operation)."""

    summary: str
    rows: tuple[tuple[str, str, str], ...]
    more: str = ""


@dataclass(frozen=True, slots=True)
class ReportView:
    """A report, ready to be set out.

    Attributes
    ----------
    status : str
        How the run ended, as the recording tells.
    mark, word : str
        The sign of the outcome (✓ ✗ ●) and the word that says the same.
    headline : str
        One line that says what happened.
    is_quiet : bool
        The headline says it all: everything else is folded away.
    left : str
        What the run left in memory; empty where nothing, and where that is not the point.
    said : tuple of Said
        What stands under the headline.
    heading : str
        Over the changes that are offered.
    limit : str
        The limit that estimates are to stay under, in words; empty where unknown.
    choices : tuple of ChoiceView
        Changes to the cell, best first; the first :data:`~tf_mem_magic.report.choices.SHOWN` are seen at once.
    cells : Group or None
        Cells of their own that are offered.
    further : tuple of Group
        What else could be changed after a rerun that fitted, folded behind ``further_label``.
    changes : tuple of str
        What the run that failed had already done, one sentence each, folded behind ``changes_label``.
    leftovers : tuple of (str, str)
        Names that still hold what the run made, with their size in words, folded behind ``leftovers_label``.
    declined : tuple of DeclinedView
        What is not offered, folded behind ``declined_label``.
    chart : Chart or None
        The timeline.
    bar : Bar or None
        What filled the memory.
    peaks, notes : tuple of str
        Folded: the other series' peaks, and remarks that belong nowhere else.
    urgent : tuple of str
        Those of the notes that also a terminal shows at once: what was released, or could not be.
    dumps : tuple of DumpTable
        Folded: what the allocator told; ``raw`` is its text as it wrote it.
    original : str
        The cell as it was before the change; empty without one.
    is_timed : bool
        The headline already says the time that the timeline spans.
    picture_words : str
        The timeline in words, for those who cannot see it.
    traced : StepsView or None
        The steps that ``--trace`` watched.
    why : tuple of str
        Sentences that are folded below the others, because there are too many words.
    seen : int
        Changes that are seen before anything is opened, at most.
    """

    status: Status
    mark: str
    word: str
    headline: str
    is_quiet: bool
    left: str
    said: tuple[Said, ...]
    heading: str
    limit: str
    choices: tuple[ChoiceView, ...]
    cells: Group | None
    further: tuple[Group, ...]
    further_label: str
    changes: tuple[str, ...]
    changes_label: str
    leftovers: tuple[tuple[str, str], ...]
    declined: tuple[DeclinedView, ...]
    declined_label: str
    chart: Chart | None
    bar: Bar | None
    peaks: tuple[str, ...]
    notes: tuple[str, ...]
    urgent: tuple[str, ...]
    dumps: tuple[DumpTable, ...]
    raw: str
    original: str
    is_timed: bool
    picture_words: str
    traced: StepsView | None = None
    why: tuple[str, ...] = ()
    seen: int = SHOWN

    @property
    def shown(self) -> tuple[ChoiceView, ...]:
        """The changes that are seen before anything is opened."""
        return self.choices[: self.seen]

    @property
    def more(self) -> tuple[ChoiceView, ...]:
        """The changes behind "2 more"."""
        return self.choices[self.seen :]

    @property
    def leftovers_label(self) -> str:
        """Count the names that still hold what the run made."""
        count = len(self.leftovers)
        return f"{count} {'name holds' if count == 1 else 'names hold'} memory"

    @property
    def numbered(self) -> tuple[ChoiceView, ...]:
        """Everything that can be taken by its number."""
        cells = self.cells.rows if self.cells is not None else ()
        return (*self.choices, *cells, *(choice for group in self.further for choice in group.rows))

    @property
    def room(self) -> int | None:
        """The characters that each piece of code may take where it cannot all be repeated in whole; None: it can."""
        choices = [c for c in self.numbered if c.diff]
        ways = [way.source for choice in choices for way in choice.ways]
        whole = [*ways, *(choice.source for choice in choices), self.original]
        cut = [*ways, *(choice.diff for choice in choices), self.original, *(d.patch for d in self.declined)]
        if sum(map(len, whole)) + sum(map(len, cut[len(ways) :])) <= MOST_CODE:
            return None
        return max(LEAST_CODE, MOST_CODE // sum(map(bool, cut)))

    @property
    def announcement(self) -> str:
        """The one sentence that a screen reader speaks when the run has ended."""
        said = f"{self.headline}."
        if self.choices:
            count = len(self.choices)
            said += f" {count} {'change is' if count == 1 else 'changes are'} offered below."
        return said


def view_of(outcome: Outcome) -> ReportView:
    """Decide what is shown of a run."""
    recording, comparison = outcome.recording, outcome.comparison
    limit = limit_of(outcome)
    cells = tuple(outcome.new_cells)
    headline = sentences.headline(outcome)
    chart = chart_of(outcome) if sentences.has_timeline(outcome) else None
    view = ReportView(
        status=recording.status,
        mark=sentences.mark(outcome),
        word=rerun.STATUS_WORDS[recording.status],
        headline=headline,
        is_quiet=sentences.is_quiet(outcome),
        left=sentences.left_behind(outcome) if recording.status not in ("oom", "killed") else "",
        said=_said(outcome),
        heading=sentences.changes_heading(outcome),
        limit=amount(limit, unit_of(outcome)) if limit else "",
        choices=_numbered(outcome.edits, outcome, 1),
        cells=Group(sentences.new_cell_heading(outcome), _numbered(cells, outcome, len(outcome.edits) + 1))
        if cells
        else None,
        further=_further(outcome),
        further_label=sentences.further_heading(outcome),
        changes=tuple(change.text for change in outcome.changes),
        changes_label=changes_label(outcome),
        leftovers=tuple((name, amount(held)) for name, held in outcome.leftovers),
        declined=tuple(declined_view(declined, outcome) for declined in outcome.declined),
        declined_label=not_offered(outcome.declined),
        chart=chart,
        bar=_bar(outcome),
        peaks=sentences.other_peaks(outcome),
        notes=sentences.notes(outcome),
        urgent=outcome.notices,
        dumps=_dumps(outcome),
        raw=_raw(recording.stderr),
        original=comparison.original if comparison is not None else "",
        is_timed=chart is not None and took(recording.seconds) in headline and chart.seconds < 1.05 * recording.seconds,
        picture_words=sentences.describe(outcome),
        traced=steps_view(outcome),
    )
    return within_reach(view)


def _numbered(proposals: tuple[Proposal, ...], outcome: Outcome, first: int) -> tuple[ChoiceView, ...]:
    return tuple(choice_view(proposal, outcome, number) for number, proposal in enumerate(proposals, first))


def _further(outcome: Outcome) -> tuple[Group, ...]:
    groups, first = [], len(outcome.offered) + 1
    for heading, proposals in sentences.further_groups(outcome):
        groups.append(Group(heading, _numbered(proposals, outcome, first)))
        first += len(proposals)
    return tuple(groups)


def _said(outcome: Outcome) -> tuple[Said, ...]:
    """Give the lines under the headline: the rerun's numbers, where it happened, why, and the runs so far."""
    where, code = sentences.place(outcome)
    runs = rerun.history(outcome)
    lines = [Said(text) for text in (rerun.result(outcome), *rerun.checks(outcome)) if text]
    if where:
        lines.append(Said(where, code))
    told = sentences.paragraph(outcome)
    lines += [Said(told, may_shrink=True)] if told else []
    lines += [Said(text) for text in sentences.neighbours(outcome) if text]
    situation = outcome.diagnosis.situation if outcome.diagnosis is not None else None
    is_made_for = any(proposal.answers_cause for proposal in outcome.offered)
    if situation is not None and situation.advice and not is_made_for:
        lines.append(Said(situation.advice, situation.code, may_shrink=not situation.code))
    short = nothing_fits(outcome)
    lines += [Said(short)] if short else []
    if runs:
        lines.append(Said(f"Runs of this cell: {runs}"))
    return tuple(lines)


def _bar(outcome: Outcome) -> Bar | None:
    shares = sentences.breakdown(outcome)
    if not shares:
        return None
    main, named = 0, 0.0
    while named < MOST_OF_IT and main < min(MOST_MAIN, len(shares)):
        named, main = named + shares[main].fraction, main + 1
    return Bar(sentences.breakdown_heading(outcome), shares, main, sentences.largest_layers(outcome))


def _dumps(outcome: Outcome) -> tuple[DumpTable, ...]:
    tables = []
    for dump in outcome.recording.dumps:
        unit = unit_of(outcome)
        worth = [group for group in dump.groups if group.bytes >= max(TRIFLE, 0.05 * unit.size)]
        rows = tuple((amount(group.bytes, unit), str(group.count), group.op) for group in worth[:MOST_GROUPS])
        rest = len(dump.groups) - len(rows)
        more = f"and {rest} smaller" if rows and rest else ""
        tables.append(DumpTable(sentences.dump_summary(dump), rows, more))
    return tuple(tables)


def _raw(text: str) -> str:
    shown = text[:MOST_STDERR]
    while len(escape(shown)) > MOST_STDERR:
        shown = shown[: -(len(escape(shown)) - MOST_STDERR) // 5]
    if shown == text:
        return text
    return f"{shown}\n… {size(len(text) - len(shown))} more of this text are in the recording"
