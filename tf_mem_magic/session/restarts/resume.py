"""``%tfmem resume``: go on, in a new kernel, with what a restart was planned for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tf_mem_magic.core.recording import Cell
from tf_mem_magic.notebook.read_first import bound_anew
from tf_mem_magic.notebook.rerun.replay import telling_line
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.session.restarts.notebook_file import saved_cells
from tf_mem_magic.session.restarts.plans import Found, Plan, drop_plan, find_plans, get_plan, this_notebook
from tf_mem_magic.session.state import Rerun, Run
from tf_mem_magic.views.slots import is_attended

if TYPE_CHECKING:
    from tf_mem_magic.session.restarts.replaying import Replaying
    from tf_mem_magic.session.session import Session

NOTHING = "there is nothing to resume: no remedy of this notebook asked for a restart in the last day"


@dataclass(slots=True)
class Resumed:
    """How far a plan has come in this kernel: ``prepared`` its prologue ran, ``done`` the cells that ran well.

    ``tried``: the cell of the remedy has been run with its change.
    """

    identity: str
    prepared: bool = False
    tried: bool = False
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
    replaying = _follow(session, plan)
    try:
        _run_cells(session, plan, resumed, replaying)
        source = _last_cell(session, plan, replaying)
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
        raise ValueError("the cell with its remedy stopped. Repair it, then %tfmem resume runs it again")
    return f"Resumed: {plan.proposal.title}."


def forget(session: Session, name: str = "") -> str:
    """Forget the plan; give one sentence."""
    plan = _find(session, name)
    drop_plan(plan.identity)
    session.resumed = session.planned = None
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
    from tf_mem_magic.session.restarts.replaying import order_of, replace_by, replaying_of

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
        source = _as_it_is_now(session, replaying, cell.cell_id, cell.source)
        has_run = replaying is not None and replaying.has_run(place)
        if has_run or number in resumed.done or _has_run(session, cell.cell_id, source):
            resumed.done.add(number)
            if replaying is not None:
                replaying.ran_by_hand(place)
            continue
        words = f"cell {place + 1} of {len(steps) + 1}"
        print(f"— {words}: {telling_line(source)}")
        with _told(replaying, place) as ended:
            result = session.run_cell(source, cell.cell_id)
            ended(result.success)
        if not result.success:
            raise ValueError(
                f"stopped: {words} ({telling_line(source)}) failed. Repair it, then %tfmem resume goes on with it"
            )
        resumed.done.add(number)


def _has_run(session: Session, cell_id: str, source: str) -> bool:
    """Tell whether a cell ran well in this kernel, also before the extension was loaded."""
    return session.has_run(cell_id, source) or _ran_unseen(session, source)


def _ran_unseen(session: Session, source: str) -> bool:
    """Tell whether a cell of this text ran well while the extension was not there yet.

    IPython's history has its text, since version 9 also whether it failed; before that, all that it binds is there.
    """
    history = session.shell.history_manager
    seen = {ran.count for ran in session.ran_cells}
    same = [n for n, text in enumerate(history.input_hist_raw) if text.strip() == source.strip() and n not in seen]
    if not source.strip() or not same or same[-1] == session.shell.execution_count:
        return False
    failed = getattr(history, "exceptions", None)
    if failed is not None:
        return same[-1] not in failed
    read = read_cell(source)
    return isinstance(read, PythonCell) and bound_anew(read.tree.body) <= set(session.shell.user_ns)


def _as_it_is_now(session: Session, replaying: Replaying | None, cell_id: str, source: str) -> str:
    """Give a cell's source: as the page has it; else as its file has it or as it last ran here, whichever is newer."""
    if replaying is not None and replaying.page_cells is not None and cell_id in replaying.page_cells:
        return replaying.page_cells[cell_id]
    owner = this_notebook(session.shell)
    ran = next((ran for ran in reversed(session.ran_cells) if cell_id and ran.cell_id == cell_id), None)
    saved = saved_cells(owner)
    if saved is not None and cell_id in saved.by_id and (ran is None or saved.time >= ran.time):
        return saved.by_id[cell_id]
    return ran.source if ran is not None else source


def _last_cell(session: Session, plan: Plan, replaying: Replaying | None) -> str:
    """Give the cell of the remedy: changed as proposed; where it was edited since, or only a setting changes, as it is.

    Raises
    ------
    ValueError
        If it was edited and the change that was proposed is not in it.
    """
    proposal = plan.proposal
    now = _as_it_is_now(session, replaying, plan.cell_id or "", proposal.replaces).rstrip()
    if proposal.source.rstrip() == proposal.replaces.rstrip():
        return now
    if now in (proposal.replaces.rstrip(), proposal.source.rstrip()):
        return proposal.source
    tried = session.resumed is not None and session.resumed.tried
    if tried or (replaying is not None and replaying.was_tried(-1)):
        return now
    raise ValueError(
        "the cell with its remedy was edited since it ran out of memory, so the change does not fit it any more. "
        "Run it as it is; %tfmem resume --forget drops the plan"
    )
