"""How a cell reaches Keras and where it builds models, told from the imports of this and earlier cells."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.earlier import EarlierCells, earlier_cells
from tf_mem_magic.notebook.text.cell import PythonCell, children, walk
from tf_mem_magic.notebook.text.outline import import_parts

_BUILDERS = ("keras.layers.", "keras.models.", "keras.applications.", "keras.Sequential", "keras.Model", "keras.Input")
_NO_BUILDERS = ("keras.layers.Layer", "keras.models.save_model")
LOADERS = frozenset({"load_model", "model_from_json", "clone_model", "from_config", "from_preset", "from_pretrained"})
"""Calls that give a model its dtype policy from elsewhere than the global policy."""


@dataclass(frozen=True, slots=True)
class _Named:
    """What a cell says of names: imports, other names, classes with their bases, in the order of the tree's nodes.

    ``functions`` come with what they call. ``roots`` are, for each name, the names on which its meaning depends;
    ``imported`` the names that it imports.
    """

    events: tuple[tuple[str, ast.expr | str | list[ast.expr]], ...]
    functions: tuple[tuple[str, tuple[ast.expr, ...]], ...]
    roots: dict[str, frozenset[str]]
    imported: frozenset[str]


class KerasNames:
    """Names of a cell resolved to Keras's own (``keras.layers.Dense``), as far as imports tell.

    Of the earlier cells only those are read that say what a name means which is asked about.
    """

    def __init__(self, cell: PythonCell, before: Iterable[str] = ()) -> None:
        self.cell = cell
        self.before = earlier_cells(tuple(before))
        self._origins: dict[str, str] = {}
        self._builders: set[str] = set()
        self._asked: set[str] = set()
        self._places: set[int] = set()
        self._learnt = False

    @property
    def earlier(self) -> list[ast.Module]:
        """The trees of all earlier cells."""
        return [cell.tree for cell in self.before.all()]

    def origin(self, node: ast.AST) -> str:
        """Give the full name of a dotted expression, ``tensorflow.keras`` being ``keras``; empty where unknown."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        self._learn(node.id)
        return self._full(node.id, reversed(parts))

    def meaning(self, name: str) -> str:
        """Give the module or the part of one that a name is imported as, also where it is none of Keras's."""
        self._learn(name)
        return self._origins.get(name, "")

    def is_layer(self, call: ast.expr) -> bool:
        """Whether ``call`` constructs one of Keras's own layers."""
        if not isinstance(call, ast.Call):
            return False
        origin = self.origin(call.func)
        return origin.startswith("keras.layers.") and origin[len("keras.layers.") :][:1].isupper()

    def builds(self, node: ast.AST) -> bool:
        """Whether running ``node`` constructs layers or models; what only defines a function or class does not."""
        return any(self._is_builder(call.func) for call in _calls(node))

    def loads(self, node: ast.AST) -> bool:
        """Whether ``node`` gets a model from a file, a configuration or another model."""
        return any(_last(call.func) in LOADERS for call in _calls(node))

    def handle(self, before: ast.stmt) -> str | None:
        """Give the expression that surely means the module ``keras`` just before a top-level statement."""
        own = self.cell.once(statement_names)[: self.cell.tree.body.index(before)]
        bound = dict(self.before.once("handles", lambda: _handles(self.before)))
        meant = {*bound, *(n for s in own for n, origin in s.imported.items() if _is_handle(origin))}
        _bind_all(bound, own, meant)
        for name, origin in bound.items():
            if _plain(origin) == "keras":
                return name
        return next((f"{name}.keras" for name, origin in bound.items() if origin == "tensorflow"), None)

    def _is_built(self, name: str) -> bool:
        self._learn(name)
        return name in self._builders

    def _is_builder(self, func: ast.expr) -> bool:
        if isinstance(func, ast.Name) and self._is_built(func.id):
            return True
        origin = self.origin(func)
        return origin.startswith(_BUILDERS) and not origin.startswith(_NO_BUILDERS)

    def _full(self, name: str, parts: Iterable[str] = ()) -> str:
        return _plain(".".join([self._origins[name], *parts])) if name in self._origins else ""

    def _learn(self, name: str) -> None:
        """Read the cells that say what ``name`` means, and those that say what its meaning depends on."""
        queue = [name]
        while queue:
            one = queue.pop()
            if one in self._asked:
                continue
            self._asked.add(one)
            queue += self.cell.once(_named).roots.get(one, ())
            roots, places = self.before.once(("named", one), partial(_naming, self.before, one))
            queue += roots
            self._learnt = self._learnt and self._places.issuperset(places)
            self._places.update(places)
        if not self._learnt:
            self._learnt = True
            self._origins.clear()
            self._builders.clear()
            for place in sorted(self._places):
                cell = self.before.at(place)
                if cell is not None:
                    self._learn_cell(cell.once(_named))
            self._learn_cell(self.cell.once(_named))

    def _learn_cell(self, named: _Named) -> None:
        for name, what in named.events:
            if isinstance(what, str):
                self._origins[name] = what
            elif isinstance(what, list):
                if any(self._known_class(base) for base in what):
                    self._builders.add(name)
            else:
                origin = self._known(what)
                if origin.startswith("keras"):
                    self._origins[name] = origin
        for name, called in named.functions:
            if any(self._known_builder(func) for func in called):
                self._builders.add(name)

    def _known(self, node: ast.expr) -> str:
        parts, root = _parts(node)
        return self._full(root, parts)

    def _known_class(self, base: ast.expr) -> bool:
        built = isinstance(base, ast.Name) and base.id in self._builders
        return built or self._known(base).startswith("keras.")

    def _known_builder(self, func: ast.expr) -> bool:
        if isinstance(func, ast.Name) and func.id in self._builders:
            return True
        origin = self._known(func)
        return origin.startswith(_BUILDERS) and not origin.startswith(_NO_BUILDERS)


def _handles(before: EarlierCells) -> dict[str, str]:
    """Give what the names hold after the earlier cells that one of them imports as ``keras`` or ``tensorflow``."""
    imports = before.places_importing("keras", "tensorflow", "api", "src")
    # Cells with the same imports mean the same by them: one is read of each kind, here and in a row below.
    each = (before.at(place) for place in {import_parts(before.texts[place]): place for place in imports}.values())
    named = (s for cell in each if cell is not None for s in cell.once(statement_names))
    meant = {name for s in named for name, origin in s.imported.items() if _is_handle(origin)}
    bound: dict[str, str] = {}
    setting, last = set(before.places_setting(*meant)), None
    for place in sorted({*imports, *setting, *before.places_importing(*meant)}):
        parts = import_parts(before.texts[place])
        cell = before.at(place) if place in setting or parts != last else None
        last = None if place in setting else parts
        if cell is not None:
            _bind_all(bound, cell.once(statement_names), meant)
    return bound


def _bind_all(bound: dict[str, str], statements: Iterable[StatementNames], meant: set[str]) -> None:
    """Note in ``bound`` what statements make of the names ``meant``: imported, or something else."""
    for statement in statements:
        for name in statement.stored & meant:
            bound.pop(name, None)
        bound.update((n, o) for n, o in statement.imported.items() if n in meant)


def _naming(before: EarlierCells, name: str) -> tuple[frozenset[str], tuple[int, ...]]:
    """Give the names on which the meaning of ``name`` depends in earlier cells, and the places that say what it means.

    Of those that import it only the last one counts.
    """
    roots, places = set[str](), set[int]()
    for place in before.places_naming(name):
        cell = before.at(place)
        named = cell.once(_named) if cell is not None else None
        if named is not None and name in named.roots:
            roots |= named.roots[name]
            places.add(place)
    imported = (place for place, cell in before.importing_newest_first(name) if name in cell.once(_named).imported)
    places.update(itertools.islice(imported, 1))
    return frozenset(roots), tuple(places)


@dataclass(frozen=True, slots=True)
class StatementNames:
    """The names that one top-level statement sets, in what it defines too, and those it imports, with their origin."""

    stored: frozenset[str]
    imported: dict[str, str]


def statement_names(cell: PythonCell) -> tuple[StatementNames, ...]:
    """List what each top-level statement of a cell sets and imports; to be asked by ``cell.once``."""
    return tuple(StatementNames(frozenset(_stored(s)), _imports(s)) for s in cell.tree.body)


def _named(cell: PythonCell) -> _Named:
    events: list[tuple[str, ast.expr | str | list[ast.expr]]] = []
    functions: list[tuple[str, tuple[ast.expr, ...]]] = []
    roots: dict[str, set[str]] = {}
    imported: set[str] = set()
    for node in cell.nodes:
        for name, origin in _imports(node).items():
            events.append((name, origin))
            imported.add(name)
            roots.setdefault(name, set())
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            root = _parts(node.value)[1]
            if root:
                events.append((node.targets[0].id, node.value))
                roots.setdefault(node.targets[0].id, set()).add(root)
        elif isinstance(node, ast.ClassDef):
            events.append((node.name, node.bases))
            roots.setdefault(node.name, set()).update(_parts(base)[1] for base in node.bases)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            called = tuple(call.func for statement in node.body for call in _calls(statement))
            functions.append((node.name, called))
            roots.setdefault(node.name, set()).update(_parts(func)[1] for func in called)
    depends = {name: frozenset(found - {""}) for name, found in roots.items()}
    return _Named(tuple(events), tuple(functions), depends, frozenset(imported))


def _parts(node: ast.AST) -> tuple[list[str], str]:
    """Give the parts of a dotted expression after its first name, and that name; empty where it is none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return parts[::-1], node.id if isinstance(node, ast.Name) else ""


def _is_handle(origin: str) -> bool:
    return origin == "tensorflow" or _plain(origin) == "keras"


_SHORT = ("tensorflow.optimizers.", "tensorflow.losses.", "tensorflow.metrics.", "tensorflow.initializers.")
"""Modules of Keras that TensorFlow shows under its own name too."""


def _plain(origin: str) -> str:
    for long in ("tensorflow.python.keras", "tensorflow.keras", "keras.api", "keras.src"):
        if origin == long or origin.startswith(f"{long}."):
            return f"keras{origin[len(long) :]}"
    return origin.replace("tensorflow", "keras", 1) if origin.startswith(_SHORT) else origin


def _imports(node: ast.AST) -> dict[str, str]:
    if isinstance(node, ast.Import):
        return {
            a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0] for a in node.names
        }
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names if a.name != "*"}
    return {}


def _stored(statement: ast.stmt) -> list[str]:
    return [n.id for n in walk(statement) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that run when ``node`` runs: not those in the body of a function that it defines."""
    ahead = [node]
    while ahead:
        one = ahead.pop()
        if isinstance(one, ast.Call):
            yield one
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
            ahead += [*one.decorator_list, *one.args.defaults]
        elif not isinstance(one, ast.Lambda):
            ahead += children(one)


def _last(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def tensorflow_name(names: KerasNames, first: int) -> tuple[str, list[str]] | None:
    """Give the name that surely means TensorFlow before a statement, and the lines that make it where none does.

    ``first`` is the statement's place in the cell's body; None where what ``tf`` means is not certain, because a cell
    may use it for something else.
    """
    sure = _imported_as(names.cell, first, names.before)
    if sure is not None:
        return sure, []
    if "tf" in names.cell.words or names.before.mentions("tf"):
        return None
    return "tf", ["import tensorflow as tf"]


_TENSORFLOW = ("tensorflow", "tensorflow.compat.v2")


def reaches_tensorflow(cell: PythonCell, facts: Facts) -> str | None:
    """Give the name under which a cell can reach TensorFlow by its own imports or those of earlier cells."""
    return _imported_as(cell, len(cell.tree.body), earlier_cells(facts.earlier_cells))


def _imported_as(cell: PythonCell, until: int, before: EarlierCells) -> str | None:
    """Give the shortest name under which top-level statements import TensorFlow and that none of them sets anew."""
    own = cell.once(statement_names)[:until]
    bodies = [*(c.tree.body for c in before.importing("tensorflow")), cell.tree.body[:until]]
    imports = (
        a for body in bodies for s in body if isinstance(s, ast.Import) for a in s.names if a.name in _TENSORFLOW
    )
    found = {a.asname or a.name for a in imports}
    again = {n for s in own for n in s.stored}
    again |= {n for c in before.binding(*found) for s in c.once(statement_names) for n in s.stored}
    return min(found - again, key=len, default=None)
