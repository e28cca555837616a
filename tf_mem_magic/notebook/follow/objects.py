"""Methods of the notebook's own objects: the class that an object surely is of, and what a method of it runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.notebook.bindings import binds_name, last_bindings
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.model import Function
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell, walk

_DEEPEST = 8
"""So many classes may stand behind one another."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the notebook, as an object has it.

    Attributes
    ----------
    node : ast.FunctionDef
        Its definition, without decorators.
    cell : PythonCell
        Where that stands.
    classes : tuple of Function
        The object's class and all that it is derived from; empty where one of them is none of the notebook's.
    """

    node: ast.FunctionDef
    cell: PythonCell
    classes: tuple[Function, ...]

    @property
    def scopes(self) -> Scopes:
        """The names of the method's cell."""
        return self.cell.scopes

    @property
    def own(self) -> str:
        """The name by which the method knows its object."""
        return [*self.node.args.posonlyargs, *self.node.args.args][0].arg

    def functions(self) -> Iterator[ast.FunctionDef]:
        """Yield the functions that stand in the classes, inner ones left out."""
        for one in self.classes:
            yield from (member for member in one.node.body if isinstance(member, ast.FunctionDef))

    def running(self) -> frozenset[ast.FunctionDef]:
        """Give the method and those that it calls on its object, through one another."""
        named: dict[str, list[ast.FunctionDef]] = {}
        for function in self.functions():
            named.setdefault(function.name, []).append(function)
        found, todo = {self.node}, [self.node]
        while todo:
            for node in walk(todo.pop()):
                news = set(named.get(node.attr, ())) - found if isinstance(node, ast.Attribute) else set()
                found |= news
                todo += news
        return frozenset(found)


def method_of(reader: Reader, call: ast.Call) -> Method | None:
    """Find the method that ``call`` runs, where it is of an object of the notebook whose class is certain."""
    if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
        return None
    cls = _class_of(reader, call.func.value)
    name = call.func.attr
    return None if cls is None or _is_replaced(reader, name) else _in_class(reader, cls, name)


def _class_of(reader: Reader, name: ast.Name) -> Function | None:
    """Give the class of the notebook that made what ``name`` holds."""
    made = _made(reader, name)
    if not isinstance(made, ast.Call) or not isinstance(made.func, ast.Name):
        return None
    if reader.cell.scopes.lookup(made.func.id, reader.cell.tree) is not reader.cell.tree:
        return None
    return _class(reader, made.func.id)


def _made(reader: Reader, name: ast.Name) -> ast.expr | None:
    """Give what a name of the notebook was surely set to."""
    if not isinstance(reader.scopes.home(name), ast.Module):
        return None
    if reader.bindings(name):
        chosen = reader.reaching(name)
        return None if chosen is None or chosen.kind != "assign" else chosen.value
    for _, cell in reader.notebook.before.binding_on_top(name.id):
        statement = cell.once(last_bindings).get(name.id)
        if statement is not None:
            return _plainly_set(statement, name.id)
    return None


def _plainly_set(statement: ast.stmt, name: str) -> ast.expr | None:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    plain = any(isinstance(target, ast.Name) and target.id == name for target in targets)
    return statement.value if plain and isinstance(statement, (ast.Assign, ast.AnnAssign)) else None


def _class(reader: Reader, name: str) -> Function | None:
    """Find a class that all cells which define it write alike: an object may be of any of them."""
    found = reader.notebook.function(name)
    if found is None or not isinstance(found.node, ast.ClassDef):
        return None
    texts = {
        ast.dump(node)
        for cell in reader.notebook.cells_with(name)
        for node in cell.nodes
        if isinstance(node, ast.ClassDef) and node.name == name
    }
    return found if len(texts) == 1 else None


def _is_replaced(reader: Reader, name: str) -> bool:
    """Tell whether the notebook sets an attribute of that name, which may stand in a method's place."""
    nodes = (node for cell in reader.notebook.cells_with(name) for node in cell.nodes)
    return any(isinstance(n, ast.Attribute) and n.attr == name and isinstance(n.ctx, ast.Store) for n in nodes)


def _in_class(reader: Reader, cls: Function, name: str) -> Method | None:
    line = _line(reader, cls)
    whole = not _bases(line[-1])
    for one in line:
        defined = [member for member in one.node.body if getattr(member, "name", "") == name]
        if defined:
            node = defined[-1]
            otherwise = (member for member in one.node.body if not isinstance(member, ast.FunctionDef))
            if not isinstance(node, ast.FunctionDef) or node.decorator_list or not _has_self(node):
                return None
            if any(binds_name(member, name) for member in otherwise):
                return None
            return Method(node, one.cell, tuple(line) if whole else ())
    return None


def _line(reader: Reader, cls: Function) -> list[Function]:
    """List a class of the notebook and those above it, as far as each has one base that the notebook defines."""
    found = [cls]
    while len(found) < _DEEPEST:
        bases = _bases(found[-1])
        above = _class(reader, bases[0].id) if len(bases) == 1 and isinstance(bases[0], ast.Name) else None
        if above is None or above.node in [one.node for one in found]:
            break
        found.append(above)
    return found


def _bases(cls: Function) -> list[ast.expr]:
    bases = cls.node.bases if isinstance(cls.node, ast.ClassDef) else []
    return [base for base in bases if not (isinstance(base, ast.Name) and base.id == "object")]


def _has_self(function: ast.FunctionDef) -> bool:
    return bool(function.args.posonlyargs or function.args.args)
