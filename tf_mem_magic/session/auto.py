"""The ladder: ``--on-oom auto`` applies remedies without a click, so that a night job passes.

While it may climb, an out-of-memory error is held back; where no allowed remedy helps, the error appears once, as
IPython itself would have shown it, and the cell fails.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.options import Keep, Options
from tf_mem_magic.core.outcome import Outcome, Try
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.record.held_stop import HeldStop
from tf_mem_magic.session.in_process import refusal_here, take_back
from tf_mem_magic.session.parameters_cell import is_parameters_cell
from tf_mem_magic.session.state import Rerun

if TYPE_CHECKING:
    from tf_mem_magic.session.state import LiveRun

_ALLOWED: dict[Keep, frozenset[str]] = {
    "same-results": frozenset({"same results"}),
    "effective-batch": frozenset({"same results", "same effective batch"}),
    "any": frozenset({"same results", "same effective batch", "same model, other gradients", "close numerics"}),
}
"""What a remedy must keep to be applied without a click; one that keeps nothing never is."""


class HeldError:
    """Holds back the errors of a cell that may be out of memory; everything else is shown at once, as always.

    ``is_try``: the cell is one that a remedy changed, so whatever error it ends with is held back: another remedy may
    do, and where none does, it is the first error that the person must see.

    IPython has one handler for errors per shell: the one that was there comes back with :meth:`restore`.
    """

    def __init__(self, shell: Any, is_out_of_memory: Callable[[BaseException], bool], is_try: bool) -> None:
        self._shell, self._is_out_of_memory, self._is_try = shell, is_out_of_memory, is_try
        self._before = (shell.custom_exceptions, getattr(shell, "CustomTB", None))
        self._held: tuple[type[BaseException], BaseException, list[str]] | None = None
        shell.set_custom_exc((Exception, KeyboardInterrupt), self._handle)

    def restore(self) -> None:
        """Put back the handler that was there."""
        self._shell.custom_exceptions, handler = self._before
        if handler is not None:
            self._shell.CustomTB = handler

    def show(self) -> None:
        """Show the first error that was held back, once."""
        held, self._held = self._held, None
        if held is not None:
            self._shell._showtraceback(*held)

    def _may_be_held(self, error: BaseException) -> bool:
        if self._is_try and isinstance(error, Exception):
            return True
        try:
            return self._is_out_of_memory(error)
        except Exception as problem:  # what we cannot judge is shown at once, as always
            troubles.note("whether an error is out of memory could not be told", problem)
            return False

    def _handle(
        self,
        _: Any,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType,
        tb_offset: int | None = None,
    ) -> None:
        if not self._may_be_held(error):
            self._shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
            return
        # As text, now: the frames are emptied before the next try.
        text = self._shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset=tb_offset)
        self._held = (kind, error, text)
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace


_CHANGES_THE_RESULT = ("read-once", "reassigned")
"""What a run did that a rerun would not undo: it would pass, on less than all data or on data scaled twice."""


class Ladder:
    """Climbs from one allowed remedy to the next until the cell fits or the bounds are reached."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.tries: list[Try] = []
        self._until = time.monotonic() + 60 * options.max_minutes

    def climb(self, run: LiveRun, stop: HeldStop) -> LiveRun | None:
        """Rerun the cell of a failed run with one remedy after another; give the run that fitted, None without one.

        Where none fitted, what the last remedies have set outside the cell is taken back. A Stop ends the climb.
        """
        host, current = run.host, run
        fitted = None
        try:
            while (proposal := self._next(current)) is not None:
                rerun = Rerun(proposal, current.run, "auto")
                tried, _ = stop.run_cell(partial(host.carry_out, rerun)) or (None, None)
                if tried is None or tried.report is None:
                    self.tries.append(Try(proposal.key, proposal.title, proposal.source, "interrupted"))
                    break
                self.tries.append(_try_of(proposal, tried.report.outcome))
                current = tried
                if tried.report.status == "ok":
                    compared = tried.report.comparison
                    fitted = tried if compared is None or compared.trained else None
                    break
            return fitted
        finally:
            if fitted is None:
                take_back(host.shell, current.run.lineage.effective)

    def _next(self, run: LiveRun) -> Proposal | None:
        if run.report is None or run.report.status not in ("oom", "error"):
            return None
        if len(self.tries) >= self._options.max_tries or time.monotonic() > self._until:
            return None
        allowed = _ALLOWED[self._options.keep]
        fitting = (
            p for p in run.report.outcome.edits if p.takes_effect == "rerun" and p.preserves in allowed and not p.asks
        )
        proposal = next(fitting, None)
        if proposal is None or is_parameters_cell(proposal.original, run.host.shell):
            return None
        if any(change.kind in _CHANGES_THE_RESULT for change in run.report.outcome.changes):
            return None
        return None if refusal_here(run.host.shell, proposal.source) else proposal


def _try_of(proposal: Proposal, outcome: Outcome) -> Try:
    """Note a change that was tried, and how that ended."""
    recording = outcome.recording
    error = recording.errors[0].type if recording.errors else ""
    peak = recording.main.peak if recording.main is not None else None
    return Try(proposal.key, proposal.title, proposal.source, recording.status, error, peak)
