"""The notebook's classes and functions, and where they are called: each cell that matters is looked at once."""

from __future__ import annotations

import ast
from functools import cached_property

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell, words_of
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.uses import called_name

Definition = ast.ClassDef | ast.FunctionDef
_REPEATS = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp)


class Structure:
    """What the cells of a notebook define at their top level; the last definition of a name counts."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.names: KerasNames = notebook.names
        self._repeated: dict[str, bool] = {}
        self._found: dict[tuple[type, str], Definition | None] = {}

    def class_of(self, name: str) -> ast.ClassDef | None:
        """Give the class ``name``; None where no cell defines it."""
        found = self._last(ast.ClassDef, name)
        return found if isinstance(found, ast.ClassDef) else None

    def function_of(self, name: str) -> ast.FunctionDef | None:
        """Give the function ``name``; None where no cell defines it."""
        found = self._last(ast.FunctionDef, name)
        return found if isinstance(found, ast.FunctionDef) else None

    def _last(self, kind: type, name: str) -> Definition | None:
        key = (kind, name)
        if key not in self._found:
            cells = (self.notebook.cell, *reversed(self.notebook.before.naming(name)))
            tops = (s for cell in cells for s in cell.once(_definitions).get(name, ()) if isinstance(s, kind))
            self._found[key] = next(tops, None)
        return self._found[key]

    def definitions(self, names: set[str]) -> list[Definition]:
        """List the classes and functions of the notebook among ``names``: in the order of names, classes first."""
        kinds = (self.class_of, self.function_of)
        return [found for find in kinds for name in sorted(names) if (found := find(name)) is not None]

    def is_repeated(self, name: str) -> bool:
        """Whether something called ``name`` is made in a loop, or in two places."""
        if name not in self._repeated:
            counted = [cell.once(_called) for cell in self.notebook.cells_with(name)]
            places = sum(places.get(name, 0) for places, _ in counted)
            self._repeated[name] = places > 1 or any(name in in_loops for _, in_loops in counted)
        return self._repeated[name]

    @cached_property
    def cells_with_blocks(self) -> tuple[PythonCell, ...]:
        """The earlier cells that may define a block, newest first: layers of Keras in something that is used again."""
        texts = self.notebook.before.texts
        by_word: dict[str, set[int]] = {}
        for number, text in enumerate(texts):
            for word in words_of(text):
                by_word.setdefault(word, set()).add(number)
        known: set[str] = set()
        ahead = ["keras", "tensorflow"]
        found: set[int] = set()
        while ahead:
            word = ahead.pop()
            for number in by_word.get(word, set()) - found:
                found.add(number)
                ahead += self.notebook.before.named(number) - known
                known |= self.notebook.before.named(number)
        cells = []
        for number in sorted(found, reverse=True):
            names = self.notebook.before.named(number)
            again = (
                n for n in names if len(by_word[n]) > 1 or n in self.notebook.cell.words or texts[number].count(n) > 1
            )
            if any(again):
                cells.append(read_cell(texts[number]))
        return tuple(cell for cell in cells if not isinstance(cell, NotPython))


def names_called(node: ast.AST) -> set[str]:
    """Give the last names of everything that the node's text calls."""
    return {called_name(n) for n in ast.walk(node) if isinstance(n, ast.Call)}


def _definitions(cell: PythonCell) -> dict[str, list[Definition]]:
    found: dict[str, list[Definition]] = {}
    for statement in reversed(cell.tree.body):
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            found.setdefault(statement.name, []).append(statement)
    return found


def _called(cell: PythonCell) -> tuple[dict[str, int], frozenset[str]]:
    """Count the places that call each plain name, and give the last names of all that is called in loops."""
    places: dict[str, int] = {}
    for call in cell.calls:
        if isinstance(call.func, ast.Name):
            places[call.func.id] = places.get(call.func.id, 0) + 1
    inside: set[str] = set()
    ahead: list[tuple[ast.AST, bool]] = [(cell.tree, False)]
    while ahead:
        node, in_loop = ahead.pop()
        in_loop = in_loop or isinstance(node, _REPEATS)
        if in_loop and isinstance(node, ast.Call):
            inside.add(called_name(node))
        ahead += [(child, in_loop) for child in ast.iter_child_nodes(node)]
    return places, frozenset(inside)
