"""Plan of a restart: kept on disk so that the new kernel can go on where the old one stopped."""

from __future__ import annotations

import hashlib
import os
import textwrap
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tf_mem_magic.core.jsonio import UnreadableFileError, decode, encode
from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import SCHEMA
from tf_mem_magic.notebook.replay import EarlierCell, Replay, choose_replay
from tf_mem_magic.record.store.folder import cache_folder, make_private

if TYPE_CHECKING:
    from tf_mem_magic.session.state import Host, LiveRun
    from tf_mem_magic.views.actions import NotebookCell, ReplayCell

VALID_SECONDS = 24 * 3600.0
_KEPT_VARIABLES = ("TF_", "XLA_", "CUDA_", "NVIDIA_", "KERAS_", "HIP_", "ROCR_")
_OURS = ("TF_BFC_MEMORY_DUMP",)


class PlanError(OSError):
    """The plan cannot be kept; the text is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restart is for.

    ``proposal`` is the remedy, ``lineage`` the runs before it (for the comparison), ``prologue`` what the new kernel
    runs before anything else, ``replay`` the earlier cells with their verdicts, ``cell_id`` the cell of the remedy.
    ``pid`` and ``time`` (Unix) tell which kernel wrote it and when.
    """

    proposal: Proposal
    lineage: Lineage
    prologue: str
    replay: tuple[Replay, ...] = ()
    cell_id: str | None = None
    pid: int = 0
    time: float = 0.0
    schema: int = SCHEMA


def checklist(run: LiveRun, proposal: Proposal, cells: tuple[NotebookCell, ...]) -> tuple[ReplayCell, ...]:
    """Give the cells of the page that a restart would replay before this one, in the order in which they ran."""
    from tf_mem_magic.views.actions import ReplayCell

    others = (c for c in cells if c.cell_id != run.run.cell.cell_id)
    known = tuple(_seen_cell(run.host, c.cell_id, c.source, c.count) for c in others)
    return tuple(
        ReplayCell(r.cell.cell_id, r.cell.source, r.ticked, r.cell.seconds, r.flags) for r in choose_replay(known)
    )


def prepare_restart(run: LiveRun, proposal: Proposal) -> str:
    """Keep the plan of a restart on disk; give the code that the new kernel must run first.

    Where the plan cannot be kept the restart works all the same, only the comparison with the runs before it is
    lost: the prologue then says so.
    """
    plan = make_plan(run, proposal)
    try:
        save_plan(plan)
    except PlanError as problem:
        return f"{plan.prologue}print({str(problem)!r})\n"
    return plan.prologue


def make_plan(run: LiveRun, proposal: Proposal) -> Plan:
    """Put together what a restart needs to know."""
    return Plan(
        proposal=proposal,
        lineage=run.run.lineage,
        prologue=prologue_for(proposal),
        replay=choose_replay(_ran_before(run)),
        cell_id=run.run.cell.cell_id,
        pid=os.getpid(),
        time=time.time(),
    )


def prologue_for(proposal: Proposal) -> str:
    """Write the code that a new kernel runs first: the environment, then what the remedy asks for.

    The variables that this kernel's own cells set for TensorFlow, XLA and CUDA come back too. No name stays in the
    notebook.
    """
    variables = {**changed_environment(), **dict(proposal.environment)}
    lines = ["import os"]
    lines += [f"os.environ[{name!r}] = {value!r}" for name, value in sorted(variables.items())]
    lines += proposal.prologue.strip().splitlines()
    body = textwrap.indent("\n".join(lines), "    ")
    return f"def _tfmem_prologue():\n{body}\n\n_tfmem_prologue()\ndel _tfmem_prologue\n"


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


def save_plan(plan: Plan) -> Path:
    """Write the plan for this notebook, readable by the user alone; an earlier one is replaced as a whole.

    Raises
    ------
    PlanError
        If the folder is read-only or the disk full; an earlier plan is then still there.
    """
    data = encode(plan)
    try:
        path = plan_path()
        make_private(path.parent)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            os.replace(fresh, path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlanError(
            f"The plan of the restart could not be kept ({reason}), so the new kernel will not know it. "
            "Set TFMEM_CACHE to a folder that can be written."
        ) from error
    return path


def load_plan(now: float | None = None) -> Plan | None:
    """Read this notebook's plan; None where there is none, or only one that is damaged, old or this kernel's own."""
    try:
        plan = decode(plan_path().read_bytes(), Plan)
    except (OSError, RuntimeError, UnreadableFileError):
        return None
    age = (time.time() if now is None else now) - plan.time
    if age > VALID_SECONDS or (plan.pid == os.getpid() and plan.time >= _started()):
        return None
    return plan


def clear_plan() -> None:
    """Forget this notebook's plan."""
    try:
        plan_path().unlink(missing_ok=True)
    except (OSError, RuntimeError):
        pass


def plan_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Give the file of this notebook's plan: known by the notebook's session, else by the working folder."""
    notebook = environ.get("JPY_SESSION_NAME") or os.getcwd()
    return cache_folder(environ) / "plans" / f"{hashlib.sha256(notebook.encode()).hexdigest()[:16]}.json"


def resume_steps(plan: Plan) -> tuple[str, ...]:
    """Give what the new kernel runs, in order: the prologue, the ticked cells, and the changed cell last."""
    ticked = (r.cell.source for r in plan.replay if r.ticked)
    return (plan.prologue, *ticked, plan.proposal.source)


def why_not_resume(plan: Plan) -> str | None:
    """Say why the plan's environment would come too late in this kernel; None where it does not."""
    import sys

    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    if getattr(context, "_initialized", False):
        return "TensorFlow has already set up its devices in this kernel. Restart it, load tf_mem_magic, resume first."
    if plan.proposal.environment and "tensorflow" in sys.modules:
        return "TensorFlow is already imported in this kernel. Restart it, load tf_mem_magic, resume first."
    return None


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
        newest[key] = EarlierCell(ran.cell_id or "", ran.source, ran.count, ran.seconds, ran.source)
    raw = run.host.shell.history_manager.input_hist_raw
    seen = {cell.source.strip() for cell in newest.values()} | {run.run.cell.source.strip()}
    first = min((ran.count or 0 for ran in run.host.ran_cells), default=len(raw))
    unseen = ((count, text) for count, text in enumerate(raw[:first]) if count and text.strip() not in seen)
    earlier = {text: EarlierCell("", text, count, None, text) for count, text in unseen}
    return (*earlier.values(), *newest.values())


def _seen_cell(host: Host, cell_id: str, source: str, count: int | None) -> EarlierCell:
    ran = next((r for r in reversed(host.ran_cells) if r.cell_id == cell_id), None)
    if ran is not None:
        return EarlierCell(cell_id, source, ran.count, ran.seconds, ran.source)
    raw = host.shell.history_manager.input_hist_raw
    same = count is not None and 0 < count < len(raw) and raw[count].strip() == source.strip()
    return EarlierCell(cell_id, source, count, None, source if same else None)


def _started() -> float:
    """Unix time at which this process began: a container may give a new kernel the old one's process id."""
    import psutil

    return float(psutil.Process().create_time())
