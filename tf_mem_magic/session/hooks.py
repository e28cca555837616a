"""The hooks around every cell: they find the tag, start a run before the cell and end it after."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core import troubles
from tf_mem_magic.core.options import asks_for_help, cell_parser
from tf_mem_magic.core.tag import find_tag, is_command
from tf_mem_magic.record.held_stop import HeldStop
from tf_mem_magic.session.restarts.at_work import replaying_of
from tf_mem_magic.session.stop import StopAtStart, interrupt_result

if TYPE_CHECKING:
    from tf_mem_magic.session.run import CellRun
    from tf_mem_magic.session.session import Session

STOPPED_LATE = "stopped while tf_mem_magic made its report; the cell itself had ended"


class _Entry:
    """One cell on the stack: its info, when it began, and the run that watches it, if any."""

    __slots__ = ("info", "inner_error", "is_refused", "raw", "run", "shared", "started", "thread")

    def __init__(self, info: Any) -> None:
        self.info = weakref.ref(info)
        self.raw: str = info.raw_cell or ""
        self.run: CellRun | None = None
        self.is_refused = False
        self.shared: _Entry | None = None
        self.started = time.monotonic()
        self.inner_error: BaseException | None = None
        self.thread = threading.get_ident()


class Hooks:
    """``pre_run_cell`` and ``post_run_cell`` of one shell.

    Cells nest (``ip.run_cell`` in a cell, ``%%capture``), so entries are kept on a stack. IPython ends some cells with
    another ``info`` than it began them with, or with none at all (a Stop on a top-level ``await``, an error that it
    cannot print): those are known by their source, else by their place on the stack. A post without its pre is no
    concern of ours; a pre without its post is dropped when an outer cell ends or the next one begins.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stack: list[_Entry] = []
        self._stop_at_start = StopAtStart(session.shell)

    def pre(self, info: Any) -> None:
        """Begin watching the cell, where it is tagged, a rerun, or every cell is watched."""
        stop = HeldStop()
        try:
            stop.hold()
            self._begin(info)
            stop.let_go()
            if not stop.stopped:
                return
        except KeyboardInterrupt:
            stop.let_go()
        self._stop_at_start.install()

    def post(self, result: Any) -> None:
        """End watching the cell."""
        stop = HeldStop()
        try:
            stop.hold()
            self._end(result, stop)
            stop.let_go()
            if not stop.stopped:
                return
        except KeyboardInterrupt:
            stop.let_go()
        interrupt_result(result, self._session.shell, STOPPED_LATE)

    def close(self) -> None:
        """Abandon every run still on the stack."""
        self._stop_at_start.remove()
        while self._stack:
            _abandon(self._stack.pop())

    def _begin(self, info: Any) -> None:
        self._stop_at_start.remove()
        self._drop_ended()
        entry = _Entry(info)
        self._stack.append(entry)
        with _Contained("could not watch this cell"):
            outer = next((e for e in reversed(self._stack[:-1]) if e.run is not None), None)
            replaying = replaying_of(self._session.shell)
            if replaying is not None and replaying.refuses(info):
                entry.is_refused = True
                return
            options_text = find_tag(entry.raw)
            if options_text is not None and asks_for_help(options_text):
                print(cell_parser().format_help())
                return
            if outer is not None and options_text is not None and _is_rest_of(entry.raw, outer.raw):
                entry.shared = outer
                return
            rerun = self._session.rerun_of(info)
            any_cell = self._session.always_on and outer is None and not is_command(entry.raw)
            if options_text is not None or rerun is not None or any_cell:
                entry.run = self._session.begin(info, options_text, rerun)

    def _end(self, result: Any, stop: HeldStop) -> None:
        self._stop_at_start.remove()
        index = self._find(result)
        if index is None:
            return
        entry, abandoned = self._stack[index], self._stack[index + 1 :]
        del self._stack[index:]
        for other in abandoned:
            _abandon(other)
        error = _error_of(result)
        if entry.shared is not None:
            entry.shared.inner_error = error
        count = getattr(result, "execution_count", None)
        info = getattr(result, "info", None) or entry.info()
        if info is not None and not entry.is_refused:
            self._session.ran(info, count, time.monotonic() - entry.started, error is None and result is not None)
        if entry.run is not None:
            with _Contained("could not report on this cell"):
                if entry.run.finish(error or entry.inner_error, count, stop):
                    _succeed(result, self._session.shell)
        entry.inner_error = error = None

    def _find(self, result: Any) -> int | None:
        """Find the entry of the cell that has ended."""
        mine = [i for i, entry in enumerate(self._stack) if entry.thread == threading.get_ident()]
        if result is None:
            return mine[-1] if mine else None
        info = getattr(result, "info", None)
        exact = next((i for i in reversed(mine) if info is not None and self._stack[i].info() is info), None)
        if exact is not None:
            return exact
        raw = getattr(info, "raw_cell", None)
        return next((i for i in reversed(mine) if self._stack[i].raw == raw), None)

    def _drop_ended(self) -> None:
        """Abandon what is left of cells that ended without a post."""
        last = getattr(getattr(self._session.shell, "last_execution_result", None), "info", None)
        for entry in reversed(self._stack):
            info = entry.info()
            if info is None or info is last:
                self._stack.remove(entry)
                _abandon(entry)


class _Contained:
    """A context in which an error of ours becomes one line: the person's cell is never affected.

    Also one that ends more than a cell, such as the exit that an object of the user's raises when it is looked at. A
    Stop goes through.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _trace: Any) -> bool:
        if error is None or isinstance(error, KeyboardInterrupt):
            return False
        troubles.tell(self._what, error)
        return True


def _abandon(entry: _Entry) -> None:
    if entry.run is not None:
        with _Contained("could not stop watching a cell"):
            entry.run.abandon()


def _error_of(result: Any) -> BaseException | None:
    """Give what ended a cell; where IPython gives no result, it is what passes through right now."""
    if result is None:
        return sys.exc_info()[1]
    return getattr(result, "error_before_exec", None) or getattr(result, "error_in_exec", None)


def _succeed(result: Any, shell: Any) -> None:
    """Let a cell count as succeeded that failed at first: whoever asks how it ended asks ``result``."""
    result.error_in_exec = None
    shell.last_execution_succeeded = True


def _is_rest_of(inner: str, outer: str) -> bool:
    """Tell whether ``inner`` is ``outer`` less some leading lines: what ``%%capture`` runs of its cell."""
    return bool(outer) and outer.rstrip().endswith(inner.rstrip()) and outer != inner
