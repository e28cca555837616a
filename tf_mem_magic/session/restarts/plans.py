"""Plans of restarts on disk: whose they are, kept until their comparison stands, offered to nobody else unasked."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_mem_magic.core.jsonio import UnreadableFileError, decode, encode
from tf_mem_magic.core.lineage import Lineage
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import SCHEMA
from tf_mem_magic.notebook.rerun.replay import Replay
from tf_mem_magic.record.store.folder import cache_folder, make_private
from tf_mem_magic.views.slots import is_attended

VALID_SECONDS = 24 * 3600.0
"""Age after which a plan is dropped: nobody remembers what it was for."""

CARRIED = "TFMEM_PLAN"
"""The variable in which a prologue hands the plan's identity to the extension in its kernel."""

_KEPT_FILES = 64
_UNKNOWN = "-" * 12


class PlanError(OSError):
    """The plan cannot be kept; the text is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a plan belongs to, as far as a kernel can know.

    Attributes
    ----------
    kernel : str
        The kernel's name, which stays the same when it is restarted (that of its connection file); a terminal's is
        that of its process. Empty: unknown.
    notebook : str
        The notebook as its front end calls it; empty: it does not tell, or there is none.
    folder : str
        The working folder.
    """

    kernel: str = ""
    notebook: str = ""
    folder: str = ""

    def owns(self, plan: Plan) -> bool:
        """Tell whether a plan is surely this notebook's."""
        same_kernel = bool(self.kernel) and self.kernel == plan.owner.kernel
        return same_kernel or (bool(self.notebook) and self.place == plan.owner.place)

    def may_own(self, plan: Plan) -> bool:
        """Tell whether a plan may be this notebook's: of the same folder, and neither has a name, or its own is gone.

        A notebook that is no longer there may have been renamed. One of the same name without a folder may be the same,
        seen from another folder.
        """
        if self.owns(plan):
            return False
        if self.folder != plan.owner.folder:
            return bool(self.notebook) and self.notebook == plan.owner.notebook
        return plan.owner.is_gone or not (self.notebook or plan.owner.notebook)

    @property
    def place(self) -> str:
        """The notebook's name where it tells one notebook from every other: with the folder, where it has none."""
        name = self.notebook
        return name if not name or Path(name).is_absolute() else f"{self.folder}\0{name}"

    @property
    def is_gone(self) -> bool:
        """Whether the notebook's file is surely no longer there."""
        path = Path(self.notebook or os.devnull)
        try:
            return path.suffix == ".ipynb" and path.is_absolute() and path.parent.is_dir() and not path.exists()
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restart is for.

    Attributes
    ----------
    identity : str
        That of the rerun that the restart is for; a plan serves no other.
    proposal : Proposal
        The remedy.
    lineage : Lineage
        The runs before it, for the comparison.
    prologue : str
        What the new kernel runs before anything else.
    replay : tuple of Replay
        The earlier cells, ticked as the person left them.
    cell_id : str or None
        The cell of the remedy.
    owner : Owner
        The notebook whose plan it is.
    pid, time : int, float
        The process that wrote it, and when (Unix time).
    """

    identity: str
    proposal: Proposal
    lineage: Lineage
    prologue: str
    replay: tuple[Replay, ...] = ()
    cell_id: str | None = None
    owner: Owner = Owner()
    pid: int = 0
    time: float = 0.0
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """What ``%tfmem resume`` takes to mean this plan."""
        return f"{self.proposal.key.partition('+')[0]}-{self.identity[:4]}"

    @property
    def described(self) -> str:
        """Its title, where it was made and when, for the user."""
        made = time.strftime("%d %b %H:%M", time.localtime(self.time))
        where = f", {os.path.basename(self.owner.notebook)}" if self.owner.notebook else ""
        where += ", which is gone" if where and self.owner.is_gone else ""
        return f"{self.proposal.title}, planned {made}{where}"

    def is_old(self, now: float | None = None) -> bool:
        """Tell whether it is older than a day."""
        return (time.time() if now is None else now) - self.time > VALID_SECONDS


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in the folder of plans for one notebook.

    Attributes
    ----------
    plan : Plan or None
        The newest that is surely its own.
    others : tuple of Plan
        Those that may be its own, newest first.
    problem : str
        Why a plan of its own cannot be used, as a sentence; empty: there is none such.
    """

    plan: Plan | None = None
    others: tuple[Plan, ...] = ()
    problem: str = ""


def this_notebook(shell: Any, environ: Mapping[str, str] = os.environ) -> Owner:
    """Tell whose plans this shell may take up."""
    kernel = getattr(shell, "kernel", None)
    file = str(getattr(getattr(kernel, "parent", None), "connection_file", "") or "")
    told = environ.get("JPY_SESSION_NAME") or getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__") or ""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = ""
    if kernel is None:
        return Owner(f"process-{os.getpid()}-{_began():.2f}", "", folder)
    name = told if isinstance(told, str) else ""
    if not name and not is_attended(shell):  # the command line of a server names one notebook, and runs many
        name = _of_command_line()
    return Owner(Path(file).stem, name, folder)


def save_plan(plan: Plan) -> Path:
    """Write the plan, readable by the user alone; it replaces what its notebook had planned before.

    Raises
    ------
    PlanError
        If the folder is read-only or the disk full; an earlier plan is then still there.
    """
    try:
        data = encode(plan)
        path = _path(plan)
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
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise PlanError(
            f"The plan of the restart could not be kept ({reason}), so the new kernel will not know it. "
            "Set TFMEM_CACHE to a folder that can be written."
        ) from error
    _tidy(path, plan.owner)
    return path


def find_plans(me: Owner, now: float | None = None) -> Found:
    """Look for plans: this notebook's newest, and those that may be its own; never one that this very process made."""
    own: list[Plan] = []
    others: list[Plan] = []
    problem = ""
    for path in _files():
        mine = _is_named_for(path, me)
        try:
            plan = decode(path.read_bytes(), Plan)
        except UnreadableFileError as error:
            if mine:
                problem = problem or f"the plan of a restart was dropped, because {error}"
                path.unlink(missing_ok=True)
            continue
        except OSError:
            continue
        if plan.pid == os.getpid() and plan.time >= _began():
            continue
        if plan.is_old(now):
            if me.owns(plan):
                problem = problem or f"the plan of a restart ({plan.described}) is older than a day and was dropped"
                path.unlink(missing_ok=True)
        elif me.owns(plan) and plan.owner.is_gone and me.kernel != plan.owner.kernel:
            problem = problem or f"the notebook of a planned restart is gone ({plan.described}), so nothing was run"
        elif me.owns(plan):
            own.append(plan)
        elif me.may_own(plan):
            others.append(plan)
    newest = sorted(own, key=lambda plan: -plan.time)
    return Found(newest[0] if newest else None, tuple(sorted(others, key=lambda plan: -plan.time)), problem)


def get_plan(identity: str) -> Plan | None:
    """Read the plan with that identity, or with that name; None where there is none that can be used."""
    for path in _files():
        try:
            plan = decode(path.read_bytes(), Plan)
        except (OSError, UnreadableFileError):
            continue
        if identity in (plan.identity, plan.name) and not plan.is_old():
            return plan
    return None


def drop_plan(identity: str) -> None:
    """Forget a plan: it is done, or the person says so."""
    for path in _files():
        if path.stem.endswith(identity):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue


def _path(plan: Plan) -> Path:
    owner = plan.owner
    return _folder() / f"{_mark(owner.kernel)}{_mark(owner.place)}{plan.identity}.json"


def _mark(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:12] if name else _UNKNOWN


def _is_named_for(path: Path, me: Owner) -> bool:
    kernel, notebook = path.name[:12], path.name[12:24]
    return (bool(me.kernel) and kernel == _mark(me.kernel)) or (bool(me.notebook) and notebook == _mark(me.place))


def _tidy(kept: Path, owner: Owner) -> None:
    """Remove what the same notebook had planned before, and files of long ago."""
    for number, path in enumerate(_files()):
        if path != kept and (_is_named_for(path, owner) or number >= _KEPT_FILES):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue


def _files() -> Iterator[Path]:
    """List the files of plans, the newest first."""
    try:
        found = [(entry.stat().st_mtime_ns, Path(entry.path)) for entry in os.scandir(_folder())]
    except (OSError, RuntimeError):
        return iter(())
    return iter([path for _, path in sorted(found, reverse=True) if path.suffix == ".json"])


def _folder() -> Path:
    return cache_folder() / "plans"


def _of_command_line() -> str:
    """Name the notebook that the command line of a process above this one names; empty where it is not just one."""
    from tf_mem_magic.session.parameters_cell import named_notebooks

    named = named_notebooks()
    return str(named[0]) if len(named) == 1 else ""


def _began() -> float:
    """Unix time at which this process began: a container may give a new kernel the old one's process id."""
    import psutil

    return float(psutil.Process().create_time())
