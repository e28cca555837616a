"""The control group of this process: which memory limit the Linux kernel really enforces, and how near it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60
"""Version 1 says "no limit" by a number near 2**63."""


@dataclass(frozen=True, slots=True)
class Group:
    """One control group with a memory ``limit`` in bytes; ``version`` is 1 or 2, ``folder`` its files."""

    folder: Path
    version: int
    limit: int


@dataclass(frozen=True, slots=True)
class GroupUse:
    """How full a control group is, in bytes, as the kernel judges before it kills: page cache it could drop is out."""

    used: int
    limit: int


def tightest_group(root: Path) -> Group | None:
    """Find the control group whose limit is met first: the smallest limit of our group and all its ancestors.

    ``root`` stands for ``/``, so that tests can lay out a tree of their own. None where nothing limits us.
    """
    groups = [Group(folder, version, limit) for folder, version in _folders(root) if (limit := _limit(folder, version))]
    return min(groups, key=lambda group: group.limit, default=None)


def group_use(group: Group) -> GroupUse | None:
    """Read how full ``group`` is; None where its files cannot be read."""
    usage, inactive = ("memory.current", "inactive_file")
    if group.version == 1:
        usage, inactive = ("memory.usage_in_bytes", "total_inactive_file")
    try:
        used = int((group.folder / usage).read_text())
        lines = (group.folder / "memory.stat").read_text().splitlines()
        cache = next((int(line.split()[1]) for line in lines if line.startswith(inactive + " ")), 0)
    except (OSError, ValueError, IndexError):
        return None
    return GroupUse(max(0, used - cache), group.limit)


def pressing_use(group: Group) -> GroupUse | None:
    """Read how full ``group`` is with what the kernel cannot drop: no page cache at all, no slab it can reclaim."""
    current = "memory.current" if group.version == 2 else "memory.usage_in_bytes"
    prefix = "" if group.version == 2 else "total_"
    droppable = {f"{prefix}inactive_file", f"{prefix}active_file", "slab_reclaimable"}
    try:
        used = int((group.folder / current).read_text())
        rows = [line.split() for line in (group.folder / "memory.stat").read_text().splitlines()]
        cache = sum(int(row[1]) for row in rows if row[0] in droppable)
    except (OSError, ValueError, IndexError):
        return None
    return GroupUse(max(0, used - cache), group.limit)


def _folders(root: Path) -> Iterator[tuple[Path, int]]:
    """Give the folders of our group and its ancestors, with the version of their hierarchy."""
    mounts = _mounts(root)
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        version = 2 if controllers == "" else 1
        if (version == 1 and "memory" not in controllers.split(",")) or version not in mounts:
            continue
        mounted, top = mounts[version]
        folder = top / _inside(path, mounted)
        while True:
            yield folder, version
            if folder == top:
                break
            folder = folder.parent


def _inside(path: str, mounted: str) -> str:
    """Give ``path`` relative to what is ``mounted``: a container often sees only its own part of the tree."""
    mounted = mounted.rstrip("/")
    inside = path == mounted or path.startswith(mounted + "/")
    return "" if not inside or ".." in path.split("/") else path[len(mounted) :].strip("/")


def _mounts(root: Path) -> dict[int, tuple[str, Path]]:
    """Find where each version's memory hierarchy is mounted: the part of the tree that is, and the folder."""
    found: dict[int, tuple[str, Path]] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        words, kind = fields.split(), rest.split()
        if len(words) < 5 or len(kind) < 3:
            continue
        place = (words[3], root / words[4].lstrip("/"))
        if kind[0] == "cgroup2":
            found.setdefault(2, place)
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.setdefault(1, place)
    return found


def _limit(folder: Path, version: int) -> int | None:
    text = "".join(_lines(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))[:1]).strip()
    return int(text) if text.isdecimal() and 0 < int(text) < _UNLIMITED else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
