"""``%tfmem resume``: go on, in a new kernel, with what a restart was planned for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tf_mem_magic.core.recording import Cell
from tf_mem_magic.notebook.rerun.replay import telling_line
from tf_mem_magic.session.restarts.plans import Found, Plan, drop_plan, find_plans, get_plan, this_notebook
from tf_mem_magic.session.restarts.ran_here import as_it_is_now, last_cell, newest_run, planned_cell, ran_unseen
from tf_mem_magic.session.restarts.restart import unset_variable, why_not_set
from tf_mem_magic.session.state import Rerun, Run
from tf_mem_magic.views.slots import is_attended

if TYPE_CHECKING:
    from tf_mem_magic.session.restarts.replaying import Replaying
    from tf_mem_magic.session.session import Session

NOTHING = "there is nothing to resume: no remedy of this notebook asked for a restart in the last day"


@dataclass(slots=True)
class Resumed:
    """How far a plan has come in this kernel: ``prepared`` its prologue ran, ``done`` the cells that ran well.

    ``tried``: the cell of the remedy has been run with its change. ``failed``: the cell that stopped it, ``skipped``
    those that the person went on without.
    """

    identity: str
    prepared: bool = False
    tried: bool = False
    done: set[int] = field(default_factory=set)
    failed: int | None = None
    skipped: set[int] = field(default_factory=set)


def resume(session: Session, name: str = "", *, skip: bool = False) -> str:
    """Run what the plan of a restart names, in this kernel; give one sentence.

    Cells run as they are in the notebook now, as far as its file tells or this kernel has seen. After a cell that
    failed, another ``%tfmem resume`` goes on with it. The plan is kept until its comparison stands.

    Parameters
    ----------
    session : Session
        The session.
    name : str
        Which plan, where it is not surely this notebook's.
    skip : bool
        Go on behind the cell that failed.

    Raises
    ------
    ValueError
        With a sentence for the user: there is no plan, it comes too late, one of its cells failed, or what it sets
        does not hold.
    """
    plan = _find(session, name)
    resumed = session.resumed
    if resumed is None or resumed.identity != plan.identity:
        resumed = session.resumed = Resumed(plan.identity, session.prepared_for == plan.identity)
    if skip:
        _skip(resumed)
    if not resumed.prepared:
        _prepare(session, plan)
        resumed.prepared = True
    replaying = _follow(session, plan)
    try:
        _run_cells(session, plan, resumed, replaying)
        source = _last_cell(session, plan, replaying)
        unset = unset_variable(plan.proposal)
        if unset:
            raise ValueError(f"{unset}: a cell has changed it. The cell with the remedy was not run")
        print(f"— the cell with its remedy: {telling_line(source)}")
        resumed.tried = True
        with _told(replaying, sum(one.ticked for one in plan.replay)) as ended:
            live, result = session.carry_out(rerun_of(plan, source), store_history=True)
            ended(result.success)
    finally:
        if replaying is not None and replaying.state == "resuming":
            replaying.stopped()
    if live is None or live.report is None:
        raise ValueError("the cell with its remedy did not run; %tfmem resume tries it again")
    if not result.success and live.report.status == "oom":
        raise ValueError(f"{plan.proposal.title}: the cell still runs out of memory")
    if not result.success:
        again = "Repair it, then %tfmem resume runs it again" if plan.cell_id else "Run it repaired, as a cell"
        raise ValueError(f"the cell with its remedy stopped. {again}")
    unset = why_not_set(plan.proposal, live.report.recording.facts)
    if unset:
        raise ValueError(f"the cell ran, but {unset}: it says nothing about the remedy. The plan is kept")
    return f"Resumed: {plan.proposal.title}."


def forget(session: Session, name: str = "") -> str:
    """Forget the plan; give one sentence."""
    plan = _find(session, name)
    drop_plan(plan.identity)
    session.forget_plan(plan.identity)
    return f"Forgotten: {plan.described}."


def rerun_of(plan: Plan, source: str = "") -> Rerun:
    """Give the rerun that a plan is for."""
    before = Run(Cell(plan.proposal.original, plan.cell_id), plan.lineage)
    return Rerun(plan.proposal, before, "restart", source or plan.proposal.source, plan.identity)


def why_not(plan: Plan) -> str:
    """Say why the plan's settings would come too late in this kernel; empty where they do not."""
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    if getattr(context, "_initialized", False):
        return "TensorFlow has already set up its devices in this kernel. Restart it, load tf_mem_magic, resume first."
    if plan.proposal.environment and "tensorflow" in sys.modules:
        return "TensorFlow is already imported in this kernel. Restart it, load tf_mem_magic, resume first."
    return ""


def _find(session: Session, name: str) -> Plan:
    me = this_notebook(session.shell)
    found = find_plans(me)
    if name:
        plan = get_plan(name)
        if plan is None:
            raise ValueError(f"there is no plan {name!r}{_offer(found)}")
        return plan
    current = get_plan(session.resumed.identity) if session.resumed is not None else None
    plan = current or found.plan
    if plan is None:
        raise ValueError(found.problem or f"{NOTHING}{_offer(found)}")
    return plan


def _offer(found: Found) -> str:
    """Name the plans that may be this notebook's, with their dates."""
    plans = (*((found.plan,) if found.plan else ()), *found.others)
    if not plans:
        return ""
    listed = "; ".join(f"%tfmem resume {plan.name} ({plan.described})" for plan in plans[:4])
    return f". If one of these is this notebook's, name it: {listed}"


def _prepare(session: Session, plan: Plan) -> None:
    """Run the prologue."""
    too_late = why_not(plan)
    if too_late:
        raise ValueError(too_late)
    try:
        exec(compile(plan.prologue, "<tf_mem_magic: prologue>", "exec", dont_inherit=True), session.shell.user_ns)
    except Exception as error:
        raise ValueError(
            f"the kernel could not be prepared ({type(error).__name__}: {error}). Nothing was run"
        ) from None
    session.take_up_plan()


def _follow(session: Session, plan: Plan) -> Replaying | None:
    """Let pages of the notebook follow how far it comes, and tell what its cells are now; None where there is none."""
    from tf_mem_magic.session.restarts.at_work import replaying_of
    from tf_mem_magic.session.restarts.replaying import order_of, replace_by

    replaying = replaying_of(session.shell, plan.identity)
    if replaying is None and is_attended(session.shell):
        replaying = replace_by(session.shell, order_of(plan), "planned")
    if replaying is None:
        return None
    if replaying.is_driven:
        raise ValueError("the page is running its cells right now; this goes on with them where no page does")
    replaying.wait_for_cells()
    replaying.resuming()
    return replaying


@contextmanager
def _told(replaying: Replaying | None, number: int) -> Iterator[Callable[[bool], None]]:
    """Let pages know that a cell runs; what it gives is called with how it ended."""
    if replaying is not None:
        replaying.began(number)
    ways: list[bool] = []
    try:
        yield ways.append
    finally:
        if replaying is not None and replaying.state != "done":
            replaying.ended(number, bool(ways and ways[-1]))


def _run_cells(session: Session, plan: Plan, resumed: Resumed, replaying: Replaying | None) -> None:
    """Run the ticked cells that have not run well yet, in their order, each as it is now."""
    steps = [(number, one.cell) for number, one in enumerate(plan.replay) if one.ticked]
    for place, (number, cell) in enumerate(steps):
        planned = planned_cell(plan, number)
        source = as_it_is_now(session, replaying, planned)
        words = f"cell {place + 1} of {len(steps) + 1}"
        if source is None:
            if number not in resumed.skipped:
                print(f"— {words} ({telling_line(cell.source)}) is no longer in the notebook: left out")
            resumed.skipped.add(number)
            if replaying is not None:
                replaying.ran_by_hand(place)
            continue
        newest = newest_run(session, planned)
        if newest is not None:  # one that ran well and fails when it runs again is not done
            has_run = newest.succeeded
        else:
            told = replaying is not None and replaying.has_run(place)
            has_run = told or number in resumed.done or ran_unseen(session, planned, source)
        if has_run or number in resumed.skipped:
            resumed.done.add(number)
            if replaying is not None:
                replaying.ran_by_hand(place)
            continue
        print(f"— {words}: {telling_line(source)}")
        with _told(replaying, place) as ended:
            result = session.run_cell(source, cell.cell_id)
            ended(result.success)
        if not result.success:
            resumed.done.discard(number)
            resumed.failed = number
            again = "Repair it" if cell.cell_id else "Run it repaired, as a cell"
            raise ValueError(
                f"stopped: {words} ({telling_line(source)}) failed. {again}, then %tfmem resume goes on with it; "
                "%tfmem resume --skip goes on without it"
            )
        resumed.done.add(number)


def _skip(resumed: Resumed) -> None:
    """Go on without the cell that failed."""
    if resumed.failed is None:
        raise ValueError("there is nothing to skip: no cell has stopped it in this kernel")
    resumed.skipped.add(resumed.failed)
    resumed.failed = None


def _last_cell(session: Session, plan: Plan, replaying: Replaying | None) -> str:
    """Give the cell of the remedy: changed as proposed; where it was edited since, or only a setting changes, as it is.

    Raises
    ------
    ValueError
        If it was edited and the change that was proposed is not in it, or it is no longer there.
    """
    proposal = plan.proposal
    tried = session.resumed is not None and session.resumed.tried
    tried = tried or (replaying is not None and replaying.was_tried(-1))
    now = as_it_is_now(session, replaying, last_cell(plan), runs=tried)
    if now is None:
        raise ValueError("the cell with its remedy is no longer in the notebook; %tfmem resume --forget drops the plan")
    now = now.rstrip()
    if proposal.source.rstrip() == proposal.replaces.rstrip():
        return now
    if now in (proposal.replaces.rstrip(), proposal.source.rstrip()):
        return proposal.source
    if tried:
        return now
    raise ValueError(
        "the cell with its remedy was edited since it ran out of memory, so the change does not fit it any more. "
        "Run it as it is; %tfmem resume --forget drops the plan"
    )
