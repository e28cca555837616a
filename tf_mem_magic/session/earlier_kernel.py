"""What an earlier kernel of this notebook left behind: the plan of a restart, or the recording of its death."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tf_mem_magic.core.recording import Cell
from tf_mem_magic.session.state import Rerun, Run

if TYPE_CHECKING:
    from tf_mem_magic.session.restart import Plan
    from tf_mem_magic.session.session import Session


def found(session: Session) -> Iterator[str]:
    """Take up a plan or a dead kernel's recording; yield a sentence for each, to be shown at once.

    Costs one look into a folder. A recording counts as told once the next sentence is asked for: one that could not be
    shown is told by the next kernel.
    """
    planned = _take_up_plan(session)
    if planned:
        yield planned
    yield from _take_up_death(session)


def resume(session: Session) -> str:
    """Run what the plan of a restart names, in this kernel; give one sentence.

    Raises
    ------
    ValueError
        With a sentence for the user: there is no plan, it comes too late, or one of its cells failed.
    """
    from tf_mem_magic.session.restart import clear_plan, load_plan, resume_steps, why_not_resume

    plan = load_plan()
    if plan is None:
        raise ValueError("there is nothing to resume: no remedy of this notebook asked for a restart in the last day")
    too_late = why_not_resume(plan)
    if too_late is not None:
        raise ValueError(too_late)
    clear_plan()
    _expect(session, plan)
    steps = resume_steps(plan)
    for number, source in enumerate(steps):
        if number:
            print(f"— cell {number} of {len(steps) - 1}: {_first_line(source)}")
        result = session.shell.run_cell(source, store_history=bool(number))
        if not result.success and number < len(steps) - 1:
            raise ValueError(f"stopped: {_first_line(source)!r} failed")
    return f"Resumed: {plan.proposal.title}."


def _take_up_plan(session: Session) -> str:
    import sys

    if not _has_files("plans"):
        return ""
    from tf_mem_magic.session.restart import load_plan

    plan = load_plan()
    if plan is None:
        return ""
    _expect(session, plan)
    if "tensorflow" in sys.modules:
        return ""
    return f"A restart was planned here ({plan.proposal.title}): %tfmem resume runs its cells, unless the page does."


def _take_up_death(session: Session) -> Iterator[str]:
    if not _has_files("recordings"):
        return
    from tf_mem_magic.core.jsonio import UnreadableFileError
    from tf_mem_magic.record.store.folder import companion
    from tf_mem_magic.record.store.runs import notebook, stored_runs

    for run in stored_runs(_folder() / "recordings"):
        told = companion(run.path, ".told")
        if not run.killed or run.pid == os.getpid() or run.notebook != notebook() or told.exists():
            continue
        from tf_mem_magic.api import load

        try:
            report = load(run.path)
        except (OSError, UnreadableFileError):
            continue
        session.keep(report)
        yield "The last kernel of this notebook died while a watched cell ran: %tfmem last shows its memory."
        try:
            told.touch(mode=0o600)
        except OSError:
            pass  # it is told again, which is better than never
        return


def _expect(session: Session, plan: Plan) -> None:
    """Let the cell of the remedy be its rerun when it runs."""
    before = Run(Cell(plan.proposal.original, plan.cell_id), plan.lineage)
    session.register.announce(Rerun(plan.proposal, before, "restart"))


def _has_files(name: str) -> bool:
    try:
        with os.scandir(_folder() / name) as entries:
            return any(True for _ in entries)
    except (OSError, RuntimeError):
        return False


def _folder() -> Path:
    from tf_mem_magic.record.store.folder import cache_folder

    return cache_folder()


def _first_line(source: str) -> str:
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("%%")]
    return lines[0] if lines else ""
