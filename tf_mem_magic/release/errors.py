"""What an error holds: the values in its frames are dropped, its text and its lines stay."""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from tf_mem_magic.facts.kinds import is_a

_SUSPENDABLE = 0x20 | 0x80 | 0x200
"""Code flags of generators, coroutines and asynchronous generators."""

_OPTIMIZED = 0x1
"""Code flag of functions: their variables are no namespace."""


def release_exception(exc: BaseException | None, *, keep_frames: bool = False) -> int:
    """Drop every value that the frames of an exception hold, whoever refers to the exception.

    Tracebacks keep their lines (``%tb`` works), their frames lose their variables (``%debug`` shows none). IPython
    and ``sys.last_value`` may go on holding the exception. Frames still running, and generators that may yet go
    on, are left alone.

    Parameters
    ----------
    exc : BaseException or None
        The exception; its causes, contexts and the members of a group are included.
    keep_frames : bool
        Leave everything as it is.

    Returns
    -------
    int
        Frames emptied.
    """
    if exc is None or keep_frames:
        return 0
    frames = list(_frames(exc))
    waiting = _suspended(frames)
    emptied = 0
    for frame in frames:
        if id(frame) in waiting:
            continue
        try:
            frame.clear()
        except RuntimeError:
            continue
        if frame.f_code.co_flags & _OPTIMIZED:
            frame.f_locals  # noqa: B018 - before Python 3.13 a copy made earlier holds the values until it is read again
        emptied += 1
    frames.clear()
    gc.collect()
    return emptied


def forget_error(shell: Any) -> None:
    """Let go of the shell's last error but for its text and its place in the cell, which is what ``%tb`` then shows.

    Since Python 3.11 an emptied frame still holds its function, and the function its closure: Keras's training
    function has the model there. So before a rerun the traceback below the cell goes as well.
    """
    error = getattr(sys, "last_value", None)
    if not isinstance(error, BaseException):
        return
    release_exception(error)
    kept = _cell_part(error.__traceback__, shell.user_ns)
    for one in _chain(error):
        one.__traceback__ = None
    error.__traceback__ = sys.last_traceback = kept
    shown: Any = getattr(shell, "InteractiveTB", None)
    if getattr(shown, "tb", None) is not None:
        shown.tb = kept
    gc.collect()


def _frames(exc: BaseException) -> Iterator[types.FrameType]:
    """Yield the finished frames that the exception's chain can reach.

    Keras filters its own frames out of the traceback: they are found only through ``f_back``.
    """
    seen: set[int] = set()
    for error in _chain(exc):
        entry = error.__traceback__
        while entry is not None:
            frame: types.FrameType | None = entry.tb_frame
            while frame is not None and id(frame) not in seen:
                seen.add(id(frame))
                yield frame
                frame = frame.f_back
            entry = entry.tb_next


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes and contexts, and the members of groups among them, each once."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [exc]
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        todo += [error.__cause__, error.__context__, *_members(error)]
        yield error


def _members(error: BaseException) -> tuple[BaseException, ...]:
    """Give the members of an exception group; what an exception of another kind calls so is none of ours."""
    try:
        members = getattr(error, "exceptions", ())
    except Exception:
        return ()
    return tuple(one for one in members if is_a(one, BaseException)) if type(members) is tuple else ()


def _cell_part(entry: types.TracebackType | None, namespace: Mapping[str, Any]) -> types.TracebackType | None:
    """Copy a traceback down to the cell's own top-level line; None where no line of a cell is in it."""
    entries: list[types.TracebackType] = []
    last = 0
    while entry is not None:
        entries.append(entry)
        if entry.tb_frame.f_globals is namespace and not entry.tb_frame.f_code.co_flags & _OPTIMIZED:
            last = len(entries)
        entry = entry.tb_next
    copied = None
    for one in reversed(entries[:last]):
        copied = types.TracebackType(copied, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return copied


def _suspended(frames: list[types.FrameType]) -> set[int]:
    """Give the ids of frames that belong to a generator or coroutine that may still go on."""
    codes = {id(f.f_code) for f in frames if f.f_code.co_flags & _SUSPENDABLE}
    if not codes:
        return set()
    found: set[int] = set()
    for value in gc.get_objects():
        for prefix, kind in _KINDS:
            if type(value) is kind and id(getattr(value, prefix + "_code")) in codes:
                frame = getattr(value, prefix + "_frame")
                if frame is not None:
                    found.add(id(frame))
    return found


_KINDS = (("gi", types.GeneratorType), ("cr", types.CoroutineType), ("ag", types.AsyncGeneratorType))
