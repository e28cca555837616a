"""The notebook's classes and functions, and where they are called: each cell that matters is looked at once."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from tf_mem_magic.notebook.earlier import EarlierCells
from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.text.cell import PythonCell, children, walk
from tf_mem_magic.notebook.text.outline import definitions_of, names_defined
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
            before = self.notebook.before
            counted = before.once(("called", name), lambda: _times_called(name, before.with_word(name)))
            self._repeated[name] = counted + _times_called(name, (self.notebook.cell,)) > 1
        return self._repeated[name]

    def cells_with_blocks(self, held: Collection[str]) -> Iterator[PythonCell]:
        """Yield the earlier cells that may define a block, newest first: layers in something that is used again.

        ``held`` are the layers of the model where they are known: other classes do not matter then.
        """
        before, own = self.notebook.before, self.notebook.cell.words
        for place, defined in before.once("defined with Keras", lambda: _defined_with_keras(before)):
            used = {name for name in defined if name in own or _is_called_again(before, name)}
            if used:
                made = before.once(("blocks", place), partial(_may_be_blocks, before, place))
                names = made.functions | (made.classes.intersection(held) if held else made.classes)
                cell = None if names.isdisjoint(used) else before.at(place)
                if cell is not None:
                    yield cell


def _reached(before: EarlierCells) -> tuple[dict[int, frozenset[str]], frozenset[str]]:
    """Give where Keras is used, with the names made of it there, and all these names."""
    return before.once("of Keras", lambda: before.reached_from("keras", "tensorflow"))


def _defined_with_keras(before: EarlierCells) -> tuple[tuple[int, frozenset[str]], ...]:
    """List the cells that define something of Keras at their left edge, newest first: where they stand, the names."""
    made, _ = _reached(before)
    named = ((place, made[place] & names_defined(before.texts[place])) for place in sorted(made, reverse=True))
    return tuple((place, names) for place, names in named if names)


def _is_called_again(before: EarlierCells, name: str) -> bool:
    """Tell whether earlier cells may call a name more than once."""
    return before.once(("called again", name), lambda: before.may_call_again(name))


@dataclass(frozen=True, slots=True)
class _MayBeBlocks:
    """What of an earlier cell may be a block, as its text has it: layers with a ``call``, or what adds layers."""

    classes: frozenset[str]
    functions: frozenset[str]


def _may_be_blocks(before: EarlierCells, place: int) -> _MayBeBlocks:
    """Give what of a cell may define a block; nothing is parsed for that."""
    reached, known = _reached(before)
    made = reached[place]
    parts = [p for p in definitions_of(before.texts[place]) if p.name in made and not known.isdisjoint(p.reads)]
    classes = frozenset(p.name for p in parts if p.is_class and "call" in p.reads)
    return _MayBeBlocks(classes, frozenset(p.name for p in parts if not p.is_class))


def names_called(node: ast.AST) -> set[str]:
    """Give the last names of everything that the node's text calls."""
    return {called_name(n) for n in walk(node) if isinstance(n, ast.Call)}


def _definitions(cell: PythonCell) -> dict[str, list[Definition]]:
    found: dict[str, list[Definition]] = {}
    for statement in reversed(cell.tree.body):
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            found.setdefault(statement.name, []).append(statement)
    return found


def _times_called(name: str, cells: Iterable[PythonCell]) -> int:
    """Count the places where cells call a name; one in a loop counts as two."""
    counted = [cell.once(_called) for cell in cells]
    return sum(places.get(name, 0) + 2 * (name in in_loops) for places, in_loops in counted)


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
        ahead += [(child, in_loop) for child in children(node)]
    return places, frozenset(inside)
