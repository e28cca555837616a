"""The ``tf.data`` pipelines of a cell: where each starts, and its method calls in the order in which they are made."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.follow.calls import argument_exprs, defined
from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.scopes import Binding

_DEEPEST = 12
_NO_DATASET = frozenset("as_numpy_iterator cardinality get_single_element reduce save element_spec numpy".split())


@dataclass(frozen=True, slots=True)
class Chain:
    """A pipeline: what it starts from, its steps, and where it ends.

    ``name`` is the binding that the end of it gets where that is one plain assignment; ``uses`` are the places that
    surely read this binding, None where that is not sure.
    """

    root: ast.expr
    steps: tuple[ast.Call, ...]
    name: Binding | None = None
    uses: tuple[ast.Name, ...] | None = None


def method(step: ast.Call) -> str:
    """Give the name of the method that a step calls."""
    return step.func.attr if isinstance(step.func, ast.Attribute) else ""


class Chains:
    """Finds the pipelines of one cell; what lies in f-strings is left out, having no sure position."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.scopes = reader, reader.scopes
        self.names = KerasNames(reader.cell, reader.facts.earlier_cells)
        texts = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.JoinedStr)]
        self._hidden = {n for text in texts for n in ast.walk(text)}

    def find(self) -> list[Chain]:
        """List the pipelines, each step in one of them, in the order of the text."""
        nodes = [n for n in ast.walk(self.reader.cell.tree) if isinstance(n, (ast.Call, ast.Name))]
        roots = [n for n in nodes if n not in self._hidden and self._starts(n)]
        found, taken = [], set()
        for root in sorted(roots, key=lambda n: (n.lineno, n.col_offset, -(n.end_col_offset or 0))):
            chain = self._follow(root) if root not in taken else None
            if chain is not None:
                taken |= {chain.root, *chain.steps, *(step.func.value for step in chain.steps)}  # type: ignore[attr-defined]
                found.append(chain)
        return found

    def is_source(self, node: ast.expr, name: str = "") -> bool:
        """Whether ``node`` calls one of TensorFlow's or Keras's makers of datasets; of this ``name``, where given."""
        origin = self.names.origin(node.func) if isinstance(node, ast.Call) else ""
        made = origin.startswith("tensorflow.data.") or origin.endswith("_dataset_from_directory")
        return made and origin.endswith(name)

    def _starts(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return isinstance(node.ctx, ast.Load) and self._is_step(node) and self._is_dataset(node, 0)
        return self.is_source(node) or (self._is_step(node) and not self._receiver(node) and self._is_dataset(node, 0))

    def _receiver(self, node: ast.expr) -> ast.expr | None:
        return node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None

    def _is_step(self, node: ast.expr) -> bool:
        """Whether a method of ``node`` is called."""
        above = self.scopes.parents.get(node)
        call = self.scopes.parents.get(above) if isinstance(above, ast.Attribute) else None
        return isinstance(call, ast.Call) and call.func is above

    def _is_dataset(self, node: ast.expr, depth: int) -> bool:
        if depth > _DEEPEST:
            return False
        if isinstance(node, ast.Name):
            return self._named(node, depth)
        if not isinstance(node, ast.Call):
            return False
        if self.is_source(node):
            return True
        if isinstance(node.func, ast.Attribute):
            return node.func.attr not in _NO_DATASET and self._is_dataset(node.func.value, depth + 1)
        function = defined(self.reader, node.func)
        if not isinstance(function, ast.FunctionDef):
            return False
        returns = [n for n in ast.walk(function) if isinstance(n, ast.Return) and self.scopes.scope_of(n) is function]
        values = [n.value for n in returns]
        return bool(values) and all(v is not None and self._is_dataset(v, depth + 1) for v in values)

    def _named(self, name: ast.Name, depth: int) -> bool:
        found = self.reader.bindings(name)
        if isinstance(self.scopes.home(name), ast.Module):
            known = self.reader.facts.dataset(name.id)
            if known is not None:
                return known.kind == "tf.data"
        chosen = self.scopes.reaching(name, found)
        if chosen is None:
            return False
        if chosen.kind == "param":
            passed = argument_exprs(self.reader, chosen)
            return not isinstance(passed, Unknown) and all(self._is_dataset(one, depth + 1) for one in passed)
        return chosen.value is not None and self._is_dataset(chosen.value, depth + 1)

    def _follow(self, root: ast.expr) -> Chain:
        steps: list[ast.Call] = []
        at: ast.expr = root
        while True:
            while self._is_step(at):
                at = self.scopes.parents[self.scopes.parents[at]]  # type: ignore[assignment]
                assert isinstance(at, ast.Call)
                steps.append(at)
            name = self._bound(at)
            uses = self._uses(name) if name is not None else None
            if uses is None or len(uses) != 1 or not self._is_step(uses[0]) or not self._beside(name, uses[0]):
                return Chain(root, tuple(steps), name, uses)
            at = uses[0]

    def _bound(self, value: ast.expr) -> Binding | None:
        statement = self.scopes.parents.get(value)
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            return None
        target = statement.targets[0]
        if not isinstance(target, ast.Name):
            return None
        of = self.scopes.of(self.scopes.lookup(target.id, self.scopes.scope_of(statement)), target.id)
        return next((b for b in of if b.node is statement), None)

    def _uses(self, binding: Binding) -> tuple[ast.Name, ...] | None:
        """List the reads of a binding; None where one read may or may not be of it."""
        every = self.scopes.of(binding.scope, binding.name)
        found = []
        for load in self.scopes.loads.get((binding.scope, binding.name), []):
            chosen = self.scopes.reaching(load, every)
            if chosen is None:
                return None
            if chosen is binding:
                found.append(load)
        return tuple(found)

    def _beside(self, binding: Binding | None, use: ast.Name) -> bool:
        """Whether the use stands in the same block as the binding: both run equally often."""
        statement = self.scopes.statement(use)
        return binding is not None and self.scopes.parents.get(statement) is self.scopes.parents.get(binding.node)
