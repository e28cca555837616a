"""CellRun: one watched run of one cell, from the reserved slots to the report."""

from __future__ import annotations

import linecache
import sys
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.diagnose.breakdown import find_leftovers
from tf_mem_magic.diagnose.cause import WORTH_NAMING
from tf_mem_magic.diagnose.dump import device_of
from tf_mem_magic.record.capture import Capture
from tf_mem_magic.session.clicks import PanelActions

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.core.live import Live
    from tf_mem_magic.core.options import Options
    from tf_mem_magic.core.proposals import Proposal
    from tf_mem_magic.core.recording import Cell, Recording
    from tf_mem_magic.session.auto import HeldError
    from tf_mem_magic.session.session import Expected, Session
    from tf_mem_magic.views.presenter import Presenter


class CellRun:
    """Everything around one run of a cell; made by :meth:`Session.begin`."""

    def __init__(self, session: Session, cell: Cell, options: Options, expected: Expected | None) -> None:
        from tf_mem_magic.views.presenter import make_presenter

        self.session, self.cell, self.options = session, cell, options
        self.lineage = expected.lineage if expected else Lineage()
        self._previous = expected.previous if expected else None
        self._notices: tuple[str, ...] = ()
        self._compiled: dict[str, float] = {}
        self.report: Report | None = None
        self.results: list[weakref.ref[Any]] = []
        """What reruns in this process gave (``Report.rerun``): IPython keeps it under the number of another cell."""
        self._is_try = session.climbing is not None
        self._held: HeldError | None = None
        self._presenter = (
            session.climbing.presenter
            if session.climbing is not None
            else make_presenter(session.shell, cell, options, PanelActions(self), is_hosted=session.is_hosted)
        )
        self.capture = Capture(
            cell,
            session.shell.user_ns,
            session.pool,
            interval=options.interval,
            on_tick=self._tick,
            earlier_cells=session.earlier_sources(cell.source),
            keep_weights=options.keep_weights,
            host_stop=options.host_stop,
            goes_on=self.lineage.applied is not None,
        )

    @property
    def presenter(self) -> Presenter:
        """Where the run shows itself."""
        return self._presenter

    def start(self) -> None:
        """Reserve the slots, bring memory back where this is a rerun, and start recording."""
        if not self._is_try:
            self._presenter.reserve()
        if self.options.on_oom == "auto":
            from tf_mem_magic.session.auto import HeldError

            self._held = HeldError(self.session.shell, self.capture.is_out_of_memory, self._is_try)
        if self._previous is not None:
            from tf_mem_magic.session.in_process import take_back

            replaced = self._replaced(self._previous)
            # In this order: what is taken back may bind names that the previous run bound too.
            self._release_previous()
            take_back(self.session.shell, replaced)
        # Now: what was taken back was compiled like a cell, but it is none.
        self._compiled = compiled_cells(self.session.shell)
        self.capture.start()

    def finish(self, error: BaseException | None, count: int | None) -> bool:
        """Stop recording, explain, show, and let go of what the error holds.

        ``count`` is the execution count. Gives whether the cell failed and remedies made it succeed all the same.
        """
        try:
            self._report_on(error, count)
            error = None
            return self._climb()
        except Exception:
            self.capture.abandon()
            raise
        finally:
            if self._held is not None:  # nothing helped, or something of ours failed: the cell's own error is shown
                self._held.restore()
                self._held.show()

    def _report_on(self, error: BaseException | None, count: int | None) -> None:
        from tf_mem_magic.api import Report
        from tf_mem_magic.explain import explain

        compiled = compiled_cells(self.session.shell)
        files = frozenset(n for n, number in compiled.items() if number == count or self._compiled.get(n) != number)
        recording = with_garbage(self.capture.stop(error, files, count))
        notices = (*self._notices, *self.capture.notices)
        deploys = not self.session.is_new_cell(self.cell.source)
        outcome = explain(recording, self.lineage, notices, self.session.measured, deploys)
        self.lineage = self.lineage.finished(outcome)
        self.report = Report(outcome, self._rerun_here)
        self.session.reported(self.report, self)
        self._deliver(self.report)
        self._presenter.finish(self.report)
        if recording.status == "oom" and not self.options.keep_frames and error is not None:
            from tf_mem_magic.release.release import release_exception

            release_exception(error)

    def _climb(self) -> bool:
        """Try remedies where the options ask for it; the held error is shown in the end, or the cell has succeeded."""
        if self._held is None:
            return False
        self._held.restore()
        if self._is_try:
            self._held = None
            return False
        from tf_mem_magic.session.auto import Ladder

        last = Ladder(self.options).climb(self)
        if last is None or last.report is None:
            return False
        self._held = None
        self._presenter.tell_changes(last.report, tuple((p.key, p.title) for p in last.lineage.effective))
        return True

    def abandon(self) -> None:
        """Stop recording without a report."""
        if self._held is not None:
            self._held.restore()
        self.capture.abandon()
        self._presenter.retire()

    def retire(self) -> None:
        """Freeze the panel: another run of the cell takes over, or the extension goes."""
        self._presenter.retire()

    def _tick(self, live: Live) -> None:
        if live.waiting is not None:
            from tf_mem_magic.session.warm import warm_up

            warm_up()
        self._presenter.tick(live)

    def _deliver(self, report: Report) -> None:
        """Store and save the report as the options ask."""
        if self.options.output:
            self.session.shell.user_ns[self.options.output] = report
        if self.options.save:
            try:
                report.save(self.options.save)
            except OSError as error:
                why = error.strerror or error
                print(f"%%tfmem: the report could not be saved to {self.options.save}: {why}.", file=sys.stderr)

    def _replaced(self, previous: CellRun) -> tuple[Proposal, ...]:
        """Give the remedies in the cell of the run before that the one applied now takes the place of."""
        applied = self.lineage.applied
        return previous.lineage.effective if applied is not None and applied.instead_of else ()

    def _release_previous(self) -> None:
        from tf_mem_magic.release.release import release_run

        previous, self._previous = self._previous, None
        if previous is not None:
            results = [reference() for reference in previous.results]
            released = release_run(self.session.shell, previous.capture.before, previous.cell.source, results)
            self._notices = (*self._notices, *released.sentences)

    def _rerun_here(self, key: str) -> Report:
        """Run the remedy's cell in this process; what :meth:`Report.rerun` calls."""
        from tf_mem_magic.session.in_process import rerun_in_process

        return rerun_in_process(self, key)


def with_garbage(recording: Recording) -> Recording:
    """Count what was garbage when memory ran out: what the run began with, and what it has made since.

    What the failed step holds is not collected yet: the error's frames still refer to it.
    """
    series = recording.main
    if recording.status != "oom" or series is None or series.kind != "allocator":
        return recording
    dumps = (dump.limit for dump in reversed(recording.dumps) if device_of(dump.allocator) == series.device)
    # TensorFlow does not tell the limit that it chose itself; its dump does.
    limit = series.limit or next((limit for limit in dumps if limit), None) or series.peak or 0
    unnamed = find_leftovers(recording, series.device or "").unnamed or 0
    from tf_mem_magic.release.release import bytes_in_use, collect, gained

    counted = bytes_in_use()
    collect()
    back = dict(gained(counted, bytes_in_use())).get(series.name, 0)
    begun, made = min(back, unnamed), max(back - unnamed, 0)
    return replace(
        recording,
        garbage=((series.name, begun),) if begun and unnamed >= WORTH_NAMING * limit else (),
        discarded=((series.name, made),) if made and made >= WORTH_NAMING * limit else (),
    )


def compiled_cells(shell: Any) -> dict[str, float]:
    """Give the file names under which the shell compiled its cells, each with a number that a new run changes.

    It is the execution count; IPython 7 does not keep that with the name, but the time.
    """
    counts = getattr(getattr(shell, "compile", None), "_filename_map", None)
    if counts is not None:
        return dict(counts)
    return {name: entry[1] for name, entry in getattr(linecache, "_ipython_cache", {}).items()}
