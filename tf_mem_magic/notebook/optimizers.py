"""Where a cell makes the optimizer that it trains with."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.uses import called_name

BY_STRING = {
    name.lower(): name
    for name in (
        *("SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor"),
        *("Nadam", "Ftrl", "Lion", "Lamb", "Muon"),
    )
}
"""Keras's own optimizers by the string that ``compile`` takes for each."""

KEPT = {
    "Adam": 2,
    "AdamW": 2,
    "Nadam": 2,
    "Adamax": 2,
    "Lamb": 2,
    "Adadelta": 2,
    "Ftrl": 2,
    "RMSprop": 1,
    "Adagrad": 1,
    "Lion": 1,
    "Adafactor": 1,
}
"""How many values Keras's optimizers keep for each weight, with their default arguments; those that keep none are not
here."""

_ORIGIN = "keras.optimizers."
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class OptimizerMade:
    """The expression that makes an optimizer: a string such as ``"adam"``, or a call of Keras's own class ``name``.

    ``module`` is how the cell reaches ``keras.optimizers`` there; None where it does not. ``plain_rate``: its learning
    rate is surely a number, not a schedule.
    """

    node: ast.expr
    name: str
    module: str | None
    plain_rate: bool

    @property
    def call(self) -> ast.Call | None:
        """The constructor's call; None for a string."""
        return self.node if isinstance(self.node, ast.Call) else None


def compiled_with(reader: Reader, names: KerasNames, model: str, where: str = "in this cell") -> OptimizerMade | str:
    """Find the optimizer of the only ``model.compile(...)`` before what failed; a text says why it was not found."""
    calls = compiled_before(reader, model)
    if len(calls) != 1:
        return f"`{model}` is not compiled {where}" if not calls else f"`{model}` is compiled more than once"
    call = calls[0]
    given = optimizer_given(call)
    if given is None or any(k.arg is None for k in call.keywords):
        return "`compile` does not plainly say its optimizer"
    return made_by(reader, names, given, where)


def optimizer_given(call: ast.Call) -> ast.expr | None:
    """Give the optimizer that a call of ``compile`` names."""
    return next((k.value for k in call.keywords if k.arg == "optimizer"), call.args[0] if call.args else None)


def compiled_before(reader: Reader, model: str) -> list[ast.Call]:
    """List the calls of ``model.compile`` that may have run before the lines that failed; without such lines all."""
    return [call for call in compile_calls(reader.cell.tree, model) if not _is_behind(reader, call)]


def _is_behind(reader: Reader, call: ast.Call) -> bool:
    """Tell whether a call stands behind what failed, where no loop leads back to it."""
    scope = reader.scopes.scope_of(call)
    failed = [
        node
        for node in reader.nodes
        if isinstance(node, ast.stmt) and not isinstance(node, _DEFINED) and reader.covers(node)
        if reader.scopes.scope_of(node) is scope
    ]
    if not failed:
        return False
    last = max(failed, key=position)
    around = {node for node in reader.scopes.up(last) if isinstance(node, _LOOPS)}
    return position(call) > (last.end_lineno or 0, last.end_col_offset or 0) and around.isdisjoint(
        reader.scopes.up(call)
    )


def compile_calls(tree: ast.Module, model: str) -> list[ast.Call]:
    """List the calls of ``model.compile``."""
    calls = [n for n in walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return [c for c in calls if called_name(c) == "compile" and ast.unparse(c.func.value) == model]  # type: ignore[attr-defined]


def made_by(reader: Reader, names: KerasNames, given: ast.expr, where: str = "in this cell") -> OptimizerMade | str:
    """Follow an expression to the string or the call of a Keras class that makes the optimizer."""
    found = given
    if isinstance(given, ast.Name):
        chosen = reader.scopes.reaching(given, reader.bindings(given))
        if chosen is None or chosen.value is None:
            return f"`{given.id}` is not made {where} in a way that can be followed"
        found = chosen.value
    module = _module(reader, names, found)
    if isinstance(found, ast.Constant) and isinstance(found.value, str) and found.value.lower() in BY_STRING:
        return OptimizerMade(found, BY_STRING[found.value.lower()], module, plain_rate=True)
    origin = names.origin(found.func) if isinstance(found, ast.Call) else ""
    name = origin[len(_ORIGIN) :] if origin.startswith(_ORIGIN) else ""
    if not isinstance(found, ast.Call) or name not in BY_STRING.values():
        return _none_known(reader, names, found)
    if any(isinstance(a, ast.Starred) for a in found.args) or any(k.arg is None for k in found.keywords):
        return "the optimizer's arguments cannot be followed"
    rate = learning_rate(found)
    return OptimizerMade(found, name, module, rate is None or evaluate(reader, rate) is not None)


def _none_known(reader: Reader, names: KerasNames, found: ast.expr) -> str:
    """Say that an optimizer is not Keras's own, or, where a name may come from anywhere, that this is not known."""
    written = found.func if isinstance(found, ast.Call) else found
    root = written
    while isinstance(root, ast.Attribute):
        root = root.value
    name = root.id if isinstance(root, ast.Name) else ""
    elsewhere = not names.origin(written).startswith(_ORIGIN) and bool(name) and isinstance(found, ast.Call)
    own = reader.notebook.function(name) if elsewhere else None
    if isinstance(found, ast.Constant) or (own is not None and isinstance(own.node, ast.ClassDef)):
        return "the optimizer is none of Keras's own"
    if elsewhere and names.meaning(name):
        return "the optimizer is none of Keras's own"
    return f"which optimizer `{ast.unparse(found)}` is cannot be told"


def learning_rate(call: ast.Call) -> ast.expr | None:
    """Give the learning rate that a constructor is called with."""
    given = next((k.value for k in call.keywords if k.arg == "learning_rate"), None)
    return given if given is not None else call.args[0] if call.args else None


def _module(reader: Reader, names: KerasNames, node: ast.expr) -> str | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func.value)
    handle = names.handle(reader.scopes.top_statement(node))
    return None if handle is None else f"{handle}.optimizers"
