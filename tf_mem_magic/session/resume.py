"""``%tfmem resume``: go on, in a new kernel, with what a restart was planned for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tf_mem_magic.core.recording import Cell
from tf_mem_magic.notebook.rerun.replay import telling_line
from tf_mem_magic.session.notebook_file import saved_cells
from tf_mem_magic.session.plans import Found, Owner, Plan, drop_plan, find_plans, get_plan, this_notebook
from tf_mem_magic.session.state import Rerun, Run

if TYPE_CHECKING:
    from tf_mem_magic.session.session import Session

NOTHING = "there is nothing to resume: no remedy of this notebook asked for a restart in the last day"


@dataclass(slots=True)
class Resumed:
    """How far a plan has come in this kernel: ``prepared`` its prologue ran, ``done`` the cells that ran well."""

    identity: str
    prepared: bool = False
    done: set[int] = field(default_factory=set)


def resume(session: Session, name: str = "") -> str:
    """Run what the plan of a restart names, in this kernel; give one sentence.

    Cells run as they are in the notebook now, as far as its file tells or this kernel has seen. After a cell that
    failed, another ``%tfmem resume`` goes on with it. The plan is kept until its comparison stands.

    Parameters
    ----------
    session : Session
        The session.
    name : str
        Which plan, where it is not surely this notebook's.

    Raises
    ------
    ValueError
        With a sentence for the user: there is no plan, it comes too late, or one of its cells failed.
    """
    plan = _find(session, name)
    resumed = session.resumed
    if resumed is None or resumed.identity != plan.identity:
        resumed = session.resumed = Resumed(plan.identity, session.prepared_for == plan.identity)
    if not resumed.prepared:
        _prepare(session, plan)
        resumed.prepared = True
    _run_cells(session, plan, resumed)
    source = _last_cell(plan, this_notebook(session.shell))
    print(f"— the cell with its remedy: {telling_line(source)}")
    live, result = session.carry_out(rerun_of(plan, source), store_history=True)
    if live is None or live.report is None:
        raise ValueError("the cell with its remedy did not run; %tfmem resume tries it again")
    if not result.success and live.report.status == "oom":
        raise ValueError(f"{plan.proposal.title}: the cell still runs out of memory")
    if not result.success:
        raise ValueError("the cell with its remedy stopped. Repair it, then %tfmem resume runs it again")
    return f"Resumed: {plan.proposal.title}."


def forget(session: Session, name: str = "") -> str:
    """Forget the plan; give one sentence."""
    plan = _find(session, name)
    drop_plan(plan.identity)
    session.resumed = None
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


def _run_cells(session: Session, plan: Plan, resumed: Resumed) -> None:
    """Run the ticked cells that have not run well yet, in their order, each as it is now."""
    owner = this_notebook(session.shell)
    steps = [(number, one.cell) for number, one in enumerate(plan.replay) if one.ticked]
    for place, (number, cell) in enumerate(steps, 1):
        source = _as_it_is_now(session, owner, cell.cell_id, cell.source)
        if number in resumed.done or session.has_run(cell.cell_id, source):
            resumed.done.add(number)
            continue
        print(f"— cell {place} of {len(steps) + 1}: {telling_line(source)}")
        result = session.run_cell(source, cell.cell_id)
        if not result.success:
            raise ValueError(
                f"stopped: cell {place} of {len(steps) + 1} ({telling_line(source)}) failed. "
                "Repair it, then %tfmem resume goes on with it"
            )
        resumed.done.add(number)


def _as_it_is_now(session: Session, owner: Owner, cell_id: str, source: str) -> str:
    """Give a cell's source: as its notebook's file has it or as this kernel last ran it, whichever is newer."""
    ran = next((ran for ran in reversed(session.ran_cells) if cell_id and ran.cell_id == cell_id), None)
    saved = saved_cells(owner)
    if saved is not None and cell_id in saved.by_id and (ran is None or saved.time >= ran.time):
        return saved.by_id[cell_id]
    return ran.source if ran is not None else source


def _last_cell(plan: Plan, owner: Owner) -> str:
    """Give the cell of the remedy: changed as proposed; where only a setting changes, as it is now."""
    proposal = plan.proposal
    if proposal.source.rstrip() != proposal.original.rstrip():
        return proposal.source
    saved = saved_cells(owner)
    return saved.by_id.get(plan.cell_id or "", proposal.source) if saved is not None else proposal.source
