"""What the panel's buttons do on the kernel's side, for one finished run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.proposals import Declined, Proposal

if TYPE_CHECKING:
    from tf_mem_magic.session.run import CellRun
    from tf_mem_magic.views.actions import NotebookCell, ReplayCell


class PanelActions:
    """The :class:`~tf_mem_magic.views.actions.Actions` of one run. Nothing here raises."""

    def __init__(self, run: CellRun) -> None:
        self._run = run
        self._made: dict[tuple[str, str], Proposal] = {}

    def expect(self, source: str, key: str) -> None:
        """Let the next run of exactly ``source`` count as the rerun for the remedy ``key``; a new cell is none."""
        run = self._run
        same = [p for p in self._proposals() if p.key == key]
        # What was ticked anew has the key of what was offered at first.
        exact = [p for p in same if source in (p.source, *(c.source for c in p.choices))]
        proposal = next(iter([*exact, *same]), None)
        if proposal is not None and not proposal.new_cell:
            run.session.expect(source, proposal, run.lineage, run)

    def run_here(self, source: str, key: str, output: Any, ended: Callable[[], None]) -> None:
        """Run the changed cell on the main thread into the panel's own output area, then call ``ended``.

        Returns when it has run: the page takes outputs for the area only while the click is being answered.
        """
        from tf_mem_magic.session.in_process import on_main_thread, run_into

        self.expect(source, key)
        session = self._run.session

        def work() -> None:
            try:
                run_into(session, source, output)
            finally:
                ended()

        on_main_thread(session.shell, work).wait()

    def refusal_here(self, source: str) -> str | None:
        """Say why the panel cannot run ``source`` itself."""
        from tf_mem_magic.session.in_process import refusal_here

        return refusal_here(self._run.session.shell, source)

    def combine(self, keys: tuple[str, ...], picked: tuple[str, ...] | None = None) -> Proposal | Declined:
        """Ask the remedies ``keys`` one after the other, each about the cell that the last one left.

        ``picked`` are the ticked parts of what they propose; None: nobody has ticked any.
        """
        from tf_mem_magic.explain import combined

        run = self._run
        assert run.report is not None
        answer = combined(run.report.outcome, keys, run.lineage, run.session.measured, picked)
        if isinstance(answer, Proposal):
            self._made[answer.key, answer.source] = answer
            run.session.expect_copies(answer, run)
        return answer

    def undo(self) -> str:
        """Take back what the applied remedy set outside the cell: a policy, a converted model."""
        from tf_mem_magic.session.in_process import undo_remedy

        applied = self._run.lineage.applied
        undone = undo_remedy(self._run.session.shell, applied.undo if applied else "")
        gone = "What was let go of stays gone. " if applied and "free-leftovers" in applied.key else ""
        return f"The cell has its old code again; it was not run. {undone}{gone}Weights stay as trained."

    def free(self, names: tuple[str, ...]) -> str:
        """Let go of what ``names`` hold."""
        from tf_mem_magic.release.release import free

        return free(self._run.session.shell, names)

    def checklist(self, proposal: Proposal, cells: tuple[NotebookCell, ...]) -> tuple[ReplayCell, ...]:
        """Give the cells before this one, with what to know about replaying each."""
        from tf_mem_magic.session.restart import checklist

        return checklist(self._run, proposal, cells)

    def prepare_restart(self, proposal: Proposal) -> str:
        """Save the plan; give the prologue for the new kernel."""
        from tf_mem_magic.session.restart import prepare_restart

        return prepare_restart(self._run, proposal)

    def _proposals(self) -> tuple[Proposal, ...]:
        """Give what can be applied: what is offered, and what is reachable under other settings."""
        if self._run.report is None:
            return ()
        outcome = self._run.report.outcome
        return (
            *outcome.applicable,
            *self._made.values(),
            *(d.settings for d in outcome.declined if d.settings is not None),
        )

    def when_idle(self, work: Callable[[], None]) -> None:
        """Call ``work`` from the kernel's event loop, which is free again when the cell has ended."""
        self._run.session.shell.kernel.io_loop.add_callback(work)

    def dismissed(self) -> None:
        """Freeze the panel."""
        self._run.retire()
