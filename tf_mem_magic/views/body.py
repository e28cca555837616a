"""The panel's body: the widgets for one outcome. What is shown is decided by the view; clicks go to the panel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol

from tf_mem_magic.core import troubles
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.report.choices import ChoiceView, DeclinedView, choice_view, declined_view
from tf_mem_magic.report.html.markup import code_words, escaped, plain, prose
from tf_mem_magic.report.html.page import declined_html, details_html, facts_html, head_of_columns
from tf_mem_magic.report.sentences import FIRST_HEADING
from tf_mem_magic.report.view import view_of
from tf_mem_magic.views import controls
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
        self._outcome, self._view = outcome, view_of(outcome)
        self._below, self._source, self._clicks = tier != "edit", source, clicks
        self._buttons: list[Any] = []
        self._estimated = any(choice.expected for choice in self._view.choices)
        self._picked: tuple[str, ...] | None = None
        self._ticks = Ticks(lambda keys: clicks.combine(keys, self._picked), self._together)
        self.widget = controls.column(*self._parts(), name="tfmem-body")

    def enable(self, enabled: bool) -> None:
        """Enable or disable every button."""
        for button in self._buttons:
            button.disabled = not enabled

    @property
    def count(self) -> int:
        """How many buttons a page has to draw before the body stands."""
        return len(self._buttons)

    def _parts(self) -> list[Any]:
        view = self._view
        parts, folds = [], []
        if view.choices:
            if self._below or view.heading != FIRST_HEADING:
                parts.append(self._heading())
            tickable = len(view.choices) > 1
            rows = [self._choice(c, accent=i == 0, tickable=tickable) for i, c in enumerate(view.choices)]
            parts += rows[: len(view.shown)]
            if rows[len(view.shown) :]:
                folds.append(controls.folded(f"{len(view.more)} more", *rows[len(view.shown) :], tip="Further changes"))
            parts.append(self._ticks.widget)
        if view.cells is not None and view.status != "ok":
            rows = [self._choice(choice) for choice in view.cells.rows]
            folds.append(controls.folded(plain(view.cells.heading), *rows, tip="Cells of their own"))
        return [*parts, *self._end(folds)]

    def _end(self, folds: list[Any]) -> list[Any]:
        """Give what is folded, and the foot: inside the fold where a run that went well left nothing else."""
        view = self._view
        if view.leftovers:
            names = [self._leftover(name, size) for name, size in view.leftovers]
            folds.append(controls.folded(view.leftovers_label, *names, tip="What the run left in memory, to let go of"))
        if view.further:
            inside = [
                widget
                for group in view.further
                for widget in (controls.text(prose(group.heading), "tfmem-head"), *map(self._choice, group.rows))
            ]
            folds.append(controls.folded(view.further_label, *inside, tip="What else could be changed"))
        pairs = zip(view.declined, self._outcome.declined)
        reasons = [widget for shown, declined in pairs for widget in self._declined(shown, declined)]
        if view.cells is not None and view.status == "ok":
            inside = [*map(self._choice, view.cells.rows), *reasons]
            if not (self._outcome.comparison or view.leftovers):
                return [controls.folded(plain(view.cells.heading), *inside, self._foot(), tip="For deployment")]
            folds.append(controls.folded(plain(view.cells.heading), *inside, tip="For deployment"))
        elif reasons:
            folds.append(controls.folded(view.declined_label, *reasons, tip="What is not offered, and why"))
        parts = [self._foot(), *folds] if self._outcome.comparison else [*folds, self._foot()]
        return [controls.side_by_side(*parts)]

    def _heading(self) -> Any:
        words = "" if self._view.heading == FIRST_HEADING else prose(self._view.heading)
        if self._below:
            words = "Run a changed copy below. The cell itself keeps the old code: copy the change into it."
        columns = controls.text(head_of_columns(self._view, self._estimated))
        row = controls.row(controls.text(words, "tfmem-head"), columns, name="tfmem-choice-row")
        row.add_class("tfmem-heads")
        return row

    def _together(self, answer: Proposal | Declined) -> Any:
        if isinstance(answer, Declined):
            return controls.text(declined_html(declined_view(answer, self._outcome)))
        return self._offer(replace(answer, title=f"Apply together: {answer.title}"))

    def _offer(self, proposal: Proposal) -> Any:
        return self._choice(choice_view(proposal, self._outcome))

    def _choice(self, choice: ChoiceView, *, accent: bool = False, tickable: bool = False) -> Any:
        proposal = choice.proposal
        if not proposal.picks:
            return self._row(choice, accent=accent, tickable=tickable)

        def make(names: tuple[str, ...]) -> Proposal | Declined:
            self._picked = names
            self._ticks.refresh()
            return self._clicks.combine((proposal.key,), names)

        def offer(answer: Proposal) -> Any:
            return self._row(choice_view(answer, self._outcome), accent=accent, folded=False)

        def details(answer: Proposal | Declined) -> str:
            if isinstance(answer, Declined):
                return declined_html(declined_view(answer, self._outcome))
            return details_html(choice_view(answer, self._outcome))

        beside = [self._ticks.box(proposal)] if tickable else []
        return Picks(proposal, make, offer, details, self._clicks.failed, *beside).widget

    def _row(self, choice: ChoiceView, *, accent: bool = False, tickable: bool = False, folded: bool = True) -> Any:
        """Make a row: the button, what it keeps, and, folded, the change with all that belongs to it."""
        proposal = choice.proposal
        apply = self._apply(proposal, choice.button, accent=accent)
        apply.add_class("tfmem-main-button")
        facts = controls.text(facts_html(choice, self._estimated))
        ways = [
            self._apply(replace(proposal, source=c.source, takes_effect=c.takes_effect), c.label, c.note)
            for c in choice.ways
        ]
        first = [self._copy(proposal)] if self._below else []
        if not folded:
            return controls.row(apply, *first, facts, *ways, name="tfmem-choice-row")
        inside = [controls.text(details_html(choice))]
        if tickable:
            inside.append(self._ticks.box(proposal))
        seen, inside = (ways, inside) if accent else ([], [*inside, *ways])
        label = choice.opens if accent or not tickable else ""
        opens = controls.folded(label, *inside, tip=f"{choice.opens}: {plain(choice.button)}", bare=True)
        return controls.row(*first, apply, facts, *opens, *seen, name="tfmem-choice-row")

    def _copy(self, proposal: Proposal) -> Any:
        what = "Copy the new cell" if proposal.new_cell else "Copy the changed cell"
        return self._button(
            "Copy the cell", f"{what}: {plain(proposal.title)}", partial(self._clicks.copy, proposal.source)
        )

    def _apply(self, proposal: Proposal, label: str, note: str = "", *, accent: bool = False) -> Any:
        label = plain(label)
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
        tip = f"{does}: {plain(note or proposal.title)}"
        return self._button(label, tip, partial(self._clicks.apply, proposal), accent=accent)

    def _leftover(self, name: str, size: str) -> Any:
        def let_go() -> None:
            self._clicks.free(name)
            self._buttons.remove(button)
            button.disabled = True

        button = self._button("let go", f"Let go of what {name} holds", let_go)
        return controls.row(button, controls.text(f"{code_words(name)} {escaped(size)}", "tfmem-beside"))

    def _declined(self, shown: DeclinedView, declined: Declined) -> list[Any]:
        said = [controls.text(declined_html(replace(shown, settings=None)))]
        return said if declined.settings is None else [*said, self._offer(declined.settings)]

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
                troubles.note(f"the button {label!r} went wrong", error)
                self._clicks.failed(error)

        made = controls.button(label, tip, guarded, accent=accent)
        self._buttons.append(made)
        return made
