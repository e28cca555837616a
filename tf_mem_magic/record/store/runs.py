"""The recording files that lie in the cache: who wrote them, for which notebook, whether their cell still runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tf_mem_magic.core.jsonio import UnreadableFileError
from tf_mem_magic.record.store import folder as store_folder
from tf_mem_magic.record.store.layout import NAME_SIZE, read_head


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A recording file: who wrote it, whether it was finished, and whether its process still writes it."""

    path: Path
    pid: int
    started: float
    finished: bool
    running: bool
    notebook: str = ""

    @property
    def killed(self) -> bool:
        """Whether the process died before the cell ended."""
        return not self.finished and not self.running


def notebook() -> str:
    """Name this notebook as its kernels can know it: by the page's session, else by the working folder."""
    try:
        name = os.environ.get("JPY_SESSION_NAME") or os.getcwd()
    except OSError:  # the working folder was removed
        return ""
    return name.encode("utf-8", "replace")[:NAME_SIZE].decode("utf-8", "ignore")


def stored_runs(folder: Path) -> tuple[StoredRun, ...]:
    """List the recording files in ``folder`` that can be read, the newest first; only their heads are looked at."""
    return tuple(run for path in store_folder.recording_files(folder) if (run := _look_at(path)) is not None)


def prune(folder: Path) -> None:
    """Remove all but the newest recording files in ``folder``; never that of a cell that still runs."""
    for path in store_folder.recording_files(folder)[store_folder.KEPT :]:
        run = _look_at(path)
        if not (store_folder.is_locked(path) if run is None else run.running):
            store_folder.remove(path)


def _look_at(path: Path) -> StoredRun | None:
    try:
        head = read_head(path)
    except UnreadableFileError:
        return None
    finished = head.get("status") > 0
    pid = head.get("pid")
    running = not finished and (store_folder.is_locked(path) if head.get("locked") else store_folder.is_alive(pid))
    name = head.get("notebook").rstrip(b"\0").decode("utf-8", "replace")
    return StoredRun(path, pid, head.get("started"), finished, running, name)
