"""Letting go: of what an error holds, of what a failed run made, and of what a person names."""

from __future__ import annotations

import gc
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.units import size
from tf_mem_magic.facts.kinds import is_a
from tf_mem_magic.notebook.bindings import assigned_names, rebuilt_names
from tf_mem_magic.release.gradient_registry import tie_gradients_to_graphs

if TYPE_CHECKING:
    from tf_mem_magic.facts.gather import Before

_SUSPENDABLE = 0x20 | 0x80 | 0x200
"""Code flags of generators, coroutines and asynchronous generators."""
_OPTIMIZED = 0x1
SMALL = (types.ModuleType, type, int, float, complex, bool, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Released:
    """What was let go: the ``names``, and the bytes that came back by series name (allocators that count)."""

    names: tuple[str, ...] = ()
    bytes: tuple[tuple[str, int], ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say it to the user; nothing where nothing worth saying happened."""
        back = words(self.bytes)
        if not self.names or not back:
            return ()
        return (f"Released before this run: {listed(self.names)} of the run before it ({back}).",)


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


def release_run(shell: Any, before: Before, source: str, results: list[Any] | None = None) -> Released:
    """Let go of what a run of ``source`` made, so that running the cell again starts from where that run started.

    A name is let go where the run bound it to something new and the next run does not need it: it was unbound
    before the run, or the cell binds it anew before reading it. What another name, list, function or module holds
    lives on; what existed before the run is never touched.

    Parameters
    ----------
    shell : InteractiveShell
        The shell whose names are meant.
    before : Before
        What the names held when that run began (:func:`tf_mem_magic.facts.gather.snapshot`).
    source : str
        The cell as it ran.
    results : list, optional
        What reruns of the cell gave that IPython does not keep under the cell's own number; emptied here.
    """
    counted = bytes_in_use()
    forget_error(shell)
    namespace = shell.user_ns
    anew = rebuilt_names(source)
    names = tuple(
        name
        for name in sorted(assigned_names(source))
        if name in namespace
        and (name not in before.names or name in anew)
        and not is_a(namespace[name], SMALL)
        and not before.held(name, namespace[name])
    )
    values = [namespace[name] for name in names]
    for name in names:
        del namespace[name]
    values += _results_of(shell, before, source)
    forget_results(shell, [*values, *(results or ())])
    values.clear()
    if results:
        results.clear()
    _forget_validation(namespace)
    collect()
    return Released(names, gained(counted, bytes_in_use()))


def _forget_validation(namespace: Mapping[str, Any]) -> None:
    """Drop the validation data that a ``fit`` which failed left on its model.

    Keras removes them only where ``fit`` ends well; the next ``fit`` would use them again, in their old batches.
    """
    from tf_mem_magic.facts.models import find_models
    from tf_mem_magic.facts.names import reachable

    for _, model in find_models(reachable(namespace)):
        try:
            if getattr(model, "_eval_epoch_iterator", None) is not None:
                model._eval_epoch_iterator = None
        except Exception:  # a model class with attributes of its own making
            continue


def free(shell: Any, names: Iterable[str]) -> str:
    """Let go of what ``names`` hold, other names and ``Out`` entries for the same objects included.

    A Keras model that something else still refers to is emptied: its variables and its optimizer's give their
    memory back, and it cannot be used any more.

    Returns
    -------
    str
        One sentence for the user: what was let go and the bytes that came back as the allocator counts them.
    """
    from tf_mem_magic.release.by_name import free_names

    return free_names(shell, tuple(names))


def bytes_in_use() -> Mapping[str, int]:
    """Read what TensorFlow's allocators hand out now, by series name; nothing where they do not tell."""
    from tf_mem_magic.sources import Unavailable
    from tf_mem_magic.sources import tensorflow as allocators

    source = allocators.open()
    if isinstance(source, Unavailable):
        return {}
    try:
        return dict(source.read())
    finally:
        source.close()


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


def _results_of(shell: Any, before: Before, source: str) -> list[Any]:
    """List the results in ``Out`` that runs of this very cell gave since ``before``."""
    raw = shell.history_manager.input_hist_raw
    return [
        value
        for count, value in list(shell.user_ns.get("Out", {}).items())
        if f"Out[{count}]" not in before.names
        and isinstance(count, int)
        and count < len(raw)
        and raw[count].rstrip() == source.rstrip()
    ]


def forget_results(shell: Any, values: list[Any]) -> None:
    """Take ``values`` out of IPython's memory of results: ``Out``, ``_``, ``__``, ``___``, ``_3``."""
    ids = {id(value) for value in values if not is_a(value, SMALL)}
    results = shell.user_ns.get("Out", {})
    for count in [c for c, value in results.items() if id(value) in ids]:
        del results[count]
    for names in (shell.user_ns, shell.user_ns_hidden):
        for name in [n for n, value in names.items() if id(value) in ids and _is_result_name(n)]:
            del names[name]
    hook = shell.displayhook
    for name in ("_", "__", "___"):
        if id(getattr(hook, name, None)) in ids:
            setattr(hook, name, "")
            shell.user_ns[name] = ""
    last = getattr(shell, "last_execution_result", None)
    if last is not None and id(last.result) in ids:
        last.result = None


def _is_result_name(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"_\d+|_{1,3}", name) is not None


def collect() -> None:
    """Collect garbage, and what TensorFlow's registry of gradients would keep alive for ever."""
    tie_gradients_to_graphs()
    gc.collect()


def gained(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Give the bytes that came back between two readings, by series name."""
    return tuple((name, value - after[name]) for name, value in before.items() if name in after)


def words(back: Iterable[tuple[str, int]]) -> str:
    """Say how much came back on which device; empty where nothing did."""
    parts = [f"{size(value)} of {name.partition(':')[2]}" for name, value in back if value > 0]
    return " and ".join(parts) + " came back" if parts else ""


def listed(names: tuple[str, ...]) -> str:
    """List up to four names in words."""
    shown = [f"`{name}`" for name in names[:4]]
    if len(names) > 4:
        shown.append(f"{len(names) - 4} more")
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
