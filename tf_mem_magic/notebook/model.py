"""The notebook as text, read once: the cell that ran, the cells before it, and what is asked about their names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from tf_mem_magic.core.proposals import LineTitles, RefusedError
from tf_mem_magic.notebook.bindings import last_bindings, takes_apply
from tf_mem_magic.notebook.earlier import EarlierCells, earlier_cells
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.rerun.effects import Effect, effects_of
from tf_mem_magic.notebook.scopes import Binding, Scopes
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell, words_of
from tf_mem_magic.notebook.text.edits import IMPORT, Editor
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.uses import called_name


@dataclass(frozen=True, slots=True)
class Function:
    """A function or class that a cell of the notebook defines at its top level, and the cell that does."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    cell: PythonCell
    is_earlier: bool


@dataclass(frozen=True, slots=True)
class Use:
    """A place that reads or sets a name: the node, its cell, and how."""

    node: ast.Name
    cell: PythonCell
    kind: Literal["reads", "sets"]


@dataclass(frozen=True, eq=False)
class Notebook:
    """The cell that ran and the sources of the cells that ran before it, oldest first; every part is computed once.

    Earlier cells are looked at by their words first: only those that can matter to a question are parsed.
    """

    source: str
    earlier: tuple[str, ...] = ()
    titles: LineTitles = ()

    @cached_property
    def read(self) -> PythonCell | NotPython:
        """The cell that ran, or why it cannot be read."""
        return read_cell(self.source, self.titles)

    @property
    def cell(self) -> PythonCell:
        """The cell that ran.

        Raises
        ------
        RefusedError
            If it is no Python.
        """
        if isinstance(self.read, NotPython):
            raise RefusedError(self.read.reason)
        return self.read

    @property
    def scopes(self) -> Scopes:
        """The names of the cell: scopes, bindings, reads."""
        return self.cell.scopes

    @cached_property
    def names(self) -> KerasNames:
        """Names resolved to Keras's own, by the imports of all cells."""
        return KerasNames(self.cell, self.earlier)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The sources of all cells, this one's first."""
        return (self.source, *self.earlier)

    @cached_property
    def before(self) -> EarlierCells:
        """The cells that ran before, asked by their words."""
        return earlier_cells(self.earlier)

    def mentions(self, *words: str) -> bool:
        """Tell whether a cell, this one included, has one of ``words`` anywhere in its text."""
        return not words_of(self.source).isdisjoint(words) or self.before.mentions(*words)

    def has(self, *texts: str) -> bool:
        """Tell whether one of ``texts`` stands in a cell, this one included, as it is written."""
        return any(text in self.source for text in texts) or self.before.has(*texts)

    def matches(self, pattern: re.Pattern[str], *literals: str) -> bool:
        """Tell whether a pattern is found in a cell's text; it is looked for only where one of ``literals`` stands."""
        near = not literals or any(literal in self.source for literal in literals)
        return (near and pattern.search(self.source) is not None) or self.before.matches(pattern, *literals)

    def words_ending(self, ending: str) -> tuple[str, ...]:
        """List the words of all cells that end so."""
        own = (word for word in words_of(self.source) if word.endswith(ending))
        return tuple(sorted(self.before.words_ending(ending).union(own)))

    def earlier_with(self, *words: str) -> tuple[PythonCell, ...]:
        """List the earlier cells that have one of ``words`` in their text, oldest first; those that are Python."""
        return self.before.with_word(*words)

    def cells_with(self, *words: str) -> tuple[PythonCell, ...]:
        """List the cells that have one of ``words`` in their text, oldest first; the one that ran comes last."""
        own = (self.cell,) if self.cell.words & set(words) else ()
        return (*self.earlier_with(*words), *own)

    # -- questions about the cell ------------------------------------------------------------------------------------

    def calls(self, *methods: str, on: str | None = None) -> tuple[ast.Call, ...]:
        """List the cell's calls of functions or methods with these names (none: all), on the object ``on``."""
        calls = (c for c in self.cell.calls if not methods or called_name(c) in methods)
        return tuple(c for c in calls if on is None or receiver(c) == on)

    def failing(self, line: int | None) -> tuple[ast.Call, ...]:
        """List the calls of the cell on the way to an error in ``line`` of the tree, innermost first."""
        hit = (c for c in self.cell.calls if line is not None and c.lineno <= line <= (c.end_lineno or c.lineno))
        return tuple(sorted(hit, key=lambda c: (c.lineno, c.col_offset, -(c.end_lineno or 0)), reverse=True))

    def statement_in(self, line: int | None) -> ast.stmt | None:
        """Give the one statement of the cell itself that covers a line; None where there is none, or more than one."""
        hit = [s for s in self.cell.tree.body if line is not None and s.lineno <= line <= (s.end_lineno or s.lineno)]
        return hit[0] if len(hit) == 1 else None

    def definitions(self, name: str, at: ast.AST) -> tuple[Binding, ...]:
        """List the bindings of ``name`` in the cell that may reach ``at``: one alone where it is sure."""
        scope = self.scopes.lookup(name, self.scopes.scope_of(at))
        found = self.scopes.of(scope, name)
        sure = self.scopes.reaching(at, found)
        return tuple(found) if sure is None else (sure,)

    def origin(self, node: ast.AST) -> str:
        """Give Keras's own name of a dotted expression, such as ``keras.layers.Dense``; empty where unknown."""
        return self.names.origin(node)

    def sets(self, attribute: str) -> bool:
        """Tell whether the cell sets an attribute or entry that is written so (``model.jit_compile``)."""
        stored = (n for n in self.cell.nodes if isinstance(n, (ast.Attribute, ast.Subscript)))
        return any(not isinstance(n.ctx, ast.Load) and ast.unparse(n) == attribute for n in stored)

    # -- questions about all cells -----------------------------------------------------------------------------------

    def uses(self, name: str) -> tuple[Use, ...]:
        """List every place that reads or sets ``name``, in functions, methods and classes of all cells too."""
        return tuple(
            Use(node, cell, "reads" if isinstance(node.ctx, ast.Load) else "sets")
            for cell in self.cells_with(name)
            for node in cell.nodes
            if isinstance(node, ast.Name) and node.id == name
        )

    def function(self, name: str) -> Function | None:
        """Find the function or class ``name`` as the cell that ran reaches it; None where no cell defines it."""
        cell: PythonCell | None = self.cell
        if name not in self.cell.words or name not in self.cell.once(last_bindings):
            place = self.before.once(("binds", name), lambda: _last_binding(self.before, name))
            cell = None if place is None else self.before.at(place)
        statement = None if cell is None else cell.once(last_bindings)[name]
        if cell is not None and isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return Function(statement, cell, cell is not self.read)
        return None

    def takes(self, name: str) -> bool:
        """Tell whether a cell uses ``name`` for something of its own; for ``apply``, our own import does not count."""
        if name == "apply":
            near = (self.earlier[place] for place in self.before.places_with(name))
            return takes_apply(self.source) or any(takes_apply(text) for text in near)
        return self.mentions(name)

    def free_name(self, stem: str, *more: str) -> str:
        """Give a name that no cell has in its text: ``stem``, the next of ``more``, or the last with a number."""
        tries = (stem, *more, *(f"{(stem, *more)[-1]}_{n}" for n in range(2, 1000)))
        return next(name for name in tries if not self.mentions(name))

    def effects(self) -> tuple[Effect, ...]:
        """List what running the cell again does outside its names: files, packages, training."""
        return effects_of(self.source)

    # -- editing -----------------------------------------------------------------------------------------------------

    def edit(self) -> Editor:
        """Give an editor of the cell that ran."""
        return Editor(self.cell)


def _last_binding(before: EarlierCells, name: str) -> int | None:
    """Find where the last earlier cell stands that binds ``name`` by a statement of its own."""
    return next((at for at, cell in before.binding_on_top(name) if name in cell.once(last_bindings)), None)


def receiver(call: ast.Call) -> str:
    """Give the object whose method is called, as plain text; empty for a call of a function."""
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""


@lru_cache(maxsize=16)
def _notebook(source: str, earlier: tuple[str, ...], titles: LineTitles) -> Notebook:
    return Notebook(source, earlier, titles)


def read_notebook(source: str, earlier: Iterable[str] = (), titles: LineTitles = ()) -> Notebook:
    """Give the notebook of a cell and the cells before it; the same texts give the same notebook."""
    return _notebook(source, tuple(earlier), titles)


__all__ = ["IMPORT", "Function", "Notebook", "Use", "read_notebook", "receiver"]
