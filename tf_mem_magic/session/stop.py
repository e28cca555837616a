"""What becomes of a Stop that was held back around a cell.

IPython swallows a ``KeyboardInterrupt`` that is raised inside a hook and runs the cell all the same. So a Stop before
the cell's code began is raised where that code would have begun; one after it had ended makes the cell end as
interrupted.
"""

from __future__ import annotations

import ast
import sys
from typing import Any


class EndAtStart(ast.NodeTransformer):
    """Puts a statement that raises in the place of a cell's code: IPython then ends the cell as failed.

    IPython goes on with a cell whatever its hooks do: this is how one of them keeps it from running.
    """

    def __init__(self, shell: Any, code: str) -> None:
        self._shell, self._code = shell, code

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
        (raises,) = ast.parse(self._code).body
        for one in ast.walk(raises):
            ast.copy_location(one, ast.Pass(lineno=line, col_offset=0, end_lineno=line, end_col_offset=0))
        return ast.Module([raises], node.type_ignores)


class StopAtStart(EndAtStart):
    """Ends a cell as IPython would for a Stop."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell, "raise KeyboardInterrupt")


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
    Before Python 3.11 a task does not tell that, and both are taken for a Stop.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not isinstance(error, asyncio.CancelledError):
        return False
    cancelling = getattr(task, "cancelling", None)  # Python 3.11 and later
    return True if cancelling is None else bool(cancelling())
