"""The hooks around every cell: they find the tag, start a run before the cell and end it after."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from tf_mem_magic.core.options import asks_for_help, cell_parser
from tf_mem_magic.core.tag import find_tag

if TYPE_CHECKING:
    from tf_mem_magic.session.run import CellRun
    from tf_mem_magic.session.session import Session


class _Entry:
    """One cell on the stack: its info, when it began, and the run that watches it, if any."""

    __slots__ = ("info", "inner_error", "run", "shared", "started")

    def __init__(self, info: Any, run: CellRun | None, shared: _Entry | None) -> None:
        self.info, self.run, self.shared = info, run, shared
        self.started = time.monotonic()
        self.inner_error: BaseException | None = None


class Hooks:
    """``pre_run_cell`` and ``post_run_cell`` of one shell.

    Cells nest (``ip.run_cell`` in a cell, ``%%capture``), so entries are kept on a stack; a post without its pre
    is no concern of ours, and a pre without its post is dropped when an outer cell ends.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stack: list[_Entry] = []

    def pre(self, info: Any) -> None:
        """Begin watching the cell, where it is tagged or every cell is watched."""
        entry = _Entry(info, None, None)
        self._stack.append(entry)
        with _Contained("could not watch this cell"):
            raw = info.raw_cell or ""
            outer = next((e for e in reversed(self._stack[:-1]) if e.run is not None), None)
            options_text = find_tag(raw)
            if options_text is not None and asks_for_help(options_text):
                print(cell_parser().format_help())
            elif outer is not None and options_text is not None and _is_rest_of(raw, outer.info.raw_cell):
                entry.shared = outer
            elif options_text is not None or (self._session.always_on and outer is None):
                entry.run = self._session.begin(info, options_text)

    def post(self, result: Any) -> None:
        """End watching the cell."""
        info = getattr(result, "info", None)
        index = next((i for i in reversed(range(len(self._stack))) if self._stack[i].info is info), None)
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
        self._session.ran(info, count, time.monotonic() - entry.started)
        if entry.run is not None:
            with _Contained("could not report on this cell"):
                if entry.run.finish(error or entry.inner_error, count):
                    _succeed(result, self._session.shell)
        entry.inner_error = error = None

    def close(self) -> None:
        """Abandon every run still on the stack."""
        while self._stack:
            _abandon(self._stack.pop())


class _Contained:
    """A context in which an error of ours becomes one line: the person's cell is never affected."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{where.tb_lineno}" if where else "?"
        what = f"{type(error).__name__}: {error}; at {place}"
        text = f"tf_mem_magic {self._what} ({what}). The cell itself is unaffected."
        print(text, file=getattr(sys, "stderr", None))
        return True


def _abandon(entry: _Entry) -> None:
    if entry.run is not None:
        with _Contained("could not stop watching a cell"):
            entry.run.abandon()


def _error_of(result: Any) -> BaseException | None:
    return getattr(result, "error_before_exec", None) or getattr(result, "error_in_exec", None)


def _succeed(result: Any, shell: Any) -> None:
    """Let a cell count as succeeded that failed at first: whoever asks how it ended asks ``result``."""
    result.error_in_exec = None
    shell.last_execution_succeeded = True


def _is_rest_of(inner: str, outer: str | None) -> bool:
    """Tell whether ``inner`` is ``outer`` less some leading lines: what ``%%capture`` runs of its cell."""
    return bool(outer and outer.rstrip().endswith(inner.rstrip()) and outer != inner)
