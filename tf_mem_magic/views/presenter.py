"""Presenters: where a run shows itself, in a notebook page or in a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from tf_mem_magic.views.slots import Slot, can_show, is_attended

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.core.options import Options
    from tf_mem_magic.core.outcome import Outcome
    from tf_mem_magic.core.recording import Cell
    from tf_mem_magic.report.picture.live import Live
    from tf_mem_magic.views.actions import Actions

LIVE_AFTER = 0.5
"""Seconds a cell runs before the live strip appears: shorter cells would only flicker."""

LONG = 10.0
"""Seconds from which a cell counts as long in always-on mode."""


TELL_EVERY = 10.0
"""Seconds between the lines that an unattended run leaves in its report, for the case that the job is killed."""


class Presenter(Protocol):
    """What a run needs of the place where it shows itself."""

    def reserve(self) -> None:
        """Take the place above the cell's own output."""

    def tick(self, live: Live) -> None:
        """Show the moment; called in the sampler's thread."""

    def tell_first(self, outcome: Outcome) -> None:
        """Say at once what has happened: the report takes a moment more."""

    def finish(self, report: Report) -> None:
        """Show the report."""

    def tell_stopped(self, report: Report) -> None:
        """Show one line in place of a report that a Stop has ended."""

    def tell_changes(self, report: Report, applied: tuple[tuple[str, str], ...], remarks: tuple[str, ...] = ()) -> None:
        """Show the report together with what was changed without a click: keys and titles of the remedies."""

    def tell_tries(self, report: Report) -> None:
        """Show the report of a run that nothing helped, with all that was tried."""

    def tell_untried(self, report: Report) -> None:
        """Bring the report of a failed run into view on which nothing was tried without a click."""

    def retire(self) -> None:
        """Leave something static behind."""


class NotebookPresenter:
    """A report in three outputs: what happened, what can be done (live: the panel), and why.

    Where nobody sits before the page it is one output.
    Always-on runs reserve nothing until there is something to show, so that quiet cells stay as they are. Neither do
    hosted ones, which run inside another panel: its output area shows a display once and never updates it.
    """

    def __init__(self, shell: Any, cell: Cell, options: Options, actions: Actions, is_hosted: bool) -> None:
        self._cell, self._options, self._actions, self._is_hosted = cell, options, actions, is_hosted
        self._report_slot, self._panel_slot, self._rest_slot = Slot(shell), Slot(shell), Slot(shell)
        self._attended = is_attended(shell)
        self._told_at, self._began = 0.0, time.monotonic()
        self._panel: Any = None

    def reserve(self) -> None:
        """Take the outputs, for a tagged cell."""
        if self._cell.tagged and not self._is_hosted:
            self._report_slot.reserve()
            if self._attended:
                self._panel_slot.reserve()
                self._rest_slot.reserve()

    def tick(self, live: Live) -> None:
        """Show the live strip once the cell has run for a moment; where nobody watches, a line now and then."""
        if not self._attended and self._cell.tagged and live.seconds - self._told_at >= TELL_EVERY:
            from tf_mem_magic.report.bundle import running_bundle

            self._told_at = live.seconds
            self._report_slot.fill(running_bundle(live))
        if live.seconds < LIVE_AFTER or not self._attended or not self._options.live or self._is_hosted:
            return
        if not self._cell.tagged and live.seconds < LONG and not live.warning and live.waiting is None:
            return
        self._open_panel().tick(live)

    def tell_first(self, outcome: Outcome) -> None:
        """Say on the live strip, where there is one, what has happened: nothing moves until the report is there."""
        if self._panel is not None:
            self._panel.tell_first(outcome)

    def finish(self, report: Report) -> None:
        """Show the report: at once, but for the picture that only exports show."""
        from tf_mem_magic.report.bundle import choices_bundle, head_bundle, rest_bundle, whole_bundle
        from tf_mem_magic.report.sentences import has_timeline

        outcome = report.outcome
        if not self._is_worth_showing(report):
            self.retire()
            self._report_slot.empty()
            return
        if self._is_hosted or not self._attended:
            self._report_slot.fill(whole_bundle(outcome))
            return
        has_buttons = self._wants_panel(outcome) and self._options.on_oom == "panel"
        has_panel = has_buttons or (is_failure(outcome) and self._options.on_oom != "auto")
        if has_panel and self._panel is not None:
            self._panel.about_to_show()
        self._report_slot.fill(head_bundle(outcome))
        if has_panel:
            self._show_in_panel(outcome, None if has_buttons else choices_bundle(outcome)["text/html"])
        else:
            self._drop_panel()
            self._fill(self._panel_slot, choices_bundle(outcome))
        self._fill(self._rest_slot, rest_bundle(outcome, with_picture=False))
        if has_timeline(outcome):
            self._rest_slot.fill(rest_bundle(outcome))

    def tell_stopped(self, report: Report) -> None:
        """Show one line in place of the report."""
        from html import escape

        line = stopped_line(report)
        self._report_slot.fill({"text/html": f"<div>{escape(line)}</div>", "text/plain": line})
        self._drop_panel()
        for slot in (self._panel_slot, self._rest_slot):
            slot.empty()

    def tell_changes(self, report: Report, applied: tuple[tuple[str, str], ...], remarks: tuple[str, ...] = ()) -> None:
        """Show the report with the cell that really ran."""
        from tf_mem_magic.report.bundle import changed_cell_bundle

        self._replace(changed_cell_bundle(report.outcome, applied, remarks))

    def tell_tries(self, report: Report) -> None:
        """Show the report with what was tried, in place of the last try's."""
        from tf_mem_magic.report.bundle import tried_bundle

        self._replace(tried_bundle(report.outcome))
        if self._attended and not self._is_hosted and is_failure(report.outcome):
            self._show_in_panel(report.outcome, "")

    def tell_untried(self, report: Report) -> None:
        """Let the page learn that memory ran out: until now remedies might have helped without a click."""
        from tf_mem_magic.report.bundle import choices_bundle

        if self._attended and not self._is_hosted and is_failure(report.outcome):
            self._show_in_panel(report.outcome, choices_bundle(report.outcome)["text/html"])

    def _replace(self, bundle: dict[str, Any]) -> None:
        self._report_slot.fill(bundle)
        for slot in (self._panel_slot, self._rest_slot):
            slot.empty()

    def _fill(self, slot: Slot, bundle: dict[str, str]) -> None:
        """Fill a slot; where there is nothing to show, one that was never shown stays away."""
        if any(bundle.values()):
            slot.fill(bundle)
        else:
            slot.empty()

    def _undone(self, said: str) -> None:
        """Show that the cell has its old code again, in place of the report on the changed one."""
        from tf_mem_magic.report.bundle import undone_bundle

        self._report_slot.fill(undone_bundle(said))
        self._rest_slot.empty()

    def retire(self) -> None:
        """Replace the panel by static HTML, unless a copy of the cell runs inside it."""
        if self._panel is not None and self._panel.hosts:
            return
        panel, self._panel = self._panel, None
        if panel is not None:
            self._freeze(panel.freeze_html())
            panel.close()

    def _show_in_panel(self, outcome: Outcome, instead: str | None) -> None:
        """Show the outcome's buttons, or the HTML ``instead``: by the panel the page learns that memory ran out."""
        self._open_panel().show(outcome, instead=instead, elapsed=time.monotonic() - self._began)

    def _open_panel(self) -> Any:
        if self._panel is None:
            from tf_mem_magic.views.panel import Panel

            panel = Panel(self._actions, cell_source=self._cell.source, cell_id=self._cell.cell_id)
            panel.on_freeze, panel.on_undone = self._freeze, self._undone
            self._panel_slot.fill_widget(panel.widget, "tf_mem_magic: live panel")
            self._panel = panel
        return self._panel

    def _drop_panel(self) -> None:
        panel, self._panel = self._panel, None
        if panel is not None:
            self._panel_slot.empty()
            panel.close()

    def _freeze(self, html: str) -> None:
        self._panel_slot.fill({"text/html": html, "text/plain": ""})

    def _wants_panel(self, outcome: Outcome) -> bool:
        """Tell whether buttons are worth it: after a short or untagged run that went well, new cells to copy do."""
        if outcome.edits or outcome.further or outcome.comparison or outcome.leftovers:
            return True
        is_quiet = outcome.recording.status == "ok" and (
            not self._cell.tagged or outcome.recording.seconds < LIVE_AFTER
        )
        return bool(outcome.new_cells) and not is_quiet

    def _is_worth_showing(self, report: Report) -> bool:
        outcome = report.outcome
        if report.status != "ok" or outcome.comparison is not None:
            return True
        if self._options.quiet:
            return False
        if self._cell.tagged:
            return True
        return is_notable(outcome)


class TerminalPresenter:
    """Plain text after the cell; a terminal has no place above it."""

    def __init__(self, cell: Cell, options: Options) -> None:
        self._cell, self._options = cell, options

    def reserve(self) -> None:
        """Take no place."""

    def tick(self, live: Live) -> None:
        """Show nothing while the cell runs."""

    def tell_first(self, outcome: Outcome) -> None:
        """Print nothing: what is printed stays."""

    def finish(self, report: Report) -> None:
        """Print the report."""
        quiet = self._options.quiet or not (self._cell.tagged or is_notable(report.outcome))
        if report.status == "ok" and report.comparison is None and quiet:
            return
        print(report)

    def tell_stopped(self, report: Report) -> None:
        """Print one line in place of the report."""
        print(stopped_line(report))

    def tell_changes(self, report: Report, applied: tuple[tuple[str, str], ...], remarks: tuple[str, ...] = ()) -> None:
        """Print the report with the cell that really ran."""
        from tf_mem_magic.report.bundle import changed_cell_bundle

        print(changed_cell_bundle(report.outcome, applied, remarks)["text/plain"])

    def tell_tries(self, report: Report) -> None:
        """Print the report with what was tried."""
        print(report)

    def tell_untried(self, report: Report) -> None:
        """Leave what was printed."""

    def retire(self) -> None:
        """Leave what was printed."""


def make_presenter(shell: Any, cell: Cell, options: Options, actions: Actions, *, is_hosted: bool = False) -> Presenter:
    """Choose the presenter for the shell; ``is_hosted``: the cell runs inside another panel."""
    if can_show(shell):
        return NotebookPresenter(shell, cell, options, actions, is_hosted)
    return TerminalPresenter(cell, options)


def stopped_line(report: Report) -> str:
    """Say in one line that a Stop ended the run's report."""
    from tf_mem_magic.report.sentences import headline, mark

    return f"{mark(report.outcome)} {headline(report.outcome)}"


def is_failure(outcome: Outcome) -> bool:
    """Tell whether memory ran out: then the page brings the report into view."""
    return outcome.recording.status in ("oom", "killed")


def is_notable(outcome: Outcome) -> bool:
    """Tell whether an always-on run is worth a line: long, near a limit, or memory left behind."""
    recording = outcome.recording
    near = any(s.peak is not None and s.limit and s.peak > 0.9 * s.limit for s in recording.series)
    return recording.seconds >= LONG or near or bool(outcome.leftovers)
