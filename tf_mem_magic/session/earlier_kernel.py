"""What an earlier kernel of this notebook left behind: the plan of a restart, or the recording of its death."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_mem_magic.session.restarts.plans import Plan
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


def _take_up_plan(session: Session) -> str:
    """Take up the plan of a restart; say what there is to say about one that nobody takes up by itself."""
    import sys

    session.take_up_plan()
    if session.prepared_for or not _has_files("plans"):
        return ""
    from tf_mem_magic.session.restarts.plans import find_plans, this_notebook

    found = find_plans(this_notebook(session.shell))
    if found.problem:
        return f"{found.problem[0].upper()}{found.problem[1:]}."
    if "tensorflow" in sys.modules:
        return ""
    if found.plan is not None:
        _let_page_tell(session, found.plan)
        return f"A restart was planned here ({found.plan.proposal.title}): %tfmem resume runs its cells."
    if not found.others:
        return ""
    plan = found.others[0]
    return (
        f"In this folder a restart was planned ({plan.described}): if it is this notebook's, %tfmem resume {plan.name}."
    )


def _let_page_tell(session: Session, plan: Plan) -> None:
    """Let the page tell what the notebook's cells are now, before anybody asks to resume."""
    from tf_mem_magic.views.slots import is_attended

    if not is_attended(session.shell):
        return
    from tf_mem_magic.session.restarts.replaying import order_of, replace_by

    replace_by(session.shell, order_of(plan), "planned")


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


def _has_files(name: str) -> bool:
    try:
        with os.scandir(_folder() / name) as entries:
            return any(True for _ in entries)
    except (OSError, RuntimeError):
        return False


def _folder() -> Path:
    from tf_mem_magic.record.store.folder import cache_folder

    return cache_folder()
