"""Whether the loss of a loop of one's own is a mean over the samples, or made of such means in fixed shares."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from tf_mem_magic.notebook.batch.means.summands import makes_a_mean
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.uses import called_name

_MEANS = ("reduce_mean", "mean")
_DEEPEST = 8
_COUNTS = re.compile(r"(?i)batch|^bs$|^mb$")
"""Names that may hold a number of samples, whatever they hold."""


@dataclass(frozen=True)
class Means:
    """Reads the loss of a loop.

    A sum of means, each times a number, is of equal parts of a batch, averaged, what it is of the whole. What bends a
    mean on the way is looked at elsewhere.

    Attributes
    ----------
    reader : Reader
        Follows the values of the cell where the loss stands.
    names : KerasNames
        What the cell's names mean.
    batch : int
        The samples of a whole batch: a number that may be it is no fixed share.
    """

    reader: Reader
    names: KerasNames
    batch: int

    def gives(self, loss: ast.expr | None, depth: int = 0) -> bool:
        """Tell whether an expression is certain to be such a loss."""
        if depth > _DEEPEST or loss is None:
            return False
        if isinstance(loss, ast.Name):
            return self._named(loss, depth + 1)
        if isinstance(loss, ast.UnaryOp) and isinstance(loss.op, (ast.USub, ast.UAdd)):
            return self.gives(loss.operand, depth + 1)
        if isinstance(loss, ast.BinOp):
            return self._computed(loss, depth + 1)
        return isinstance(loss, ast.Call) and self._called(loss, depth + 1)

    def _named(self, name: ast.Name, depth: int) -> bool:
        chosen = self.reader.reaching(name)
        if chosen is not None and chosen.kind == "assign":
            return self.gives(chosen.value, depth)
        found = sorted(self.reader.bindings(name), key=lambda b: position(b.node))
        if not found or found[0].value is None or found[0].kind != "assign":
            return False
        adds = [b.node for b in found[1:]]
        more = [n.value for n in adds if isinstance(n, ast.AugAssign) and isinstance(n.op, (ast.Add, ast.Sub))]
        return len(more) == len(adds) and all(
            self.gives(value, depth) or _of_weights(value) for value in (found[0].value, *more)
        )

    def _computed(self, loss: ast.BinOp, depth: int) -> bool:
        left, right = loss.left, loss.right
        if isinstance(loss.op, (ast.Add, ast.Sub)):
            sides = [self.gives(side, depth) for side in (left, right)]
            return any(sides) and all(
                known or _of_weights(side) or self._is_share(side) for known, side in zip(sides, (left, right))
            )
        if isinstance(loss.op, ast.Mult):
            return any(self.gives(a, depth) and self._is_share(b) for a, b in ((left, right), (right, left)))
        return isinstance(loss.op, ast.Div) and self.gives(left, depth) and self._is_share(right)

    def _called(self, loss: ast.Call, depth: int) -> bool:
        name = called_name(loss)
        if name in _MEANS:
            return len(loss.args) == 1 and not loss.keywords
        if name in ("add", "subtract") and self._is_tensorflows(loss) and len(loss.args) == 2:
            return all(self.gives(one, depth) for one in loss.args)
        if name in ("add_n", "sum") and len(loss.args) == 1 and isinstance(loss.args[0], (ast.List, ast.Tuple)):
            return bool(loss.args[0].elts) and all(self.gives(one, depth) for one in loss.args[0].elts)
        scopes = self.reader.scopes
        if isinstance(loss.func, ast.Name) and not scopes.of(scopes.scope_of(loss), loss.func.id):
            function = self.reader.notebook.function(loss.func.id)
            if function is not None and isinstance(function.node, ast.FunctionDef):
                inside = self.reader if function.cell is self.reader.cell else Reader(function.cell, self.reader.facts)
                return Means(inside, self.names, self.batch)._returned(function.node, depth)
        return self._is_keras_loss(loss.func)

    def _is_tensorflows(self, call: ast.Call) -> bool:
        return isinstance(call.func, ast.Attribute) and self.names.origin(call.func).startswith("tensorflow.")

    def _returned(self, function: ast.FunctionDef, depth: int) -> bool:
        scopes = self.reader.scopes
        given = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and scopes.scope_of(n) is function]
        return bool(given) and all(self.gives(one, depth) for one in given)

    def _is_keras_loss(self, func: ast.expr) -> bool:
        """Whether ``func`` is a loss object that Keras made with its usual reduction, here or in an earlier cell."""
        notebook = self.reader.notebook
        if not isinstance(func, ast.Name):
            return makes_a_mean(notebook, func)
        found = self.reader.bindings(func)
        made = found[0].value if len(found) == 1 else earlier_value(self.names, func.id) if not found else None
        return makes_a_mean(notebook, made)

    def _is_share(self, expr: ast.expr, depth: int = 0) -> bool:
        """Tell whether an expression is a number that has nothing to do with how many samples a batch has."""
        if depth > _DEEPEST or evaluate(self.reader, expr) == self.batch:
            return False
        if isinstance(expr, ast.Constant):
            return isinstance(expr.value, (int, float)) and expr.value != self.batch
        if isinstance(expr, ast.UnaryOp):
            return isinstance(expr.op, (ast.USub, ast.UAdd)) and self._is_share(expr.operand, depth + 1)
        if isinstance(expr, ast.BinOp):
            return self._is_share(expr.left, depth + 1) and self._is_share(expr.right, depth + 1)
        return isinstance(expr, ast.Name) and self._holds_a_share(expr, depth + 1)

    def _holds_a_share(self, name: ast.Name, depth: int) -> bool:
        if _COUNTS.search(name.id):
            return False
        found = self.reader.bindings(name)
        if not found:
            value = earlier_value(self.names, name.id)
            return isinstance(value, ast.Constant) and self._is_share(value, depth)
        if any(one.kind == "param" for one in found):
            return evaluate(self.reader, name) is not None
        return all(one.value is not None and self._is_share(one.value, depth) for one in found)


def _of_weights(term: ast.expr) -> bool:
    """Whether a term of the loss is the model's own losses, which weights give: the same in each part."""
    if isinstance(term, ast.IfExp) and isinstance(term.orelse, ast.Constant):
        return _of_weights(term.body)
    if isinstance(term, ast.BinOp) and isinstance(term.op, ast.Mult):
        return any(
            isinstance(a, ast.Constant) and _of_weights(b)
            for a, b in ((term.left, term.right), (term.right, term.left))
        )
    return isinstance(term, ast.Call) and len(term.args) == 1 and ast.unparse(term.args[0]).endswith(".losses")


def earlier_value(names: KerasNames, name: str) -> ast.expr | None:
    """Give what the last earlier cell that binds ``name`` at its top level plainly assigns to it."""
    for tree in reversed(names.earlier):
        stored = [
            n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        ]
        if not stored:
            continue
        plain = [s for s in tree.body if isinstance(s, ast.Assign) and s.targets == stored]
        return plain[0].value if plain else None
    return None
