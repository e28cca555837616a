"""A restart: its checklist, the plan that the new kernel takes up, the prologue that runs there first."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.notebook.rerun.replay import EarlierCell, Replay, choose_replay
from tf_mem_magic.session.restarts.plans import CARRIED, Plan, PlanError, save_plan, this_notebook
from tf_mem_magic.session.state import Rerun
from tf_mem_magic.views.slots import can_show

if TYPE_CHECKING:
    from tf_mem_magic.session.state import Host, LiveRun
    from tf_mem_magic.views.actions import NotebookCell, Ordered

_KEPT_VARIABLES = ("TF_", "XLA_", "CUDA_", "NVIDIA_", "KERAS_", "HIP_", "ROCR_")
_OURS = ("TF_BFC_MEMORY_DUMP",)

_TOO_LATE = """\
context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
if getattr(context, "_initialized", False):
    raise RuntimeError("TensorFlow has already set up its devices, before anything could be set")
"""
_IMPORTED = """\
if "tensorflow" in sys.modules:
    raise RuntimeError("TensorFlow is already imported here, by a startup file perhaps, and reads this only then")
"""


class RestartPlannedError(RuntimeError):
    """A remedy needs a restart, which is planned now; the text says what to do, and is all that a shell shows."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def checklist(run: LiveRun, cells: tuple[NotebookCell, ...]) -> tuple[Replay, ...]:
    """Judge the page's cells that a restart may replay before this one, in the order in which they ran.

    Cells that never ran in this kernel are none of them.
    """
    others = (c for c in cells if c.cell_id != run.run.cell.cell_id)
    known = (_seen_cell(run.host, c.cell_id, c.source, c.count) for c in others)
    return choose_replay(cell for cell in known if cell is not None)


def prepare_restart(
    run: LiveRun, proposal: Proposal, replay: tuple[Replay, ...] | None = None, page: str = ""
) -> Ordered:
    """Keep the plan of a restart on disk; say what the page has to do, and what the new kernel runs first.

    ``replay`` are the earlier cells, ticked as the person left them; ``page`` is the page that will run them. Where the
    plan cannot be kept the restart works all the same, only the comparison with the runs before it is lost: the
    prologue then says so.
    """
    from tf_mem_magic.session.restarts.replaying import begin_code, order_of
    from tf_mem_magic.views.actions import Ordered

    plan = make_plan(run, proposal, replay)
    order = order_of(plan, page)
    prologue = plan.prologue + begin_code(order)
    try:
        save_plan(plan)
    except PlanError as problem:
        prologue += f"print({str(problem)!r})\n"
    return Ordered(order, prologue)


def plan_restart(run: LiveRun, proposal: Proposal) -> str:
    """Keep the plan of a restart that a person will make; say in one line what to do.

    Raises
    ------
    PlanError
        If the plan cannot be kept.
    """
    plan = make_plan(run, proposal)
    save_plan(plan)
    # A new kernel of a notebook without a name, or another terminal, cannot know whose the plan is.
    name = "" if plan.owner.notebook else f" {plan.name}"
    again = "Restart the kernel" if can_show(run.host.shell) else "Start again"
    return f"{proposal.title}: planned. {again}, then run %load_ext tf_mem_magic and %tfmem resume{name}."


def make_plan(run: LiveRun, proposal: Proposal, replay: tuple[Replay, ...] | None = None) -> Plan:
    """Put together what a restart needs to know."""
    rerun = Rerun(proposal, run.run, "restart")
    return Plan(
        identity=rerun.identity,
        proposal=proposal,
        lineage=run.run.lineage,
        prologue=prologue_for(proposal, rerun.identity),
        replay=choose_replay(_ran_before(run)) if replay is None else replay,
        cell_id=run.run.cell.cell_id,
        owner=this_notebook(run.host.shell),
        pid=os.getpid(),
        time=time.time(),
    )


def prologue_for(proposal: Proposal, identity: str) -> str:
    """Write the code that a new kernel runs first: the environment, then what the remedy asks for.

    It fails where TensorFlow is too far on to heed it. The variables that this kernel's own cells set for TensorFlow,
    XLA and CUDA come back too. No name stays in the notebook; the plan's identity does, in the environment.
    """
    variables = {**changed_environment(), **dict(proposal.environment)}
    lines = ["import os, sys"]
    if proposal.environment or proposal.prologue:
        lines += _TOO_LATE.splitlines()
    if proposal.environment:
        lines += _IMPORTED.splitlines()
    lines += [f"os.environ[{name!r}] = {value!r}" for name, value in sorted(variables.items())]
    lines += proposal.prologue.strip().splitlines()
    lines.append(f"os.environ[{CARRIED!r}] = {identity!r}")
    body = textwrap.indent("\n".join(lines), "    ")
    return f"def _tfmem_prologue():\n{body}\n\ntry:\n    _tfmem_prologue()\nfinally:\n    del _tfmem_prologue\n"


def changed_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the variables for TensorFlow, XLA and CUDA that differ from those the process was started with.

    Where the system does not tell those (only Linux does), all of them.
    """
    try:
        raw = Path("/proc/self/environ").read_bytes()
        started = dict(entry.split("=", 1) for entry in os.fsdecode(raw).split("\0") if "=" in entry)
    except OSError:
        started = {}
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_KEPT_VARIABLES) and name not in _OURS and started.get(name) != value
    }


def unset_variable(proposal: Proposal, environ: Mapping[str, str] = os.environ) -> str:
    """Say which of a remedy's variables is not set in this kernel; empty where all are."""
    return next((f"{n} is not {v} in this kernel" for n, v in proposal.environment if environ.get(n) != v), "")


def why_not_set(proposal: Proposal, facts: Facts, environ: Mapping[str, str] = os.environ) -> str:
    """Say what of a remedy's settings does not hold in this kernel; empty where all do, as far as can be read back."""
    unset = unset_variable(proposal, environ)
    if unset:
        return unset
    keys, cards = proposal.key.split("+"), [d for d in facts.devices if d.kind == "GPU"]
    if "memory-growth" in keys and not (cards and all(card.growth for card in cards)):
        return "memory growth is not on in this kernel"
    if "device-limit" in keys and not any(card.logical for card in cards):
        return "no device has a memory limit in this kernel"
    return ""


def _ran_before(run: LiveRun) -> Iterable[EarlierCell]:
    """List the cells that ran in this kernel before this one, each as it last ran.

    Where the page names no cells, this one is known by its source.
    """
    newest: dict[str, EarlierCell] = {}
    last = run.report.recording.cell.execution_count if run.report else None
    for ran in run.host.ran_cells:
        named = run.run.cell.cell_id is not None
        same = ran.cell_id == run.run.cell.cell_id if named else ran.source.strip() == run.run.cell.source.strip()
        if same or (last and ran.count and ran.count > last):
            continue
        key = ran.cell_id or ran.source
        newest[key] = EarlierCell(ran.cell_id or "", ran.source, ran.count, ran.seconds, ran.source, not ran.succeeded)
    raw = run.host.shell.history_manager.input_hist_raw
    seen = {cell.source.strip() for cell in newest.values()} | {run.run.cell.source.strip()}
    first = min((ran.count or 0 for ran in run.host.ran_cells), default=len(raw))
    unseen = ((count, text) for count, text in enumerate(raw[:first]) if count and text.strip() not in seen)
    failed = _failed_unseen(run.host)
    earlier = {text: EarlierCell("", text, count, None, text, count in failed) for count, text in unseen}
    return (*earlier.values(), *newest.values())


def _seen_cell(host: Host, cell_id: str, source: str, count: int | None) -> EarlierCell | None:
    """Give a cell of the page as it last ran in this kernel; None where it did not."""
    ran = next((r for r in reversed(host.ran_cells) if r.cell_id == cell_id), None)
    if ran is not None:
        return EarlierCell(cell_id, source, ran.count, ran.seconds, ran.source, not ran.succeeded)
    raw = host.shell.history_manager.input_hist_raw
    same = count is not None and 0 < count < len(raw) and raw[count].strip() == source.strip()
    return EarlierCell(cell_id, source, count, None, source, count in _failed_unseen(host)) if same else None


def _failed_unseen(host: Host) -> Collection[int]:
    """Give the execution counts of cells that failed, also before the extension came; IPython tells since version 9."""
    return getattr(host.shell.history_manager, "exceptions", ())
