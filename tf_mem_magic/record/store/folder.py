"""Where recording files lie: the user's cache folder or what replaces it, who is still writing, what is pruned."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

SUFFIX = ".tfmem"
KEPT = 8
"""Recording files that are kept, the newest; those of running cells come on top."""


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Give the folder of everything tf_mem_magic keeps between runs; it may not exist.

    ``TFMEM_CACHE`` names it, else it is ``tf_mem_magic`` in ``XDG_CACHE_HOME`` or in ``~/.cache``.

    Raises
    ------
    RuntimeError
        If nothing names it and the user has no home.
    """
    own = environ.get("TFMEM_CACHE")
    if own:
        return Path(own).expanduser()
    base = environ.get("XDG_CACHE_HOME")
    if base and os.path.isabs(base):
        return Path(base) / "tf_mem_magic"
    return Path.home() / ".cache" / "tf_mem_magic"


def candidate_folders() -> Iterator[Path]:
    """Give the folders to try for recordings, best first: the user's cache, then one in the temp folder."""
    try:
        yield cache_folder() / "recordings"
    except RuntimeError:
        pass
    yield Path(tempfile.gettempdir()) / f"tf_mem_magic-{os.getuid()}" / "recordings"


def make_private(folder: Path) -> None:
    """Make ``folder`` with its parents.

    Raises
    ------
    OSError
        If it cannot be made, or lies in the temp folder and is not the user's own: others may put something there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_relative_to(tempfile.gettempdir()):
        for path in (folder, folder.parent):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise PermissionError(errno.EPERM, "not a folder of this user", str(path))


def create_file(folder: Path, size: int) -> tuple[Path, int]:
    """Create a recording file of ``size`` zero bytes, readable by the user alone; give its path and descriptor.

    Its blocks are really allocated, because writing to a mapped file on a full disk kills the process.

    Raises
    ------
    OSError
        If the folder is read-only or the disk full; nothing is left behind.
    """
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _allocate(fd, size)
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return path, fd


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    left = memoryview(bytes(size))
    while left:
        left = left[os.write(fd, left) :]
    os.fsync(fd)


def lock(fd: int) -> bool:
    """Mark the file as being written for as long as this process lives; False where the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process holds the file's lock."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def recording_files(folder: Path) -> tuple[Path, ...]:
    """List the recording files in ``folder``, the newest first."""
    try:
        found = [(path.lstat().st_mtime_ns, path) for path in folder.glob(f"*{SUFFIX}")]
    except OSError:
        return ()
    return tuple(path for _, path in sorted(found, reverse=True))


def companion(path: Path, suffix: str) -> Path:
    """Give the path beside a recording file for what belongs to it (``.stderr``, ``.dumps``); removed with it."""
    return path.with_name(path.name.removesuffix(SUFFIX) + suffix)


def remove(path: Path) -> None:
    """Remove a recording file and what lies beside it; what cannot be removed stays."""
    stem = path.name.removesuffix(SUFFIX)
    for beside in (path, *path.parent.glob(f"{stem}.*")):
        if beside.is_dir() and not beside.is_symlink():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            try:
                beside.unlink(missing_ok=True)
            except OSError:
                pass
