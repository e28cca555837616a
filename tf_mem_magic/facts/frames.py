"""Where the user's code is: which files are the user's own, and the calls that are running there."""

from __future__ import annotations

import inspect
import os
import sysconfig
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import FrameType
from typing import Any

from tf_mem_magic.core.recording import Frame
from tf_mem_magic.diagnose.places import is_cell_file

MOST_FRAMES = 16
"""The user's calls that are noted of a stack, the innermost; recursion can be very deep."""

MOST_LINES = 3
"""Lines on the way to an error of which is told what they were given."""

_MOST_LOOKED_AT = 1000


@lru_cache(maxsize=4096)
def is_user_file(file: str) -> bool:
    """Say whether ``file`` holds the user's own code: a cell, or a file outside Python, its packages and this one."""
    if is_cell_file(file):
        return True
    if file.startswith("<") or "__autograph_generated_file" in file:
        return False
    path = os.path.realpath(file)
    if "site-packages" in path or "dist-packages" in path:
        return False
    return not path.startswith(_library_folders())


@lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = {paths["stdlib"], paths["platstdlib"], ours}
    return tuple(os.path.realpath(folder) + os.sep for folder in folders)


def user_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of the user's own code on a stack, innermost first."""
    for _ in range(_MOST_LOOKED_AT):
        if frame is None:
            return
        if is_user_file(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def running_calls(frame: FrameType | None, namespace: Mapping[str, Any]) -> tuple[Frame, ...]:
    """Give where the user's code is running, outermost first: from the cell inwards, ``frame`` being the innermost.

    The cell is what runs at the top level of ``namespace``. Cheap, and works on the stack of another thread
    (``sys._current_frames()[thread_id]``); nothing is kept.
    """
    found: list[tuple[str, int, str]] = []
    cell = None
    for one in user_frames(frame):
        code = one.f_code
        if one.f_globals is namespace and not code.co_flags & inspect.CO_OPTIMIZED:
            cell = code.co_filename
        found.append((code.co_filename, one.f_lineno or 0, code.co_name))
    shown = found if len(found) <= MOST_FRAMES else [*found[: MOST_FRAMES - 1], found[-1]]
    return tuple(Frame(file, line, name, file == cell, True) for file, line, name in reversed(shown))


def chain_of(exception: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it came of, each once."""
    seen: set[int] = set()
    while exception is not None and id(exception) not in seen:
        seen.add(id(exception))
        yield exception
        exception = exception.__cause__ or exception.__context__


def innermost_frames(exception: BaseException | None) -> Iterator[FrameType]:
    """Yield the frame where each exception of the chain arose; Keras filters its own entries, ``f_back`` has them."""
    for one in chain_of(exception):
        trace = one.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None:
            yield trace.tb_frame


def local_names(exception: BaseException | None) -> Iterator[tuple[str, Any]]:
    """Yield the local names of the user's own functions that led to the error, innermost first."""
    running = _running_frames()
    for frame in error_frames(exception):
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED and frame not in running:
            yield from list(frame.f_locals.items())


def error_frames(exception: BaseException | None) -> Iterator[FrameType]:
    """Yield the frames of the user's own code that led to an error, innermost first."""
    frames: list[FrameType] = []
    for frame in innermost_frames(exception):
        caller: FrameType | None = frame
        while caller is not None:
            frames.append(caller)
            caller = caller.f_back
    trace = exception.__traceback__ if exception is not None else None
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    yield from (one for one in dict.fromkeys(frames) if is_user_file(one.f_code.co_filename))


def _running_frames() -> set[FrameType]:
    """Give the frames that go on after us: before Python 3.13 reading their names would keep the values alive."""
    frames, frame = set[FrameType](), inspect.currentframe()
    while frame is not None:
        frames.add(frame)
        frame = frame.f_back
    return frames


def lines_to(exception: BaseException | None) -> Iterator[tuple[FrameType, int]]:
    """Yield the user's frames that led to an error with the line that each was at, innermost first, a few of them."""
    found: dict[FrameType, int] = {}
    for one in chain_of(exception):
        trace = one.__traceback__
        while trace is not None:
            if is_user_file(trace.tb_frame.f_code.co_filename):
                found.setdefault(trace.tb_frame, trace.tb_lineno or 0)
            trace = trace.tb_next
    running = _running_frames()
    yield from [(frame, line) for frame, line in reversed(found.items()) if frame not in running][:MOST_LINES]
