"""The one editor of a cell: what is changed is asked for by nodes of the tree, and refused where it is not certain."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import (
    CellEdit,
    apply_edits,
    insert_argument,
    insert_line,
    insert_on_top,
    put_under,
    shares_line,
)
from tf_mem_magic.notebook.uses import called_name

IMPORT = "from tf_mem_magic import apply"
"""The line that a changed cell gets which calls a function of ours; :class:`Editor` writes it where ``apply=True``."""

SHARED = "the statement that trains shares its line with another: give it a line of its own"


class Editor:
    """Edits of one cell, collected; :meth:`source` gives the changed cell.

    Every method but the last gives the editor itself, so that edits can be written in a row.

    Raises
    ------
    RefusedError
        By every method, where the edit cannot be sure: arguments behind stars, a line that other code shares, lines
        that are no Python, a comment that would be lost, code that would stand before ``from __future__``.
    """

    def __init__(self, cell: PythonCell) -> None:
        self.cell = cell
        self._edits: list[CellEdit] = []

    def argument(self, call: ast.Call, name: str, value: str) -> Editor:
        """Set an argument of ``call`` by its name: its value is replaced where it is given, else it is added last."""
        node = argument(call, name)
        if node is not None:
            return self.replace(node, value)
        self._edits.append(insert_argument(self.cell, call, f"{name}={value}"))
        return self

    def replace(self, node: ast.expr | ast.stmt, text: str) -> Editor:
        """Put ``text`` in the place of ``node``."""
        self._edits.append(CellEdit(self.cell.start(node), self.cell.end(node), text))
        return self

    def before(self, statement: ast.stmt, *lines: str, apply: bool = False) -> Editor:
        """Insert lines before a statement, at its indentation; with ``apply`` the import of ``apply`` before them."""
        if shares_line(self.cell, statement):
            raise RefusedError(SHARED)
        self._edits.append(insert_line(self.cell, statement, *_with_import(lines, apply)))
        return self

    def on_top(self, *lines: str, apply: bool = False) -> Editor:
        """Insert lines before the cell's first statement; a docstring and ``from __future__`` stay first."""
        self._edits.append(insert_on_top(self.cell, _with_import(lines, apply)))
        return self

    def edit(self, *edits: CellEdit) -> Editor:
        """Take edits of ranges of the text that were made elsewhere (a batch size that was followed to its place)."""
        self._edits += edits
        return self

    def source(self) -> str:
        """Give the changed cell."""
        return _given(apply_edits(self.cell, self._edits))

    def around(self, first: int, last: int, header: str, *above: str) -> str:
        """Give the cell with its statements ``first`` to ``last`` (places in the tree's body) under ``header``.

        ``above`` are lines to stand before the header. Other edits cannot be made together with this one.
        """
        if self._edits:
            raise ValueError("what is put under a header is not edited besides")
        return _given(put_under(self.cell, first, last, above, header))


def argument(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """Give the argument that ``call`` is given by ``name`` or at ``position``; None where it is given none.

    Raises
    ------
    RefusedError
        If stars hide some of the arguments, so that it may be among them.
    """
    if any(k.arg is None for k in call.keywords) or any(isinstance(a, ast.Starred) for a in call.args):
        raise RefusedError(f"some arguments of `{called_name(call) or ast.unparse(call.func)}` are hidden behind stars")
    named = next((k.value for k in call.keywords if k.arg == name), None)
    if named is None and position is not None and position < len(call.args):
        return call.args[position]
    return named


def _with_import(lines: Sequence[str], apply: bool) -> tuple[str, ...]:
    return (IMPORT, *lines) if apply else tuple(lines)


def _given(changed: str | NotPython) -> str:
    if isinstance(changed, NotPython):
        raise RefusedError(changed.reason)
    return changed
