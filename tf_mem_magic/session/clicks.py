"""What the panel's buttons do on the kernel's side, for one finished run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.notebook.rerun.replay import Replay
from tf_mem_magic.session.state import How, LiveRun, Rerun

if TYPE_CHECKING:
    from tf_mem_magic.views.actions import NotebookCell, Ordered, ReplayCell


class PanelActions:
    """The :class:`~tf_mem_magic.views.actions.Actions` of one run. Nothing here raises."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._made: dict[tuple[str, str], Proposal] = {}
        self._listed: tuple[Replay, ...] = ()

    def expect(self, source: str, key: str) -> str:
        """Announce that the page is about to run ``source`` for the remedy ``key``; give the rerun's identity.

        Empty where no remedy has that key: then no rerun is announced.
        """
        rerun = self._rerun(source, key, "click")
        return self._run.host.register.announce(rerun).identity if rerun is not None else ""

    def run_here(self, source: str, key: str, output: Any, ended: Callable[[], None]) -> None:
        """Run the changed cell on the main thread into the panel's own output area, then call ``ended``.

        Returns when it has run: the page takes outputs for the area only while the click is being answered.
        """
        from tf_mem_magic.session.in_process import on_main_thread

        host, rerun = self._run.host, self._rerun(source, key, "panel")

        def work() -> None:
            try:
                if rerun is not None:
                    with output:
                        output.clear_output()
                        host.carry_out(rerun, store_history=True)
            finally:
                ended()

        on_main_thread(host.shell, work).wait()

    def refusal_here(self, source: str) -> str | None:
        """Say why the panel cannot run ``source`` itself."""
        from tf_mem_magic.session.in_process import refusal_here

        return refusal_here(self._run.host.shell, source)

    def combine(self, keys: tuple[str, ...], picked: tuple[str, ...] | None = None) -> Proposal | Declined:
        """Ask the remedies ``keys`` one after the other, each about the cell that the last one left.

        ``picked`` are the ticked parts of what they propose; None: nobody has ticked any.
        """
        from tf_mem_magic.explain import combined

        run = self._run
        assert run.report is not None
        answer = combined(run.report.outcome, keys, run.run.lineage, run.host.measured, picked)
        if isinstance(answer, Proposal):
            self._made[answer.key, answer.source] = answer
            run.host.register.announce_copies((answer,), run.run)
        return answer

    def undo(self) -> str:
        """Take back what the applied remedy set outside the cell: a policy, a converted model."""
        from tf_mem_magic.session.in_process import undo_remedy

        applied = self._run.run.lineage.applied
        undone = undo_remedy(self._run.host.shell, applied.undo if applied else "")
        gone = "What was let go of stays gone. " if applied and "free-leftovers" in applied.key else ""
        return f"The cell has its old code again; it was not run. {undone}{gone}Weights stay as trained."

    def free(self, names: tuple[str, ...]) -> str:
        """Let go of what ``names`` hold."""
        from tf_mem_magic.release.by_name import free

        return free(self._run.host.shell, names)

    def checklist(self, proposal: Proposal, cells: tuple[NotebookCell, ...]) -> tuple[ReplayCell, ...]:
        """Give the cells before this one, with what to know about replaying each."""
        from tf_mem_magic.session.restarts.restart import checklist
        from tf_mem_magic.views.actions import ReplayCell

        self._listed = checklist(self._run, cells)
        return tuple(ReplayCell(r.cell.cell_id, r.cell.source, r.ticked, r.cell.seconds, r.flags) for r in self._listed)

    def prepare_restart(self, proposal: Proposal, ticked: tuple[str, ...] | None = None, page: str = "") -> Ordered:
        """Save the plan, with the ticks that the person left; say what the page has to do."""
        from tf_mem_magic.session.restarts.restart import prepare_restart

        if ticked is None:
            return prepare_restart(self._run, proposal, page=page)
        replay = tuple(replace(one, ticked=one.cell.cell_id in ticked) for one in self._listed)
        return prepare_restart(self._run, proposal, replay, page)

    def plan_restart(self, proposal: Proposal) -> str:
        """Save the plan of a restart that the person makes; say what to do then, or why it could not be saved."""
        from tf_mem_magic.session.restarts.plans import PlanError
        from tf_mem_magic.session.restarts.restart import plan_restart

        try:
            return plan_restart(self._run, proposal)
        except PlanError as problem:
            return str(problem)

    def _rerun(self, source: str, key: str, how: How) -> Rerun | None:
        """Make the rerun that ``source`` is for the remedy ``key``; None where no remedy has that key."""
        same = [p for p in self._proposals() if p.key == key]
        # What was ticked anew has the key of what was offered at first.
        exact = [p for p in same if source in (p.source, *(c.source for c in p.choices))]
        proposal = next(iter([*exact, *same]), None)
        return Rerun(proposal, self._run.run, how, source) if proposal is not None else None

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
        self._run.host.shell.kernel.io_loop.add_callback(work)

    def dismissed(self) -> None:
        """Freeze the panel."""
        self._run.retire()
