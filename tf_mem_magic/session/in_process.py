"""Run a cell from here: on the main thread, by the shell itself, where no page can run it for us."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.tag import TAG, find_tag
from tf_mem_magic.session.state import Rerun

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.session.state import LiveRun


UNDO_WITHIN = 5.0
"""Seconds to wait for the thread that runs cells; a running cell goes first."""


def on_main_thread(shell: Any, work: Any) -> threading.Event:
    """Call ``work()`` on the thread that runs cells; give what is set once it is done.

    A click may arrive on another thread (ipykernel's subshells). User code and TensorFlow must not run there, and
    must queue behind a running cell: so the work goes through the kernel's event loop.
    """
    done = threading.Event()

    def whole() -> None:
        try:
            work()
        finally:
            done.set()

    if threading.current_thread() is threading.main_thread():
        whole()
        return done
    import contextvars

    context = contextvars.copy_context()
    shell.kernel.io_loop.add_callback(lambda: context.run(whole))
    return done


def undo_remedy(shell: Any, code: str) -> str:
    """Run a remedy's own ``undo`` code in the notebook's namespace; say in a sentence whether that worked."""
    if not code:
        return ""
    problems = []

    def work() -> None:
        try:
            # Under a name that tells its source, as IPython does for cells: AutoGraph and tracebacks read it.
            exec(compile(code, shell.compile.cache(code), "exec", dont_inherit=True), shell.user_ns)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    if not on_main_thread(shell, work).wait(UNDO_WITHIN):
        return "What the remedy set is taken back as soon as the kernel is free. "
    if problems:
        return f"What the remedy set could not be taken back ({problems[0]}); the code for it is: {code} "
    return "What the remedy set is taken back. "


def take_back(shell: Any, proposals: Sequence[Proposal]) -> None:
    """Take back what applied remedies have set outside the cell, the last one first."""
    for proposal in reversed(proposals):
        undo_remedy(shell, proposal.undo)


def refusal_here(shell: Any, source: str) -> str | None:
    """Say why ``source`` cannot be run from a callback; None where it can."""
    try:
        transformed = shell.transform_cell(source)
        is_async = shell.should_run_async(source, transformed_cell=transformed)
    except Exception:
        return None
    if is_async and "await" in source and _needs_loop(transformed):
        return "the cell uses top-level await, which only the notebook itself can run: copy it and run it there"
    return None


def _needs_loop(transformed: str) -> bool:
    import ast

    try:
        ast.parse(transformed)
        compile(transformed, "<cell>", "exec")
    except SyntaxError:
        return True
    return False


def _take_back_later(run: LiveRun) -> None:
    """Take back what later reruns of the same cell have set, which the cell of ``run`` does not ask for."""
    newest, own = run.host.register.newest, run.run.lineage
    if newest is None or not own.outcomes or newest.run.lineage.outcomes[: len(own.outcomes)] != own.outcomes:
        return
    later = newest.run.lineage.proposals[len(own.outcomes) - 1 :]
    take_back(run.host.shell, later)


def rerun_in_process(run: LiveRun, key: str) -> Report:
    """Apply the remedy ``key`` of a finished run and run the cell; give the report of that very rerun.

    What the remedy of another rerun has set outside the cell is taken back first: each starts from ``run``.
    A remedy that is a cell of its own is no rerun: that cell runs, watched, and the report is about it alone.

    Raises
    ------
    LookupError
        If that remedy is not offered.
    RestartPlannedError
        If it takes effect only after a restart, which is planned now; the text says what to do.
    RuntimeError
        If the cell needs the notebook's own event loop, or did not run.
    PlanError
        If the plan of a restart could not be kept.
    KeyboardInterrupt
        If a Stop ended the rerun; its report is then the last one.
    """
    report, host = run.report, run.host
    offered = report.outcome.applicable if report else ()
    settings = (d.settings for d in report.outcome.declined if d.settings is not None) if report else ()
    proposal = next((p for p in (*offered, *settings) if p.key == key), None)
    if report is None or proposal is None:
        have = ", ".join(p.key for p in offered) or "none"
        raise LookupError(f"the remedy {key!r} is not offered for this run; offered: {have}")
    if proposal.takes_effect == "restart":
        from tf_mem_magic.session.restarts.restart import RestartPlannedError, plan_restart

        raise RestartPlannedError(plan_restart(run, proposal))
    refusal = refusal_here(host.shell, proposal.source)
    if refusal:
        raise RuntimeError(refusal)
    source = proposal.source
    if not proposal.new_cell:
        _take_back_later(run)
    elif find_tag(source) is None:
        source = f"{TAG}\n{source}"
    made, result = host.carry_out(Rerun(proposal, run.run, "call", source))
    if made is not None and made.report is not None:
        with suppress(TypeError):  # a number or a tuple cannot be referred to weakly, and holds nothing that matters
            for one in (run, made):
                one.results.append(weakref.ref(result.result))
    if is_stopped(made, result):
        raise KeyboardInterrupt("the rerun was stopped")
    if made is None:
        raise RuntimeError("the rerun did not run: the cell was not watched (is the extension still loaded?)")
    if made.report is None:
        raise RuntimeError("the rerun ran, but could not be reported on; %tfmem doctor says why")
    return made.report


def is_stopped(made: LiveRun | None, result: Any) -> bool:
    """Tell whether a Stop ended a rerun, rather than an end of memory that we made a Stop of."""
    if made is not None and made.report is not None:
        return made.report.status == "interrupted"
    return isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt)
