"""Which assignment a name of the cell reads: scopes, bindings, and what surely ran before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kind = Literal["assign", "param", "loop", "def", "import", "changed"]
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, *_COMPREHENSIONS)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)


@dataclass(frozen=True, slots=True)
class Binding:
    """One place that gives ``name`` a value: ``value`` is the expression where it is a plain assignment.

    ``changed`` is anything that leaves the value unknown (``+=``, ``del``, unpacking, ``with … as``).
    """

    name: str
    kind: Kind
    scope: ast.AST
    node: ast.AST
    value: ast.expr | None = None


class Scopes:
    """The names of one parsed cell."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.parents: dict[ast.AST, ast.AST] = {}
        nodes: list[ast.AST] = [tree]
        for node in nodes:
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
                nodes.append(child)
        self.bindings: dict[tuple[ast.AST, str], list[Binding]] = {}
        self.shared: dict[tuple[ast.AST, str], ast.AST] = {}
        for node in nodes:
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                self._share(node)
        for node in nodes:
            self._bind(node)
        self.loads: dict[tuple[ast.AST, str], list[ast.Name]] = {}
        for node in nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self.loads.setdefault((self.home(node), node.id), []).append(node)

    def up(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the ancestors of ``node``, innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def scope_of(self, node: ast.AST) -> ast.AST:
        """Give the scope in which ``node`` is evaluated; a default, decorator or base belongs to the outer one."""
        child = node
        for parent in self.up(node):
            if isinstance(parent, _SCOPES) and self._inside(parent, child):
                return parent
            child = parent
        return self.tree

    def _inside(self, scope: ast.AST, child: ast.AST) -> bool:
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return child in scope.body
        if isinstance(scope, ast.Lambda):
            return child is scope.body
        return True

    def home(self, name: ast.Name) -> ast.AST:
        """Give the scope whose binding ``name`` reads; the module where no scope of the cell binds it."""
        return self.lookup(name.id, self.scope_of(name))

    def lookup(self, name: str, scope: ast.AST) -> ast.AST:
        """Give the scope that binds ``name`` as seen from ``scope``."""
        first = True
        while not isinstance(scope, ast.Module):
            if (scope, name) in self.shared:
                return self.shared[scope, name]
            if (first or not isinstance(scope, ast.ClassDef)) and (scope, name) in self.bindings:
                return scope
            first = False
            scope = self.scope_of(scope)
        return scope

    def of(self, scope: ast.AST, name: str) -> list[Binding]:
        """List the bindings of ``name`` in ``scope``, in the order of the text."""
        return sorted(self.bindings.get((scope, name), []), key=lambda b: position(b.node))

    def reaching(self, use: ast.AST, found: list[Binding]) -> Binding | None:
        """Give the one binding among ``found`` whose value ``use`` surely reads; None where that is not sure."""
        if len(found) == 1 and found[0].kind == "param":
            return found[0]
        if len(found) > 1 and (last := self._set_before_it_runs(use, found)) is not None:
            return last
        before = [b for b in found if b.kind != "param" and self._runs_before(b, use, alone=len(found) == 1)]
        given = [b for b in found if b.kind == "param" and self.scope_of(use) is b.scope]
        if not before and not given:
            return None
        chosen = (before or given)[-1]
        for other in found:
            if other in before or other.kind == "param" or self._is_replaced(other, chosen):
                continue
            if not self._runs_after(other, use) and not self._is_set_again(other, chosen, use):
                return None
        return chosen

    def _set_before_it_runs(self, use: ast.AST, found: list[Binding]) -> Binding | None:
        """Give the last binding where a function reads a name of the cell that is not set any more once it runs."""
        above = [node for node in self.up(use) if self.parents.get(node) is self.tree]
        if self.scope_of(use) is self.tree or not isinstance(above[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        if any(b.scope is not self.tree or list(self._places(b.node))[-1][0] is not self.tree for b in found):
            return None
        return found[-1] if self._runs_only_behind(above[0], found[-1].node, set()) else None

    def _runs_only_behind(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef, node: ast.AST, seen: set[ast.AST]
    ) -> bool:
        """Tell whether the cell names a function of its own only behind a statement, through other functions too."""
        seen.add(function)
        loads = self.loads.get((self.tree, function.name), [])
        if not loads or len(self.of(self.tree, function.name)) != 1:
            return False
        for top in map(self.top_statement, loads):
            if isinstance(top, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if top not in seen and not self._runs_only_behind(top, node, seen):
                    return False
            elif isinstance(top, ast.ClassDef) or position(top) <= position(node):
                return False
        return True

    def _is_set_again(self, binding: Binding, chosen: Binding, use: ast.AST) -> bool:
        """Tell whether each turn of the loop that leads from a later ``binding`` back to a use sets the name anew."""
        above = set(self.up(use))
        loop = next((node for node in self.up(binding.node) if isinstance(node, _LOOPS) and node in above), None)
        later = position(binding.node) > position(use) and self.scope_of(use) is binding.scope
        return later and loop is not None and chosen.kind != "param" and loop in set(self.up(chosen.node))

    def surely_before(self, statement: ast.stmt, use: ast.AST) -> bool:
        """Tell whether a statement surely ran before ``use``, since the block that holds both began."""
        above = [use, *self.up(use)]
        for owner, block, index in self._places(statement):
            for node in above:
                if self.parents.get(node) is owner and node in block:
                    return index < block.index(node)
        return False

    def _is_replaced(self, binding: Binding, later: Binding) -> bool:
        """Tell whether ``later``, which surely ran before a use, gave the name another value after ``binding`` did."""
        same = later.kind != "param" and self.scope_of(binding.node) is self.scope_of(later.node)
        return same and position(binding.node) < position(later.node)

    def _runs_before(self, binding: Binding, use: ast.AST, alone: bool) -> bool:
        if self.scope_of(use) is not binding.scope and not self._in_comprehension_of(use, binding.scope):
            return alone and list(self._places(binding.node))[-1][0] is binding.scope
        return self.surely_before(self.statement(binding.node), use)

    def _in_comprehension_of(self, use: ast.AST, scope: ast.AST) -> bool:
        inner = self.scope_of(use)
        while isinstance(inner, _COMPREHENSIONS):
            inner = self.scope_of(inner)
        return inner is scope

    def _runs_after(self, binding: Binding, use: ast.AST) -> bool:
        if self.scope_of(use) is not binding.scope and not self._in_comprehension_of(use, binding.scope):
            return False
        above = set(self.up(use))
        if any(isinstance(node, _LOOPS) and node in above for node in self.up(binding.node)):
            return False
        return position(binding.node) > position(use) or binding.node in above

    def _places(self, node: ast.AST) -> Iterator[tuple[ast.AST, list[ast.stmt], int]]:
        """Yield the block that ``node``'s statement stands in, and those in which that surely runs with it.

        A ``with`` or ``try`` body belongs to its outer block too.
        """
        statement: ast.AST = self.statement(node)
        while True:
            owner = self.parents[statement]
            block = _block(owner, statement)
            yield owner, block, block.index(statement)  # type: ignore[arg-type]
            if not self._always_runs(owner, block):
                return
            statement = owner

    def _always_runs(self, owner: ast.AST, block: list[ast.stmt]) -> bool:
        if isinstance(owner, (ast.With, ast.AsyncWith)):
            return True
        if isinstance(owner, ast.Try):
            return block is owner.body
        return isinstance(owner, ast.If) and block is owner.body and _is_main_guard(owner.test)

    def statement(self, node: ast.AST) -> ast.stmt:
        """Give the innermost statement that holds ``node``."""
        if isinstance(node, ast.stmt):
            return node
        return next(parent for parent in self.up(node) if isinstance(parent, ast.stmt))

    def top_statement(self, node: ast.AST) -> ast.stmt:
        """Give the cell's own statement that holds ``node``."""
        chain = [node, *self.up(node)]
        return next(n for n, parent in pairwise(chain) if isinstance(parent, ast.Module) and isinstance(n, ast.stmt))

    def _share(self, node: ast.Global | ast.Nonlocal) -> None:
        scope = self.scope_of(node)
        for name in node.names:
            target: ast.AST = self.tree
            if isinstance(node, ast.Nonlocal):
                target = self.scope_of(scope)
                while not isinstance(target, ast.Module) and not _binds(target, name):
                    target = self.scope_of(target)
            self.shared[scope, name] = target

    def _add(
        self, name: str, kind: Kind, node: ast.AST, value: ast.expr | None = None, scope: ast.AST | None = None
    ) -> None:
        own = scope or self.scope_of(node)
        target = self.shared.get((own, name), own)
        if target is not own:
            kind, value = "changed", None
        self.bindings.setdefault((target, name), []).append(Binding(name, kind, target, node, value))

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind_target(target, node.value, node)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._bind_target(node.target, node.value, node)
        elif isinstance(node, ast.NamedExpr):
            scope = self.scope_of(node)
            while isinstance(scope, _COMPREHENSIONS):
                scope = self.scope_of(scope)
            self._add(node.target.id, "assign", node, node.value, scope)
        elif isinstance(node, ast.AugAssign):
            self._bind_names(node.target, "changed", node)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                self._bind_names(target, "changed", node)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self._bind_names(node.target, "loop", node)
        elif isinstance(node, _COMPREHENSIONS):
            for generator in node.generators:
                for name in _names(generator.target):
                    self._add(name, "loop", node, None, node)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if item.optional_vars is not None:
                    self._bind_names(item.optional_vars, "changed", node)
        else:
            self._bind_other(node)

    def _bind_other(self, node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._add(node.name, "def", node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for argument in arguments(node.args):
                self._add(argument.arg, "param", argument, None, node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                self._add((alias.asname or alias.name).split(".")[0], "import", node)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            self._add(node.name, "changed", node)

    def _bind_target(self, target: ast.expr, value: ast.expr, node: ast.AST) -> None:
        if isinstance(target, ast.Name):
            self._add(target.id, "assign", node, value)
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            starred = any(isinstance(e, ast.Starred) for e in (*target.elts, *value.elts))
            if not starred and len(target.elts) == len(value.elts):
                for one, its_value in zip(target.elts, value.elts):
                    self._bind_target(one, its_value, node)
            else:
                self._bind_names(target, "changed", node)
        else:
            self._bind_names(target, "changed", node)

    def _bind_names(self, target: ast.expr, kind: Kind, node: ast.AST) -> None:
        for name in _names(target):
            self._add(name, kind, node)


def position(node: ast.AST) -> tuple[int, int]:
    """Give where a node starts, for ordering."""
    return (getattr(node, "lineno", 0), getattr(node, "col_offset", 0))


def arguments(args: ast.arguments) -> list[ast.arg]:
    """List all parameters of a function."""
    stars = [a for a in (args.vararg, args.kwarg) if a is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *stars]


def _names(target: ast.expr) -> list[str]:
    return [n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, (ast.Store, ast.Del))]


def _binds(scope: ast.AST, name: str) -> bool:
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(a.arg == name for a in arguments(scope.args)):
        return True
    return any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for n in ast.walk(scope))


def _block(owner: ast.AST, statement: ast.AST) -> list[ast.stmt]:
    for field in ("body", "orelse", "finalbody", "handlers"):
        block = getattr(owner, field, None)
        if isinstance(block, list) and statement in block:
            return block
    for case in getattr(owner, "cases", []):
        if statement in case.body:
            return list(case.body)
    return [statement]  # type: ignore[list-item]


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and "__main__" in ast.dump(test) and "__name__" in ast.dump(test)
