"""A live exception as text: its chain, and where in the user's own code it happened. Keeps nothing alive."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from types import FrameType, TracebackType
from typing import Any, TypeVar

from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.diagnose.places import deeper_frames, frames_in_message
from tf_mem_magic.facts.frames import is_user_file

T = TypeVar("T")

MOST_ERRORS = 32
"""A chain or group longer than this is cut: nobody reads further, and a loop of retries can be very long."""


def to_error_texts(exc: BaseException, cell_files: Collection[str] = ()) -> tuple[ErrorText, ...]:
    """Give an exception and what led to it as text, the raised one first.

    Parameters
    ----------
    exc : BaseException
        The exception that ended the cell. Neither it nor any frame is kept.
    cell_files : collection of str
        The file names under which this very cell was compiled. Other cells are known by the form of their names.

    Returns
    -------
    tuple of ErrorText
        Frames are those of the traceback from the cell inwards, outermost first, followed by the user's own frames
        that only the text tells (a graph's operation says where it was defined). Notes follow the message; members
        of an exception group follow the group.
    """
    return tuple(_to_text(error, cell_files) for error in _chain(exc))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [exc]
    while waiting and len(seen) < MOST_ERRORS:
        error = waiting.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        origin = _origin(error)
        if origin is not None:
            waiting.append(origin)
        # Exception groups exist since Python 3.11; their members are told by this attribute.
        members: Any = _asked(partial(getattr, error, "exceptions", None), None)
        if isinstance(members, tuple):
            waiting.extend(m for m in reversed(members) if isinstance(m, BaseException))


def _origin(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    context = error.__context__
    if context is None or not error.__suppress_context__:
        return context
    # Keras raises a new exception "from None" that says where the first one came from; where it cannot build one of
    # the same class (NumPy's MemoryError) it is a RuntimeError. A person who writes "from None" has replaced it.
    return context if _message(error).startswith("Exception encountered when calling ") else None


def _to_text(error: BaseException, cell_files: Collection[str]) -> ErrorText:
    live = _frames(error.__traceback__, cell_files)
    message = _message(error)
    told = [_marked(frame, cell_files) for frame in frames_in_message(message)]
    bases = tuple(f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__[:-1])
    return ErrorText(type(error).__name__, message, (*live, *deeper_frames(live, told)), bases)


def _message(error: BaseException) -> str:
    text = _asked(lambda: str(error), "")
    notes: Any = _asked(lambda: getattr(error, "__notes__", None), None)
    if isinstance(notes, list):
        text = "\n".join([text, *(note for note in notes if isinstance(note, str))])
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a lone surrogate can be neither shown nor saved


def _asked(question: Callable[[], T], otherwise: T) -> T:
    """Ask an exception something, which may run the user's code; whatever that raises is no answer, but for a Stop."""
    try:
        return question()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return otherwise


def _frames(traceback: TracebackType | None, cell_files: Collection[str]) -> tuple[Frame, ...]:
    frames: list[Frame] = []
    first = traceback.tb_frame if traceback is not None else None
    while traceback is not None:
        frames.append(_frame(traceback.tb_frame, traceback.tb_lineno, cell_files))
        traceback = traceback.tb_next
    start = next((i for i, f in enumerate(frames) if f.in_cell), None)
    if start is not None:
        return tuple(frames[start:])
    outer = _outer(first, cell_files) if first is not None else []
    return (*outer, *frames)


def _outer(frame: FrameType, cell_files: Collection[str]) -> list[Frame]:
    """Give the frames that called ``frame``, from the cell inwards; empty where no cell called it."""
    outer: list[Frame] = []
    caller = frame.f_back
    while caller is not None:
        outer.insert(0, _frame(caller, caller.f_lineno, cell_files))
        if outer[0].in_cell:
            return outer
        caller = caller.f_back
    return []


def _frame(frame: FrameType, line: int | None, cell_files: Collection[str]) -> Frame:
    # A frame whose instruction has no line (generated code) has None here.
    return _marked(Frame(frame.f_code.co_filename, line or 0, frame.f_code.co_name), cell_files)


def _marked(frame: Frame, cell_files: Collection[str]) -> Frame:
    in_cell = frame.file in cell_files
    return replace(frame, in_cell=in_cell, is_user=in_cell or is_user_file(frame.file))
