"""The notebook's classes and functions, and where they are called: each cell that matters is looked at once."""

from __future__ import annotations

import ast
from functools import cached_property

from tf_mem_magic.notebook.earlier import EarlierCells
from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name

Definition = ast.ClassDef | ast.FunctionDef
WHOLE = frozenset({"Input", "InputLayer", "Model", "Sequential", "compile", "fit"})
"""What a function calls that makes a whole model, and no block of one."""
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
        before, own = self.notebook.before, self.notebook.cell.words
        found = before.once("cells with blocks", lambda: _may_define_blocks(before))
        cells = (before.at(place) for place, again, names in found if again or not own.isdisjoint(names))
        return tuple(cell for cell in cells if cell is not None)


def _may_define_blocks(before: EarlierCells) -> tuple[tuple[int, bool, frozenset[str]], ...]:
    """List where earlier cells may define a block, newest first: whether cells use it again, and the names that may be.

    That is a layer class with a ``call``, or a function that adds layers and makes no whole model itself.
    """
    found = []
    for place, made in sorted(before.reached_from("keras", "tensorflow").items(), reverse=True):
        text = before.texts[place]
        if not made or "def " not in text:
            continue
        cell = before.at(place)
        names = made & cell.once(_blocks_of) if cell is not None else frozenset[str]()
        if names:
            again = any(text.count(name) > 1 or len(before.places_with(name)) > 1 for name in names)
            found.append((place, again, names))
    return tuple(found)


def _blocks_of(cell: PythonCell) -> frozenset[str]:
    """Name the classes with a ``call`` and the functions without a whole model that a cell defines at its top level."""
    classes = (s for s in cell.tree.body if isinstance(s, ast.ClassDef))
    functions = (s for s in cell.tree.body if isinstance(s, ast.FunctionDef))
    return frozenset(
        (
            *(s.name for s in classes if any(isinstance(f, ast.FunctionDef) and f.name == "call" for f in s.body)),
            *(s.name for s in functions if (called := names_called(s)) and called.isdisjoint(WHOLE)),
        )
    )


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
