"""How many words a report shows before anything is opened, and what is folded away where they are too many."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tf_mem_magic.report.choices import ChoiceView

if TYPE_CHECKING:
    from tf_mem_magic.report.view import ReportView, Said

MOST_WORDS = 90
"""Words that are seen before anything is opened."""

_AROUND = 8
"""Words that stand around what is counted: heads of columns, the foot's button, the folds' own labels."""

_SENTENCE = re.compile(r"(?<=[.!])\s+(?=[A-Z`])")


def within_reach(view: ReportView) -> ReportView:
    """Fold what comes last in importance until the words can be read at a glance.

    First the last sentences of the paragraph that says why, and of advice: what was needed and what there was stays,
    and so does the code of advice. Then the changes that do not fit, where one that may stands above them, and those
    that may, where the first is expected to.
    """
    while words_of(view) > MOST_WORDS and (shorter := _shorter(view)) is not None:
        view = shorter
    while words_of(view) > MOST_WORDS and _fits(view.shown[:1]) and not _fits(view.shown[-1:]):
        view = replace(view, seen=len(view.shown) - 1)
    while words_of(view) > MOST_WORDS and _surely(view.shown[:1]) and view.shown[1:] and not _surely(view.shown[-1:]):
        view = replace(view, seen=len(view.shown) - 1)
    return view


def words_of(view: ReportView) -> int:
    """Count the words that a page shows of a report before anything is opened; code to copy is not read."""
    texts = [view.headline, view.left, view.changes_label, view.declined_label]
    texts += [text for said in view.said for text in (said.text, "" if "\n" in said.code else said.code)]
    for number, choice in enumerate(view.shown):
        texts += [choice.button, choice.keeps, choice.cost, *_ways(choice, number)]
        texts += [choice.expected.range, choice.expected.word] if choice.expected else []
    if view.bar is not None:
        texts += [text for share in view.bar.shares[: view.bar.main] for text in (share.label, share.amount)]
    if view.chart is not None:
        texts += [curve.name for curve in (*view.chart.curves, *view.chart.lines)]
        texts += [view.chart.cap.label] if view.chart.cap is not None else []
    return _AROUND + sum(bool(re.search(r"\w", word)) for text in texts for word in text.split())


def _ways(choice: ChoiceView, number: int) -> list[str]:
    """Give what stands beside a button: further ways to apply the best change, or any whose names can be ticked."""
    picks = choice.proposal.picks
    return [way.label for way in choice.ways] * (number == 0 or bool(picks)) + ["change 9 names to tick"] * bool(picks)


def _fits(choices: tuple[ChoiceView, ...]) -> bool:
    return not choices or choices[0].expected is None or choices[0].expected.word != "no"


def _surely(choices: tuple[ChoiceView, ...]) -> bool:
    return bool(choices) and choices[0].expected is not None and choices[0].expected.word in ("fits", "likely")


def _shorter(view: ReportView) -> ReportView | None:
    """Fold one more sentence; None where there is none left that may be."""
    at = next((n for n, said in enumerate(view.said) if said.may_shrink and _SENTENCE.search(said.text)), None)
    if at is None:
        return None
    said: Said = view.said[at]
    *rest, last = _SENTENCE.split(said.text)
    kept = replace(said, text=" ".join(rest))
    return replace(view, said=(*view.said[:at], kept, *view.said[at + 1 :]), why=(last, *view.why))
