"""A person's Stop (SIGINT) while our own code runs around a cell: held back there, and never lost.

IPython swallows a ``KeyboardInterrupt`` that is raised inside a hook and runs the cell all the same. So around a hook
the signal's handler is ours: it only remembers. A Stop before the cell's code began is raised where that code would
have begun; one after it had ended makes the cell end as interrupted.
"""

from __future__ import annotations

import ast
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_NONE: Any = object()


class StoppedError(Exception):
    """A Stop ended work of ours."""


class HeldStop:
    """Holds back Stops between :meth:`hold` and :meth:`let_go`; does nothing in other threads than the main one.

    Attributes
    ----------
    stopped : bool
        Whether a Stop came.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._raises = False
        self._before: Any = _NONE

    def hold(self) -> None:
        """Begin to hold Stops back."""
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # it is ignored, ends the process, or was not set by Python: none of our concern
            return
        self._before = handler
        signal.signal(signal.SIGINT, self._handle)

    def let_go(self) -> None:
        """Give the signal back to whom it belonged; idempotent. A Stop from now on is raised as always."""
        before = self._before
        if before is _NONE:
            return
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, before)
        self._before = _NONE

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work``, which a Stop may end, and give what it gives.

        Raises
        ------
        StoppedError
            If a Stop came, now or before.
        """
        if self.stopped:
            raise StoppedError
        try:
            self._raises = True
            made = work()
        except KeyboardInterrupt:
            self.stopped = True
        except Exception:
            if not self.stopped:  # what a Stop came through as, where a library has turned it into an error of its own
                raise
        finally:
            self._raises = False
        if self.stopped:
            raise StoppedError
        return made

    def run_cell(self, work: Callable[[], T]) -> T | None:
        """Call ``work``, which runs code of the user's, as if no Stop were held back; None where one came through."""
        if self.stopped:
            return None
        held = self._before is not _NONE
        self.let_go()
        try:
            return work()
        except KeyboardInterrupt:
            self.stopped = True
            return None
        finally:
            if held:
                self.hold()

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.stopped = True
        if self._raises:
            self._raises = False
            raise KeyboardInterrupt


class StopAtStart(ast.NodeTransformer):
    """Puts a ``KeyboardInterrupt`` in the place of a cell's code: IPython then ends the cell as it would for a Stop."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def install(self) -> None:
        """Let it change the next cell that is compiled."""
        if self not in self._shell.ast_transformers:
            self._shell.ast_transformers.insert(0, self)

    def remove(self) -> None:
        """Let the next cells be; idempotent."""
        if self in self._shell.ast_transformers:
            self._shell.ast_transformers.remove(self)

    def visit(self, node: ast.AST) -> ast.AST:
        """Give a module that only raises, at the line where the code begins."""
        self.remove()
        if not isinstance(node, ast.Module):
            return node
        line = getattr(node.body[0], "lineno", 1) if node.body else 1
        name = ast.Name("KeyboardInterrupt", ast.Load())
        raises = ast.Raise(name, None)
        for one in (raises, name):
            ast.copy_location(one, ast.Pass(lineno=line, col_offset=0, end_lineno=line, end_col_offset=0))
        return ast.Module([raises], node.type_ignores)


def interrupt_result(result: Any, shell: Any, why: str) -> None:
    """Let a cell whose code has ended well end as interrupted, and show that as IPython shows an error.

    A cell that failed keeps its own error.
    """
    if result is None or _failed(result):
        return
    error = KeyboardInterrupt(why)
    result.error_in_exec = error
    shell.last_execution_succeeded = False
    try:
        shell._showtraceback(KeyboardInterrupt, error, [f"KeyboardInterrupt: {why}"])
    except Exception:
        print(f"KeyboardInterrupt: {why}", file=sys.stderr)


def _failed(result: Any) -> bool:
    return result.error_before_exec is not None or result.error_in_exec is not None


def current_task() -> Any:
    """Give the asyncio task in which a cell with a top-level ``await`` runs; None for other cells."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.current_task() if asyncio is not None else None
    except RuntimeError:
        return None


def was_cancelled(error: BaseException | None, task: Any) -> bool:
    """Tell whether an error is a Stop of a cell with a top-level ``await``: ipykernel then cancels the cell's task.

    Code that cancels a task of its own and waits for it gets the same error, but the cell's task was not asked to end.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not isinstance(error, asyncio.CancelledError):
        return False
    cancelling = getattr(task, "cancelling", None)  # Python 3.11 and later
    return True if cancelling is None else bool(cancelling())
