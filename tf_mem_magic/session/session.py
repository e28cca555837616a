"""Session: what lives as long as the extension is loaded in one shell."""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.tag import TAG

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.core.lineage import Lineage, Measured
    from tf_mem_magic.core.options import Options
    from tf_mem_magic.core.proposals import Proposal
    from tf_mem_magic.record.pool import SourcePool
    from tf_mem_magic.session.run import CellRun

KEPT_CELLS = 400
"""Earlier cells remembered, for replays and as context of remedies."""

KEPT_POINTS = 64
"""Measured points remembered, for estimates."""

KEPT_REPORTS = 20
"""Reports that ``%tfmem last N`` and ``%tfmem history`` can show."""

KEPT_RERUNS = 64
"""Sources remembered of which a run counts as a rerun."""


@dataclass(frozen=True, slots=True)
class RanCell:
    """A cell that ran: ``seconds`` is its duration, ``count`` its execution count."""

    source: str
    cell_id: str | None
    count: int | None
    seconds: float


@dataclass(slots=True)
class Expected:
    """A source that counts as a rerun when it runs next: for which proposal, after which runs."""

    source: str
    proposal: Proposal
    lineage: Lineage
    previous: CellRun | None


class Session:
    """The state of one shell: open sources, what ran, what is expected to run, the last report.

    ``is_hosted`` holds while a cell runs inside a panel, whose output area shows displays but never updates them;
    ``climbing`` is the run for which remedies are being tried without a click; ``newest`` the last one to finish.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.always_on = False
        self.is_hosted = False
        self.climbing: CellRun | None = None
        self.newest: CellRun | None = None
        self.last: Report | None = None
        self.reports: deque[Report] = deque(maxlen=KEPT_REPORTS)
        self.ran_cells: deque[RanCell] = deque(maxlen=KEPT_CELLS)
        self.measured: tuple[Measured, ...] = ()
        self._expected: deque[Expected] = deque(maxlen=KEPT_RERUNS)
        self._new_cells: deque[str] = deque(maxlen=KEPT_RERUNS)
        self._pool: SourcePool | None = None
        self._panels: deque[CellRun] = deque(maxlen=KEPT_RERUNS)

    @property
    def pool(self) -> SourcePool:
        """The open sources, shared by all runs."""
        if self._pool is None:
            from tf_mem_magic.record.pool import SourcePool

            self._pool = SourcePool()
        return self._pool

    def begin(self, info: Any, options_text: str | None) -> CellRun:
        """Start watching the cell that is about to run."""
        from tf_mem_magic.core.recording import Cell
        from tf_mem_magic.session.run import CellRun

        options = _options(options_text)
        source = info.raw_cell or ""
        expected = self._take_expected(source)
        cell = Cell(source, self.cell_id(info), None, options_text is not None)
        self._retire_panels(cell.cell_id)
        run = CellRun(self, cell, options, expected)
        try:
            run.start()
        except Exception:
            run.abandon()
            raise
        return run

    def cell_id(self, info: Any) -> str | None:
        """Give the notebook's id of the cell that runs."""
        from tf_mem_magic.views.slots import parent_cell_id

        return getattr(info, "cell_id", None) or parent_cell_id(self.shell)

    def ran(self, info: Any, count: int | None, seconds: float) -> None:
        """Note that a cell ran."""
        self.ran_cells.append(RanCell(info.raw_cell or "", self.cell_id(info), count, seconds))

    def earlier_sources(self, source: str) -> tuple[str, ...]:
        """Give the sources of the cells that ran before ``source``, oldest first, also before the extension came."""
        told = [text for text in self.shell.history_manager.input_hist_raw[1:] if text.strip()]
        if told and told[-1] == source:
            told.pop()  # IPython may have stored the running cell already
        return tuple(told[-KEPT_CELLS:])

    def expect(self, source: str, proposal: Proposal, lineage: Lineage, previous: CellRun | None) -> None:
        """Let a later run of exactly ``source`` count as the rerun for ``proposal``."""
        expected = Expected(source.rstrip(), proposal, lineage.applying(proposal), previous)
        self._forget_expected(expected.source)
        self._expected.append(expected)

    def is_new_cell(self, source: str) -> bool:
        """Tell whether a remedy wrote ``source`` as a cell of its own."""
        return _untagged(source) in self._new_cells

    def reported(self, report: Report, run: CellRun) -> None:
        """Remember a finished run: its report, and the sources its remedies propose."""
        from tf_mem_magic.api import remember
        from tf_mem_magic.core.lineage import measured_of

        self.last, self.newest = report, run
        self.reports.append(report)
        point = measured_of(report.outcome)
        self.measured = (*self.measured, *((point,) if point else ()))[-KEPT_POINTS:]
        remember(report)
        self._panels.append(run)
        for proposal in (*report.outcome.edits, *report.outcome.further):
            self.expect_copies(proposal, run)
        for proposal in report.outcome.new_cells:
            self._new_cells += map(_untagged, (proposal.source, *(c.source for c in proposal.choices)))

    def expect_copies(self, proposal: Proposal, run: CellRun) -> None:
        """Let a run of the proposed cell count as its rerun also where a person copied it."""
        for source in (proposal.source, *(c.source for c in proposal.choices)):
            if source.rstrip() not in (proposal.original.rstrip(), proposal.replaces.rstrip()):
                self.expect(source, proposal, run.lineage, run)

    def close(self) -> None:
        """Close sources and panels."""
        self._retire_panels(None)
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _take_expected(self, source: str) -> Expected | None:
        wanted = source.rstrip()
        found = next((e for e in reversed(self._expected) if e.source == wanted), None)
        self._forget_expected(wanted)
        return found

    def _forget_expected(self, source: str) -> None:
        self._expected = deque((e for e in self._expected if e.source != source), maxlen=KEPT_RERUNS)

    def _retire_panels(self, cell_id: str | None) -> None:
        """Freeze the panels of earlier runs of the cell (all, where ``cell_id`` is None)."""
        for run in list(self._panels):
            if cell_id is None or run.cell.cell_id == cell_id:
                run.retire()
                self._panels.remove(run)


def _untagged(source: str) -> str:
    return source.strip().removeprefix(TAG).strip()


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
