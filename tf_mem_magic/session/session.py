"""Session: what lives as long as the extension is loaded in one shell."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tf_mem_magic.session.commands.growth import Growth
from tf_mem_magic.session.state import KEPT_RUNS, LiveRun, RanCell, Register, Rerun, Run

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.core.lineage import Measured
    from tf_mem_magic.core.options import Options
    from tf_mem_magic.record.pool import SourcePool
    from tf_mem_magic.session.restarts.plans import Plan
    from tf_mem_magic.session.restarts.resume import Resumed
    from tf_mem_magic.session.run import CellRun

KEPT_CELLS = 400
"""Earlier cells remembered, for replays and as context of remedies."""

KEPT_POINTS = KEPT_RUNS
"""Measured points remembered, for estimates."""

KEPT_REPORTS = 20
"""Reports that ``%tfmem last N`` and ``%tfmem history`` can show."""


class Session:
    """The state of one shell.

    Attributes
    ----------
    shell : InteractiveShell
        The shell.
    always_on : bool
        Every cell is watched, not only those that ask for it.
    register : Register
        The runs so far, and the reruns that are to come.
    ran_cells : deque of RanCell
        The cells that ran since the extension was loaded, oldest first.
    measured : tuple of Measured
        What runs measured about their batch size.
    deployed : set of (str, int)
        The models, by name and bytes, that were offered to be made smaller for deployment.
    growth : Growth
        What names held after the last watched runs.
    reports : deque of Report
        The last reports worth keeping, oldest first.
    prepared_for : str
        The identity of the plan whose prologue has run in this kernel; empty: none has.
    planned : Plan or None
        That plan, until its comparison stands.
    resumed : Resumed or None
        How far ``%tfmem resume`` has come.
    loaded_at : int
        The execution count of the cell that loaded the extension.
    error_before : BaseException or None
        The last error of this kernel when the extension was loaded.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.always_on = False
        self.register = Register()
        self.reports: deque[Report] = deque(maxlen=KEPT_REPORTS)
        self.ran_cells: deque[RanCell] = deque(maxlen=KEPT_CELLS)
        self.measured: tuple[Measured, ...] = ()
        self.prepared_for = ""
        self.planned: Plan | None = None
        self.resumed: Resumed | None = None
        self._pool: SourcePool | None = None
        self.deployed: set[tuple[str, int]] = set()
        self.growth = Growth()
        self.loaded_at = int(getattr(shell, "execution_count", 0) or 0)
        self.error_before: BaseException | None = getattr(sys, "last_value", None)
        self._keeps = False
        self._runs_as = ""

    @property
    def pool(self) -> SourcePool:
        """The open sources, shared by all runs."""
        if self._pool is None:
            from tf_mem_magic.record.pool import SourcePool

            self._pool = SourcePool()
        return self._pool

    def begin(self, info: Any, options_text: str | None, rerun: Rerun | None = None) -> CellRun:
        """Start watching the cell that is about to run.

        Parameters
        ----------
        info : ExecutionInfo
            IPython's own of the cell.
        options_text : str or None
            What stands on its ``%%tfmem`` line; None: it has none.
        rerun : Rerun, optional
            Which rerun it is.
        """
        from tf_mem_magic.core.recording import Cell
        from tf_mem_magic.session.run import CellRun

        options = _options(options_text)
        cell = Cell(info.raw_cell or "", self.cell_id(info), None, options_text is not None)
        planned = Run(cell) if rerun is None else replace(rerun.run, cell=cell)
        self.register.supersede(cell.cell_id)
        run = CellRun(self, planned, options, self.earlier_sources(cell.source))
        self.register.begun(run)
        try:
            run.start()
        except Exception:
            run.abandon()
            raise
        return run

    def rerun_of(self, info: Any) -> Rerun | None:
        """Find out which rerun the cell is that is about to run; None: a person runs it."""
        from tf_mem_magic.views.slots import rerun_identity

        self.take_up_plan()
        identity, cell_id = rerun_identity(self.shell, info), self.cell_id(info)
        source = info.raw_cell or ""
        return self.register.take(source, identity, cell_id) or self._planned_here(source, identity, cell_id)

    def _planned_here(self, source: str, identity: str | None, cell_id: str | None) -> Rerun | None:
        """Find the plan that this kernel was prepared for, where its cell runs once more: after it was repaired."""
        plan = self.planned
        if plan is None:
            return None
        from tf_mem_magic.session.restarts.ran_here import is_last_cell
        from tf_mem_magic.session.restarts.resume import rerun_of

        named = identity == plan.identity or bool(cell_id and cell_id == plan.cell_id)
        tried = self.resumed is not None and self.resumed.tried
        if named or (tried and not plan.cell_id and is_last_cell(plan, source)):
            return rerun_of(plan)
        return None

    def forget_plan(self, identity: str) -> None:
        """Let go of a plan that is on disk no more: what was to come of it, and what replays it."""
        from tf_mem_magic.session.restarts.at_work import replaying_of

        self.register.forget(identity)
        if self.planned is not None and self.planned.identity == identity:
            self.planned = None
        if self.resumed is not None and self.resumed.identity == identity:
            self.resumed = None
        replaying = replaying_of(self.shell, identity)
        if replaying is not None:
            replaying.drop()

    def take_up_plan(self) -> None:
        """Take up the plan of the restart that brought this kernel about: its prologue has left its identity."""
        from tf_mem_magic.session.restarts.plans import CARRIED

        identity = os.environ.pop(CARRIED, "")
        if not identity:
            return
        from tf_mem_magic.session.restarts.plans import get_plan
        from tf_mem_magic.session.restarts.resume import rerun_of

        self.prepared_for = identity
        self.planned = get_plan(identity)
        if self.planned is not None:
            self.register.announce(rerun_of(self.planned))

    def run_cell(self, source: str, cell_id: str = "") -> Any:
        """Run a cell of the notebook from here, under its own name where IPython takes one; give IPython's result."""
        takes_name = bool(cell_id) and "cell_id" in inspect.signature(self.shell.run_cell).parameters
        self._runs_as = cell_id
        try:
            return self.shell.run_cell(source, store_history=True, **({"cell_id": cell_id} if takes_name else {}))
        finally:
            self._runs_as = ""

    def carry_out(self, rerun: Rerun, *, store_history: bool = False) -> tuple[LiveRun | None, Any]:
        """Run a rerun's cell now; give its run (None: it did not begin) and IPython's result."""
        cell_id = rerun.from_run.cell.cell_id if rerun.how == "restart" else None
        self.register.make_due(rerun)
        try:
            if store_history:
                result = self.run_cell(rerun.source, cell_id or "")
            else:
                result = self.shell.run_cell(rerun.source, store_history=False)
        finally:
            self.register.not_due()
            run = self.register.taken_up(rerun)
        return run, result

    def cell_id(self, info: Any) -> str | None:
        """Give the notebook's id of the cell that runs."""
        from tf_mem_magic.views.slots import parent_cell_id

        return getattr(info, "cell_id", None) or self._runs_as or parent_cell_id(self.shell)

    def ran(self, info: Any, count: int | None, seconds: float, succeeded: bool = True) -> None:
        """Note that a cell ran."""
        source, cell_id = info.raw_cell or "", self.cell_id(info)
        self.ran_cells.append(RanCell(source, cell_id, count, seconds, succeeded, time.time()))

    def earlier_sources(self, source: str) -> tuple[str, ...]:
        """Give the sources of the cells that ran before ``source``, oldest first, also before the extension came."""
        told = [text for text in self.shell.history_manager.input_hist_raw[1:] if text.strip()]
        if told and told[-1] == source:
            told.pop()  # IPython may have stored the running cell already
        return tuple(told[-KEPT_CELLS:])

    def sources(self) -> tuple[str, ...]:
        """Give the sources of the cells that ran, oldest first, that of the running one last."""
        told = [text for text in self.shell.history_manager.input_hist_raw[1:] if text.strip()]
        return tuple(told[-KEPT_CELLS:])

    def reported(self, report: Report, run: LiveRun) -> None:
        """Remember a finished run: its report, and the sources its remedies propose."""
        from tf_mem_magic.core.lineage import measured_of

        is_asked_for = run.run.cell.tagged or run.run.rerun is not None
        self.keep(report, is_asked_for or is_worth_keeping(report))
        if run.run.rerun is not None and run.run.how == "restart":
            self._after_restart(report, run.run.rerun.identity)
        self.growth.note(report.recording)
        point = measured_of(report.outcome)
        self.measured = (*self.measured, *((point,) if point else ()))[-KEPT_POINTS:]
        self.register.finished(run)
        self.register.announce_copies(report.outcome.applicable, run.run)

    def _after_restart(self, report: Report, identity: str) -> None:
        """Give up the plan of a restart once its comparison stands."""
        from tf_mem_magic.session.restarts.at_work import replaying_of
        from tf_mem_magic.session.restarts.plans import drop_plan

        if report.comparison is None or report.status not in ("ok", "oom"):
            return
        drop_plan(identity)
        self.planned = None
        replaying = replaying_of(self.shell, identity)
        if replaying is not None:
            replaying.over(report)

    def keep(self, report: Report, is_worth_it: bool = True) -> None:
        """Make a report the last one; one that is not worth keeping only until there is another."""
        from tf_mem_magic.api import remember

        if not is_worth_it and self._keeps:
            return
        if not self._keeps:
            self.reports.clear()
        self._keeps = is_worth_it
        self.reports.append(report)
        remember(report)

    def close(self) -> None:
        """Close sources and panels."""
        self.register.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def is_worth_keeping(report: Report) -> bool:
    """Tell whether the report of a cell that nobody asked to watch may take the place of an earlier one.

    It is one that failed or trained, or has something to say; the cells after it mostly are neither.
    """
    from tf_mem_magic.views.presenter import is_notable

    facts = report.recording.facts
    trained = bool(facts.batches) or any(m.steps > (m.steps_before or 0) for m in facts.models)
    return report.status != "ok" or trained or is_notable(report.outcome)


def _options(text: str | None) -> Options:
    """Read the options; after a bad line, or help, the cell runs all the same, with the defaults."""
    from tf_mem_magic.core.options import HelpRequestedError, OptionError, Options, parse_cell_line

    try:
        return parse_cell_line(text or "", os.environ.get("TFMEM_ON_OOM", ""))
    except OptionError as error:
        print(f"{error} The cell runs with the defaults.", file=sys.stderr)
    except HelpRequestedError as requested:
        print(requested)
    return Options()
