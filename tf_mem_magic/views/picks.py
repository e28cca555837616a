"""Picks: boxes for what a proposal lets go of; the proposal is made anew of what is ticked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.proposals import Declined, Pick, Proposal
from tf_mem_magic.report.measures import amount
from tf_mem_magic.views import controls

Make = Callable[[tuple[str, ...]], Proposal | Declined]
Offer = Callable[[Proposal], Any]
Details = Callable[[Proposal | Declined], str]
Failed = Callable[[Exception], None]


class Picks:
    """What is offered for the ticked names, and folded below it their boxes; ``widget`` is what to display.

    ``make`` answers for the names that are ticked; ``offer`` makes the widget of its answer, ``details`` the HTML of
    what it changes or why not; ``failed`` is told of an error, which Jupyter would swallow. ``beside`` are widgets to
    fold with the boxes.
    """

    def __init__(
        self, proposal: Proposal, make: Make, offer: Offer, details: Details, failed: Failed, *beside: Any
    ) -> None:
        self._picks, self._make, self._offer, self._failed = proposal.picks, make, offer, failed
        self._details = details
        self._boxes = [self._box(pick) for pick in proposal.picks]
        self._said, self._change, self._offered = controls.text(""), controls.text(""), controls.column()
        self._show(proposal)
        change = controls.folded("change", self._change, tip="Show or hide what becomes of the cell")
        change.add_class("tfmem-change")
        self.widget = controls.column(self._offered, controls.row(change, self._names(*beside)), name="tfmem-picks")

    def _box(self, pick: Pick) -> Any:
        what = f", {pick.what}" if pick.what else ""
        label = f"{pick.name} ({amount(pick.bytes)}{what})"
        return controls.checkbox(label, f"Let go of {label}", self._changed, ticked=pick.ticked)

    def _names(self, *beside: Any) -> Any:
        """Fold the boxes, with what stands ``beside`` them: the button names what is ticked."""
        count = len(self._boxes)
        label, tip = f"{count} name{'s' * (count > 1)} to tick", "Show or hide the names, to tick others"
        folded = controls.folded(label, controls.row(*self._boxes), self._said, *beside, tip=tip)
        folded.add_class("tfmem-change")
        return folded

    def _changed(self) -> None:
        try:
            self._show(self._make(tuple(pick.name for pick, box in zip(self._picks, self._boxes) if box.value)))
        except Exception as error:
            troubles.note("a tick in the panel went wrong", error)
            self._failed(error)

    def _show(self, answer: Proposal | Declined) -> None:
        ticked = sum(pick.bytes for pick, box in zip(self._picks, self._boxes) if box.value)
        self._said.value = _ticked(ticked, sum(pick.bytes for pick in self._picks))
        self._change.value = self._details(answer)
        controls.fill(self._offered, *([self._offer(answer)] if isinstance(answer, Proposal) else []))


def _ticked(ticked: int, found: int) -> str:
    """Say how much is ticked of what was found."""
    said = f"{amount(ticked)} of {amount(found)} ticked" if ticked else "Nothing is ticked"
    return f'<div role="status">{said}.</div>'
