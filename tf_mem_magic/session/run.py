"""CellRun: one watched run of one cell, from the reserved slots to the report."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.diagnose.breakdown import deployable
from tf_mem_magic.record.capture import Capture
from tf_mem_magic.record.held_stop import HeldStop, StoppedError
from tf_mem_magic.session.clicks import PanelActions
from tf_mem_magic.session.compiled import compiled_cells
from tf_mem_magic.session.garbage import with_garbage
from tf_mem_magic.session.stop import current_task, was_cancelled
from tf_mem_magic.session.warm import WarmUp

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.core.options import Options
    from tf_mem_magic.core.recording import Recording
    from tf_mem_magic.facts.before import Before
    from tf_mem_magic.report.picture.live import Live
    from tf_mem_magic.session.auto import HeldError
    from tf_mem_magic.session.session import Session
    from tf_mem_magic.session.state import LiveRun, Run
    from tf_mem_magic.views.presenter import Presenter


class CellRun:
    """What is alive of one run of a cell: its recording, its place on the page; made by :meth:`Session.begin`.

    Attributes
    ----------
    run : Run
        The run as a value.
    report : Report or None
        Its report, once it is explained.
    results : list of weak references
        What reruns in this process gave (``Report.rerun``): IPython keeps it under the number of another cell.
    """

    def __init__(self, session: Session, run: Run, options: Options, earlier_cells: Sequence[str]) -> None:
        from tf_mem_magic.views.presenter import make_presenter

        self.host, self.run, self._options = session, run, options
        self.report: Report | None = None
        self.results: list[weakref.ref[Any]] = []
        self._previous: LiveRun | None = None
        if run.rerun is not None and run.rerun.continues:
            self._previous = session.register.of(run.rerun.from_run)
        self._is_try = run.how == "auto"
        self._notices: tuple[str, ...] = ()
        self._troubles = troubles.mark()
        self._compiled: dict[str, float] = {}
        self._task: Any = None
        self._held: HeldError | None = None
        self._presenter = (
            self._previous.presenter
            if self._is_try and self._previous is not None
            else make_presenter(session.shell, run.cell, options, PanelActions(self), is_hosted=run.how == "panel")
        )
        self._capture = Capture(
            run.cell,
            session.shell.user_ns,
            session.pool,
            interval=options.interval,
            on_tick=self._tick,
            earlier_cells=earlier_cells,
            keep_weights=options.keep_weights,
            host_stop=options.host_stop,
            goes_on=run.lineage.applied is not None,
            trace=options.trace,
        )
        self._warm_up = WarmUp(self._capture.so_far)

    @property
    def presenter(self) -> Presenter:
        """Where the run shows itself."""
        return self._presenter

    @property
    def before(self) -> Before:
        """What the names of the notebook held when it began."""
        return self._capture.before

    def start(self) -> None:
        """Reserve the slots, bring memory back where this is a rerun, and start recording."""
        self.run = self.run.to("recording")
        self._task = current_task()
        if not self._is_try:
            self._presenter.reserve()
        if self._options.on_oom == "auto":
            from tf_mem_magic.session.auto import HeldError

            self._held = HeldError(self.host.shell, self._capture.is_out_of_memory, self._is_try)
        previous, self._previous = self._previous, None
        if previous is not None:
            from tf_mem_magic.session.in_process import take_back

            replaced = self._replaced(previous)
            # In this order: what is taken back may bind names that the previous run bound too.
            self._release(previous)
            take_back(self.host.shell, replaced)
        # Now: what was taken back was compiled like a cell, but it is none.
        self._compiled = compiled_cells(self.host.shell)
        self._capture.start()

    def finish(self, error: BaseException | None, count: int | None, stop: HeldStop) -> bool:
        """Stop recording, explain, show, and let go of what the error holds.

        Parameters
        ----------
        error : BaseException or None
            What ended the cell.
        count : int or None
            The execution count.
        stop : HeldStop
            Holds back Stops: one that comes now ends the report, not what must be put back.

        Returns
        -------
        bool
            Whether the cell failed and remedies made it succeed all the same.
        """
        self._capture.end()
        if self._capture.stopped_for_memory and error is None:
            stop.stopped = False  # our own interrupt, which came when the cell had just ended
        try:
            try:
                report = stop.run(lambda: self._explain(error, count))
            except StoppedError:
                self._tell_stopped(count)
                return False
            self._keep(report)
            stop.run(lambda: self._present(report))
            self._let_go_of(error)
            error = None
            return self._climb(stop)
        except StoppedError:
            return False
        except BaseException:  # an error of the user's own that ends more than a cell: nothing of ours may stay
            self._capture.abandon()
            raise
        finally:
            self._let_go_of(error)
            if self._held is not None:  # nothing helped, or something of ours failed: the cell's own error is shown
                self._held.restore()
                self._held.show()

    def abandon(self) -> None:
        """Stop recording without a report."""
        if self._held is not None:
            self._held.restore()
        self._capture.abandon()
        self.retire()

    def supersede(self) -> None:
        """Freeze the panel: another run of the cell takes over."""
        self.run = self.run.to("superseded")
        self._presenter.retire()

    def retire(self) -> None:
        """Freeze the panel for good."""
        self.run = self.run.to("retired")
        self._presenter.retire()

    def _explain(self, error: BaseException | None, count: int | None) -> Report:
        """Make the report of the run."""
        from tf_mem_magic.api import Report
        from tf_mem_magic.explain import explain
        from tf_mem_magic.record.after_failure import with_traces
        from tf_mem_magic.views.presenter import is_notable

        compiled = compiled_cells(self.host.shell)
        files = frozenset(n for n, number in compiled.items() if number == count or self._compiled.get(n) != number)
        told = self._capture.tell(error, files, count, was_cancelled(error, self._task))
        self._tell_first(told)
        self._warm_up.wait()
        recording = with_traces(with_garbage(told), error, self.host.shell.user_ns)
        failed = sum(report.status == "oom" for report in self.host.reports)
        recording = replace(recording, failed_before=failed)
        # Offered once for each model, where it was at work: whoever trains it again knows by then.
        at_work = [m for m in deployable(recording)[:1] if recording.facts.batches or m.steps > (m.steps_before or 0)]
        models = {(model.name, model.weight_bytes) for model in at_work} - self.host.deployed
        deploys = bool(models) and (self.run.rerun is None or self.run.rerun.continues)
        notices = (*self._notices, *self._capture.notices, *troubles.since(self._troubles))
        notices += self._check_settings(recording)
        place = troubles.mark()
        try:
            previous = self.host.growth.previous(recording)
            notices += self.host.growth.notice(recording) if recording.status == "ok" else ()
            outcome = explain(recording, self.run.lineage, notices, self.host.measured, deploys, previous)
        except Exception as problem:
            troubles.tell("could not explain this cell", problem)
            outcome = Outcome(recording, notices=notices)
        is_seen = not self._options.quiet and (self.run.cell.tagged or is_notable(outcome))
        if recording.status == "ok" and outcome.new_cells and is_seen:
            self.host.deployed |= models
        return Report(replace(outcome, notices=(*outcome.notices, *troubles.since(place))), self.rerun_here)

    def _tell_first(self, recording: Recording) -> None:
        """Say at once that memory ran out: reading TensorFlow's graphs takes seconds where a model is large."""
        if recording.status != "oom" or self._held is not None:
            return
        from tf_mem_magic.diagnose.cause import diagnose

        try:
            self._presenter.tell_first(Outcome(recording, diagnose(recording)))
        except Exception as problem:
            troubles.note("what happened could not be said at once", problem)

    def _check_settings(self, recording: Recording) -> tuple[str, ...]:
        """After a restart: compare nothing where what the remedy sets does not hold; say so."""
        rerun = self.run.rerun
        if rerun is None or rerun.how != "restart":
            return ()
        from tf_mem_magic.session.restarts.restart import why_not_set

        reason = why_not_set(rerun.proposal, recording.facts)
        if not reason:
            return ()
        self.run = replace(self.run, lineage=Lineage())
        return (f"{rerun.proposal.title} was planned, but {reason}: this run says nothing about it.",)

    def _keep(self, report: Report) -> None:
        """Note that the run is explained."""
        self.run, self.report = self.run.explained(report.outcome), report
        self.host.reported(report, self)

    def _present(self, report: Report) -> None:
        """Show the report, then store and save it as the options ask: what cannot be kept is shown all the same."""
        try:
            self._presenter.finish(report)
        except Exception as problem:
            troubles.note("a report could not be shown", problem)
            print(report)
        self._deliver(report)

    def _deliver(self, report: Report) -> None:
        """Store and save the report as the options ask."""
        if self._options.output:
            self.host.shell.user_ns[self._options.output] = report
        if self._options.save:
            try:
                report.save(self._options.save)
            except Exception as error:
                why = getattr(error, "strerror", None) or troubles.describe(error)
                print(f"%%tfmem: the report could not be saved to {self._options.save}: {why}.", file=sys.stderr)

    def _tell_stopped(self, count: int | None) -> None:
        """Show one line in the report's place: a Stop came before it was made."""
        from tf_mem_magic.api import Report

        report = Report(Outcome(self._capture.tell_stopped(count), notices=self._notices), self.rerun_here)
        self._keep(report)
        try:
            self._presenter.tell_stopped(report)
        except Exception as problem:
            troubles.note("an interrupted report could not be shown", problem)
        if self._options.output:
            self.host.shell.user_ns[self._options.output] = report

    def _let_go_of(self, error: BaseException | None) -> None:
        """Drop what the error's frames hold, after an out-of-memory."""
        is_oom = self.report is not None and self.report.status == "oom"
        if is_oom and not self._options.keep_frames and error is not None:
            from tf_mem_magic.release.errors import release_exception

            release_exception(error)

    def _climb(self, stop: HeldStop) -> bool:
        """Try remedies where the options ask for it; the held error is shown in the end, or the cell has succeeded."""
        if self._held is None:
            return False
        self._held.restore()
        if self._is_try:
            self._held = None
            return False
        from tf_mem_magic.api import Report
        from tf_mem_magic.session.auto import Ladder
        from tf_mem_magic.session.parameters_cell import changed_parameters

        ladder = Ladder(self._options)
        last = ladder.climb(self, stop)
        if self.report is None:
            return False
        if not ladder.tries:
            self._presenter.tell_untried(self.report)
            return False
        if last is None or last.report is None:
            # The last try's report is about lines of a cell that is saved nowhere: the first one is shown again.
            newest = self.host.reports[-1].outcome if self.host.reports else self.report.outcome
            self._tell_tries(replace(self.report.outcome, tries=tuple(ladder.tries), history=newest.history))
            return False
        self._held = None
        report = Report(replace(last.report.outcome, tries=tuple(ladder.tries)), last.rerun_here)
        self.host.keep(report)
        effective = last.run.lineage.effective
        earlier = self.host.earlier_sources(self.run.cell.source)
        remarks = changed_parameters(self.run.cell.source, last.run.cell.source, earlier)
        self._presenter.tell_changes(report, tuple((p.key, p.title) for p in effective), remarks)
        self._deliver(report)
        return True

    def _tell_tries(self, outcome: Outcome) -> None:
        """Make the first run's report the last one again, with what was tried since."""
        from tf_mem_magic.api import Report

        self.report = Report(outcome, self.rerun_here)
        self.host.keep(self.report)
        self._presenter.tell_tries(self.report)
        self._deliver(self.report)

    def _tick(self, live: Live) -> None:
        if live.waiting is not None:
            self._warm_up.begin()
        self._presenter.tick(live)

    def _replaced(self, previous: LiveRun) -> tuple[Proposal, ...]:
        """Give the remedies in the cell of the run before that the one applied now takes the place of."""
        applied = self.run.lineage.applied
        return previous.run.lineage.effective if applied is not None and applied.instead_of else ()

    def _release(self, previous: LiveRun) -> None:
        """Let go of what the run before made."""
        from tf_mem_magic.release.release import release_run

        results = [reference() for reference in previous.results]
        before, source = previous.before, previous.run.cell.source
        released = release_run(self.host.shell, before, source, results, self.run.cell.source)
        self._notices = (*self._notices, *released.sentences)

    def rerun_here(self, key: str) -> Report:
        """Run the remedy's cell in this process; what :meth:`Report.rerun` calls."""
        from tf_mem_magic.session.in_process import rerun_in_process

        return rerun_in_process(self, key)
