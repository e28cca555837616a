"""The panel's body: the widgets for one outcome. It decides what is shown; clicks go to the panel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any, Literal, Protocol

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.report.measures import amount, limit_of
from tf_mem_magic.report.sentences import (
    changes_heading,
    further_groups,
    further_heading,
    new_cell_heading,
    not_offered,
)
from tf_mem_magic.views import controls, rows
from tf_mem_magic.views.picks import Picks
from tf_mem_magic.views.ticks import Ticks

Tier = Literal["edit", "execute", "panel"]


class Clicks(Protocol):
    """What the buttons do."""

    def apply(self, proposal: Proposal) -> None:
        """Run the cell with the change."""

    def combine(self, keys: tuple[str, ...], picked: tuple[str, ...] | None = None) -> Proposal | Declined:
        """Give the proposal that applies several remedies at once, or the reason why there is none."""

    def copy(self, source: str) -> None:
        """Put code on the clipboard."""

    def undo(self, original: str) -> None:
        """Put the cell's old code back."""

    def free(self, name: str) -> None:
        """Let go of what a name holds."""

    def dismiss(self) -> None:
        """Close the panel."""

    def failed(self, error: Exception) -> None:
        """Say that a click went wrong: Jupyter itself would swallow the error."""


class Body:
    """The widgets of one outcome; ``widget`` is what to display."""

    def __init__(self, outcome: Outcome, tier: Tier, source: str, clicks: Clicks) -> None:
        self._outcome, self._below, self._source, self._clicks = outcome, tier != "edit", source, clicks
        self._buttons: list[Any] = []
        self._is_quiet = outcome.recording.status == "ok"
        self._picked: tuple[str, ...] | None = None
        self._ticks = Ticks(lambda keys: clicks.combine(keys, self._picked), self._together)
        self.widget = controls.column(*self._parts())

    def enable(self, enabled: bool) -> None:
        """Enable or disable every button."""
        for button in self._buttons:
            button.disabled = not enabled

    def _parts(self) -> list[Any]:
        outcome = self._outcome
        parts = []
        if (changes := rows.changes_html(outcome.changes)) and not self._is_quiet:
            parts.append(controls.text(changes))
        if outcome.edits:
            parts.append(self._heading())
            tickable = len(outcome.edits) > 1
            parts += [self._proposal(p, accent=i == 0, tickable=tickable) for i, p in enumerate(outcome.edits)]
            parts.append(self._ticks.widget)
        if outcome.new_cells and not self._is_quiet:
            parts.append(controls.text(rows.prose(new_cell_heading(outcome)), "tfmem-head"))
            parts += map(self._proposal, outcome.new_cells)
        if outcome.leftovers:
            parts.append(controls.text("Left in memory", "tfmem-head"))
            parts += [self._leftover(name, size) for name, size in outcome.leftovers]
        return [*parts, *self._end()]

    def _end(self) -> list[Any]:
        """Give what is folded, and the foot: inside the fold where a run that went well left nothing else."""
        outcome = self._outcome
        reasons = [widget for declined in outcome.declined for widget in self._declined(declined)]
        further = self._further()
        if not (self._is_quiet and outcome.new_cells):
            folds = [controls.folded(not_offered(outcome.declined), *reasons)] if reasons else []
            return [*further, *folds, self._foot()]
        label = new_cell_heading(outcome).replace("`", "")
        inside = [*map(self._proposal, outcome.new_cells), *reasons]
        if outcome.comparison or outcome.leftovers:
            return [*further, controls.folded(label, *inside), self._foot()]
        return [controls.folded(label, *inside, self._foot())]

    def _further(self) -> list[Any]:
        """Give what else could be changed after a rerun that fitted, folded."""
        outcome = self._outcome
        if not outcome.further:
            return []
        inside = [controls.text(said)] if (said := rows.changes_html(outcome.changes)) else []
        for heading, proposals in further_groups(outcome):
            inside += [controls.text(heading, "tfmem-head"), *map(self._proposal, proposals)]
        return [controls.folded(further_heading(outcome), *inside, tip="Show or hide what else could be changed")]

    def _heading(self) -> Any:
        if self._below:
            words = "Run a changed copy below. The cell itself keeps the old code: copy the change into it."
        else:
            words = changes_heading(self._outcome)
        return controls.row(controls.text(words, "tfmem-head"), controls.text(rows.columns_html(self._outcome)))

    def _together(self, answer: Proposal | Declined) -> Any:
        if isinstance(answer, Declined):
            return controls.text(rows.declined_html(answer))
        return self._proposal(replace(answer, title=f"Apply together: {answer.title}"))

    def _proposal(self, proposal: Proposal, *, accent: bool = False, tickable: bool = False) -> Any:
        limit = limit_of(self._outcome)
        if not proposal.picks:
            return self._row(proposal, rows.row_html(proposal, limit), accent=accent, tickable=tickable)

        def make(names: tuple[str, ...]) -> Proposal | Declined:
            self._picked = names
            self._ticks.refresh()
            return self._clicks.combine((proposal.key,), names)

        def offer(answer: Proposal) -> Any:
            return self._row(answer, rows.facts_html(answer, limit), accent=accent)

        beside = [self._ticks.box(proposal)] if tickable else []
        return Picks(proposal, make, offer, self._clicks.failed, *beside).widget

    def _row(self, proposal: Proposal, html: str, *, accent: bool = False, tickable: bool = False) -> Any:
        apply = self._apply(proposal, proposal.title, accent=accent)
        apply.add_class("tfmem-main-button")
        facts = controls.text(html)
        choices = [
            self._apply(replace(proposal, source=c.source, takes_effect=c.takes_effect), c.label, c.note)
            for c in proposal.choices
        ]
        for choice in choices:
            choice.add_class("tfmem-choice")
        if tickable:
            choices.append(self._ticks.box(proposal))
        if not self._below:
            return controls.row(apply, facts, *choices)
        what = "Copy the new cell" if proposal.new_cell else "Copy the changed cell"
        copy = self._button("Copy the cell", what, partial(self._clicks.copy, proposal.source))
        return controls.row(copy, apply, facts, *choices)

    def _apply(self, proposal: Proposal, label: str, note: str = "", *, accent: bool = False) -> Any:
        if proposal.takes_effect == "restart":
            does = "Restart the kernel with this change"
        elif proposal.new_cell:
            does = "Run it here, as no cell of the notebook" if self._below else "Add a cell below this one and run it"
            label = f"Run a new cell below: {label}"
        elif self._below:
            does = "Run a copy with this change"
            label = f"Run a changed copy below: {label}"
        else:
            does = "Change the cell and run it again"
        tip = f"{does}: {note or proposal.title}"
        return self._button(label, tip, partial(self._clicks.apply, proposal), accent=accent)

    def _leftover(self, name: str, size: int) -> Any:
        def let_go() -> None:
            self._clicks.free(name)
            self._buttons.remove(button)
            button.disabled = True

        button = self._button("let go", f"Let go of what {name} holds", let_go)
        return controls.row(button, controls.text(f"<code>{escape(name)}</code> {amount(size)}", "tfmem-beside"))

    def _declined(self, declined: Declined) -> list[Any]:
        said = [controls.text(rows.declined_html(declined))]
        return said if declined.settings is None else [*said, self._proposal(declined.settings)]

    def _foot(self) -> Any:
        foot = []
        comparison = self._outcome.comparison
        if comparison is not None and comparison.original not in ("", self._source):
            if not self._below:
                tip = "Put the cell's old code back; nothing is run"
                foot.append(self._button("Undo", tip, partial(self._clicks.undo, comparison.original)))
            foot.append(
                self._button("Copy the cell", "Copy the changed cell", partial(self._clicks.copy, self._source))
            )
        dismiss = self._button("Dismiss", "Close the panel; its text stays in the notebook", self._clicks.dismiss)
        dismiss.add_class("tfmem-quiet")
        return controls.row(*foot, dismiss)

    def _button(self, label: str, tip: str, press: Callable[[], None], *, accent: bool = False) -> Any:
        def guarded() -> None:
            try:
                press()
            except Exception as error:
                self._clicks.failed(error)

        made = controls.button(label, tip, guarded, accent=accent)
        self._buttons.append(made)
        return made
