"""Which names a cell binds, and which it may read before: statements in the order in which Python runs them."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython


def assigned_names(source: str) -> frozenset[str]:
    """Give the names of the notebook that the cell binds anywhere; imports are left out."""
    walk = _walk_of(source)
    return frozenset() if walk is None else frozenset(walk.stored)


def rebuilt_names(source: str) -> frozenset[str]:
    """Give the names that the cell binds and whose earlier value it never reads.

    What such a name held before makes no difference to the cell: letting go of it first is safe. A name that a
    function of the cell reads counts as read where the function is defined.
    """
    walk = _walk_of(source)
    return frozenset() if walk is None else frozenset(walk.stored - walk.read_first)


def read_first_names(source: str) -> frozenset[str]:
    """Give the names whose earlier value the cell may read."""
    walk = _walk_of(source)
    return frozenset() if walk is None else frozenset(walk.read_first)


def compiled_first(source: str) -> frozenset[str]:
    """Give the names whose model a statement of the cell's own compiles before anything else of the cell reads them.

    ``model.compile(…)`` puts another optimizer in the place of the one that the model has.
    """
    cell = read_cell(source)
    if isinstance(cell, NotPython):
        return frozenset()
    found: set[str] = set()
    seen: set[str] = set()
    for statement in cell.tree.body:
        read = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "compile":
            of = call.func.value
            if isinstance(of, ast.Name) and of.id not in seen and read.count(of.id) == 1:
                found.add(of.id)
        seen.update(read)
    return frozenset(found)


def _walk_of(source: str) -> _Walk | None:
    cell = read_cell(source)
    return None if isinstance(cell, NotPython) else cell.once(_walked)


def _walked(cell: PythonCell) -> _Walk:
    walk = _Walk()
    walk.block(cell.tree.body)
    return walk


def bound_anew(statements: Sequence[ast.stmt]) -> set[str]:
    """Give the names that statements surely bind, without reading what they held before."""
    walk = _Walk()
    walk.block(list(statements))
    return walk.stored & walk.sure - walk.read_first


def read_first(statements: Sequence[ast.stmt]) -> set[str]:
    """Give the names whose earlier value statements may read."""
    walk = _Walk()
    walk.block(list(statements))
    return walk.read_first


class _Walk:
    """Reads statements in the order in which Python runs them.

    ``stored`` is bound anywhere, ``sure`` on every way to here, ``read_first`` read where it was not yet sure.
    """

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.sure: set[str] = set()
        self.read_first: set[str] = set()

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._function(node)
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif isinstance(node, ast.Assign):
            self.read(node.value)
            for target in node.targets:
                self._target(target)
        elif isinstance(node, ast.AnnAssign):
            self.read(node.value)
            if node.value is not None:
                self._target(node.target)
        elif isinstance(node, ast.AugAssign):
            if isinstance(node.target, ast.Name) and node.target.id not in self.sure:
                self.read_first.add(node.target.id)
            self.read(node.value)
            self._target(node.target)
        elif isinstance(node, ast.If):
            self.read(node.test)
            self._branches([node.body, node.orelse])
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self.read(node.iter)
            self._maybe([node.body], node.target)
            self._maybe([node.orelse])
        elif isinstance(node, ast.While):
            self.read(node.test)
            self._maybe([node.body])
            self._maybe([node.orelse])
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                self.read(item.context_expr)
                if item.optional_vars is not None:
                    self._target(item.optional_vars)
            self.block(node.body)
        elif isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
            self._try(node)  # type: ignore[arg-type]
        elif isinstance(node, ast.Match):
            self.read(node.subject)
            for case in node.cases:
                self._maybe([case.body], case.pattern, case.guard)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self.sure.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Delete):
            self._delete(node)
        else:
            self.read(node)

    def read(self, node: ast.AST | None) -> None:
        """Note what an expression reads and, by ``:=``, binds."""
        if node is None:
            return
        if isinstance(node, ast.Lambda):
            self._inner(node.args, [node.body])
            return
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            self._comprehension(node)
            return
        if isinstance(node, ast.NamedExpr):
            self.read(node.value)
            self.stored.add(node.target.id)
            return
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load) and node.id not in self.sure:
                self.read_first.add(node.id)
            return
        for child in ast.iter_child_nodes(node):
            self.read(child)

    def _target(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            self.stored.add(node.id)
            self.sure.add(node.id)
        elif isinstance(node, (ast.Tuple, ast.List)):
            for entry in node.elts:
                self._target(entry)
        elif isinstance(node, ast.Starred):
            self._target(node.value)
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)):
            if node.name:
                self.stored.add(node.name)
                self.sure.add(node.name)
            if isinstance(node, ast.MatchAs) and node.pattern is not None:
                self._target(node.pattern)
        elif isinstance(node, ast.pattern):
            for child in ast.iter_child_nodes(node):
                self._target(child) if isinstance(child, ast.pattern) else self.read(child)
        else:
            self.read(node)

    def _maybe(self, blocks: list[list[ast.stmt]], target: ast.AST | None = None, guard: ast.AST | None = None) -> None:
        """Read blocks that may not run: what they bind is not sure afterwards."""
        before = set(self.sure)
        if target is not None:
            self._target(target)
        self.read(guard)
        for block in blocks:
            self.block(block)
        self.sure = before

    def _branches(self, blocks: list[list[ast.stmt]]) -> None:
        """Read blocks of which exactly one runs: what each of them binds is sure afterwards."""
        before = set(self.sure)
        ends: list[set[str]] = []
        for block in blocks:
            self.sure = set(before)
            self.block(block)
            ends.append(self.sure)
        self.sure = set.intersection(*ends)

    def _try(self, node: ast.Try) -> None:
        self._maybe([node.body])
        for handler in node.handlers:
            self.read(handler.type)
            self._maybe([handler.body], ast.Name(handler.name, ast.Store()) if handler.name else None)
        self._maybe([node.orelse])
        self.block(node.finalbody)

    def _delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Name):
                self.read(target)
            elif target.id in self.sure:
                self.sure.discard(target.id)
            else:
                self.read_first.add(target.id)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for expression in node.decorator_list:
            self.read(expression)
        self._inner(node.args, node.body)
        self.stored.add(node.name)
        self.sure.add(node.name)

    def _inner(self, arguments: ast.arguments, body: Sequence[ast.AST]) -> None:
        for default in (*arguments.defaults, *arguments.kw_defaults):
            self.read(default)
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        local = {a.arg for a in (*named, arguments.vararg, arguments.kwarg) if a is not None}
        shared: set[str] = set()
        reads: set[str] = set()
        for statement in body:
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Global):
                    shared.update(inner.names)
                elif isinstance(inner, ast.Name):
                    (reads if isinstance(inner.ctx, ast.Load) else local).add(inner.id)
        self.stored |= shared
        self.read_first |= (reads - (local - shared)) - self.sure

    def _class(self, node: ast.ClassDef) -> None:
        for expression in (*node.decorator_list, *node.bases, *(k.value for k in node.keywords)):
            self.read(expression)
        for statement in node.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._inner(statement.args, statement.body)
            else:
                self.read(statement)
        self.stored.add(node.name)
        self.sure.add(node.name)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        local: set[str] = set()
        reads: set[str] = set()
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.stored.add(inner.target.id)
            elif isinstance(inner, ast.Name):
                (reads if isinstance(inner.ctx, ast.Load) else local).add(inner.id)
        self.read_first |= reads - local - self.sure
