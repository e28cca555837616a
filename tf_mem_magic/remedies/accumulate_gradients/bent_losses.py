"""Losses that compute with a mean over the batch: of its parts they do not average to what they are of the whole."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.follow.behind import behind, model_names
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.scopes import Binding, arguments, position
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.edits import argument
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.accumulate_gradients.mixing import mixed, selects
from tf_mem_magic.remedies.accumulate_gradients.sums import OF_WEIGHTS, Code, code_of, parts_of_weights, shortened

_DEEPEST = 5
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ASSIGNS = (ast.Assign, ast.AnnAssign, ast.AugAssign)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LAYERS = re.compile(r"\b(?:layers|applications)\.|\b(?:Input|Model|Sequential|Layer|Module|Dense|Conv\dD)$")
_OVER_ALL = frozenset(
    "RootMeanSquaredError Precision Recall AUC F1Score FBetaScore R2Score PearsonCorrelation MeanIoU IoU BinaryIoU "
    "OneHotIoU OneHotMeanIoU".split()
)
"""Metrics of Keras that are no mean over samples: some notebooks train with them."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What is known of the losses of a training.

    Attributes
    ----------
    bent : str
        The loss that computes with a mean or a sum over the samples of a batch, as it is written; empty: none does.
    is_masked : bool
        One is divided by how much a mask lets through, so that its parts weigh a little differently.
    mixed : str
        An expression in which the samples of a batch meet, or may; empty: none is seen.
    added : str
        A sum over the samples of a batch that nothing divides by their number, as it is written; empty: none is seen.
    has_others : bool
        Terms that are means, or of weights, stand beside it.
    """

    bent: str = ""
    is_masked: bool = False
    mixed: str = ""
    added: str = ""
    has_others: bool = False


def read_losses(reader: Reader, call: ast.Call | None, steps: bool = False) -> Loss:
    """Tell of the losses that train what ``call`` trains; None: what the loop trains that failed.

    With ``steps`` of those in a model's own training step. A root of a mean, or a quotient of two sums (F1, R²), of
    the parts of a batch does not average to that of the whole.
    """
    found = _Losses(reader.notebook)
    own = [one for one in reader.calls_of("compile") if call is not None and _is_own(reader, one, call)]
    for cell, node in _places(reader, call):
        for one in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            _read(found, cell, one, own, loops=call is None or steps)
    return Loss(found.bent, found.is_masked, found.mixed, found.added, found.has_others)


def read_loss(reader: Reader, loss: ast.expr, samples: frozenset[str]) -> Loss:
    """Tell of the loss that an expression under a tape computes of the names that hold samples."""
    found = _Losses(reader.notebook)
    found.computed(reader.cell, loss, samples)
    return Loss(found.bent, found.is_masked, found.mixed, found.added, found.has_others)


def _read(found: _Losses, cell: PythonCell, call: ast.Call, own: list[ast.Call], loops: bool) -> None:
    """Read the loss of a call, if it has one."""
    name = called_name(call)
    if name == "compile" and (not own or call in own):
        for loss in _arguments(call, "loss", 1):
            found.function(cell, loss)
    elif name == "add_loss":
        scope = cell.scopes.scope_of(call)
        taken = arguments(scope.args) if isinstance(scope, _FUNCTIONS) else []
        for loss in _arguments(call, "losses", 0):
            found.computed(cell, loss, frozenset(a.arg for a in taken) - {"self"})
            found.has_others = True
    elif loops and isinstance(call.func, ast.Attribute) and name in ("gradient", "minimize"):
        for loss in _arguments(call, "target" if name == "gradient" else "loss", 0):
            found.computed(cell, loss, _taped(found.notebook, cell, loss))


def _is_own(reader: Reader, compiled: ast.Call, call: ast.Call) -> bool:
    """Tell whether a ``compile`` surely stands before the training of the same model, in the same scope."""
    if not isinstance(compiled.func, ast.Attribute) or not isinstance(call.func, ast.Attribute):
        return False
    same = reader.written(compiled.func.value) == reader.written(call.func.value)
    here = reader.scopes.scope_of(compiled) is reader.scopes.scope_of(call)
    return same and here and position(compiled) < position(call)


def _arguments(call: ast.Call, name: str, at: int) -> list[ast.expr]:
    """List the argument that is the loss; all of them where stars may hide it."""
    try:
        found = argument(call, name, at)
    except RefusedError:
        return [*(a for a in call.args[at:] if not isinstance(a, ast.Starred)), *(k.value for k in call.keywords)]
    return [] if found is None else [found]


def _places(reader: Reader, call: ast.Call | None) -> list[tuple[PythonCell, ast.AST]]:
    """List the statements that may decide how the failing model trains; where none shows what made it, all cells."""
    names = model_names(reader, call)
    made = behind(reader, names)
    if not any(names & piece.defines for piece in made):
        found = reader.notebook.cells_with("compile", "add_loss", *(() if call is not None else ("gradient",)))
        return [(cell, cell.tree) for cell in found]
    if call is None:
        return [(reader.cell, reader.cell.tree), *((p.cell, p.statement) for p in made if p.cell is not reader.cell)]
    return [(piece.cell, piece.statement) for piece in made]


class _Losses:
    """Reads losses through the names, functions and classes of a notebook."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.bent, self.is_masked, self.mixed = "", False, ""
        self.added, self.has_others = "", False
        self._seen: set[ast.AST] = set()

    def computed(self, cell: PythonCell, expr: ast.expr, given: frozenset[str]) -> None:
        """Read an expression that is computed as a loss, and what its scope computes it of."""
        code = Code(_slice(cell, expr), self._gives_a_mean, given)
        self._judge(code, "", adds=bool(given))
        self._mixes(code)
        for called in (n.func for n in code.nodes if isinstance(n, ast.Call)):
            self.function(cell, called)

    def function(self, cell: PythonCell, expr: ast.expr, depth: int = 0) -> None:
        """Read an expression that gives a function or an object that computes a loss, or several."""
        if depth > _DEEPEST or expr in self._seen:
            return
        self._seen.add(expr)
        for node in ast.walk(expr):
            if isinstance(node, ast.Lambda):
                code = code_of(node, self._gives_a_mean)
                self._judge(code, "")
                self._mixes(code)
                self._called(code, depth)
            elif isinstance(node, (ast.Name, ast.Attribute)) and _last(node) in _OVER_ALL:
                self.bent = self.bent or _last(node)
        arguments_of = {n for call in ast.walk(expr) if isinstance(call, ast.Call) for n in _given_to(call)}
        of_weights = parts_of_weights(ast.walk(expr))
        for node in ast.walk(expr):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node not in of_weights:
                self._name(cell, node, node in arguments_of, depth)

    def _name(self, cell: PythonCell, name: ast.Name, is_argument: bool, depth: int) -> None:
        """Read what a name holds; of what a function is made by, only what is a function itself."""
        if OF_WEIGHTS.search(name.id):
            return
        for home, binding in _bindings(self.notebook, cell, name):
            if isinstance(binding.node, _DEFINITIONS):
                self._definition(home, binding.node, depth)
            elif binding.kind == "param" and isinstance(binding.scope, _FUNCTIONS):
                for where, given in _handed(self.notebook, home, binding.scope, name.id):
                    self.function(where, given, depth + 1)
            elif binding.value is not None and (not is_argument or isinstance(binding.value, (ast.Name, ast.Lambda))):
                self.function(home, binding.value, depth + 1)

    def _definition(self, cell: PythonCell, node: ast.AST, depth: int) -> None:
        if node in self._seen or depth > _DEEPEST:
            return
        self._seen.add(node)
        code = code_of(node, self._gives_a_mean)
        self._judge(code, getattr(node, "name", ""))
        if not _makes_layers(code):
            self._mixes(code)
        self._called(code, depth)
        given = [n.value for n in code.nodes if isinstance(n, ast.Return) and n.value is not None]
        kept = node.body if isinstance(node, ast.ClassDef) else []
        for one in (*given, *(s.value for s in kept if isinstance(s, ast.Assign))):
            self._chosen(cell, one, depth)

    def _chosen(self, cell: PythonCell, given: ast.expr, depth: int) -> None:
        """Read what a function gives that only picks a loss: a name of the notebook, or an entry of what that holds."""
        for name in (n for n in ast.walk(given) if isinstance(n, ast.Name)):
            if isinstance(cell.scopes.home(name), ast.Module):
                for home, binding in _bindings(self.notebook, cell, name):
                    if isinstance(binding.node, _DEFINITIONS):
                        self._definition(home, binding.node, depth + 1)
                    elif isinstance(binding.value, (ast.Dict, ast.List, ast.Tuple, ast.Lambda, ast.Name)):
                        self.function(home, binding.value, depth + 1)

    def _called(self, code: Code, depth: int) -> None:
        for name in sorted(code.called):
            function = self.notebook.function(name)
            if function is not None:
                self._definition(function.cell, function.node, depth + 1)

    def _judge(self, code: Code, name: str, adds: bool = True) -> None:
        added = code.added if adds else None
        if added is not None and not self.added:
            self.added, self.has_others = shortened(added), code.has_means
        bent = code.bent or added
        if bent is not None and not self.bent:
            self.bent = name or shortened(bent)
        self.is_masked = self.is_masked or code.is_masked

    def _mixes(self, code: Code) -> None:
        found = None if self.mixed else mixed(code)
        self.mixed = self.mixed or ("" if found is None else shortened(found))
        self.is_masked = self.is_masked or selects(code)

    def _gives_a_mean(self, name: str) -> bool:
        return _returns_a_mean(self.notebook, name, frozenset())


def _returns_a_mean(notebook: Notebook, name: str, within: frozenset[str]) -> bool:
    function = notebook.function(name) if name not in within and len(within) < _DEEPEST else None
    if function is None or isinstance(function.node, ast.ClassDef):
        return False
    return code_of(function.node, lambda other: _returns_a_mean(notebook, other, within | {name})).returns_a_mean


def _slice(cell: PythonCell, expr: ast.expr) -> tuple[ast.AST, ...]:
    """List the nodes of an expression, and of what its scope computes the names in it of; under a tape only there."""
    scopes = cell.scopes
    scope = scopes.scope_of(expr)
    taped = {node for block in _tapes(scope) for node in ast.walk(block)}
    nodes, seen = list(ast.walk(expr)), set[str]()
    for node in nodes:
        if not isinstance(node, ast.Name) or node.id in seen:
            continue
        seen.add(node.id)
        for binding in scopes.of(scope, node.id):
            statement = scopes.statement(binding.node)
            if isinstance(statement, _ASSIGNS) and (not taped or statement in taped):
                nodes += ast.walk(statement)
    return tuple(dict.fromkeys(nodes))


def _taped(notebook: Notebook, cell: PythonCell, loss: ast.expr) -> frozenset[str]:
    """Name what holds the samples where a loop takes gradients: what its function is given, or each turn draws.

    A number that it is given is none of them.
    """
    scope = cell.scopes.scope_of(loss)
    given = set[str]()
    if isinstance(scope, _FUNCTIONS):
        handed = {a.arg: [one for _, one in _handed(notebook, cell, scope, a.arg)] for a in arguments(scope.args)}
        given = {name for name, values in handed.items() if not values or not all(map(_is_a_number, values))}
    for loop in cell.scopes.up(loss):
        if isinstance(loop, (ast.For, ast.AsyncFor)):
            given |= {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
    called = {n.func.id for n in ast.walk(scope) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return frozenset(given - called - {"self"})


def _is_a_number(value: ast.expr) -> bool:
    inner = value.operand if isinstance(value, ast.UnaryOp) else value
    return isinstance(inner, ast.Constant) and not isinstance(inner.value, str)


def _makes_layers(code: Code) -> bool:
    """Tell whether code is that of a model or a layer, and no loss: its products and parts are within a sample."""
    for node in code.nodes:
        if isinstance(node, ast.ClassDef) and any(_LAYERS.search(ast.unparse(base)) for base in node.bases):
            return True
        if isinstance(node, ast.Call) and _LAYERS.search(ast.unparse(node.func)):
            return True
    return False


def _tapes(scope: ast.AST) -> Iterator[ast.With]:
    for node in ast.walk(scope):
        if isinstance(node, ast.With) and any("GradientTape" in ast.unparse(i.context_expr) for i in node.items):
            yield node


def _bindings(notebook: Notebook, cell: PythonCell, name: ast.Name) -> list[tuple[PythonCell, Binding]]:
    """List what may bind a name as a cell's code reads it: that cell, else this one, else the last one before."""
    found = cell.scopes.of(cell.scopes.home(name), name.id)
    if found:
        return [(cell, binding) for binding in found]
    for other in (notebook.cell, *notebook.before.setting(name.id)):
        found = other.scopes.of(other.tree, name.id)
        if found:
            return [(other, binding) for binding in found]
    return []


def _handed(
    notebook: Notebook, cell: PythonCell, function: ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[PythonCell, ast.expr]]:
    """Yield what a parameter is given: its default, and by the calls of its function."""
    given = [*function.args.posonlyargs, *function.args.args]
    for one, default in zip(reversed(given), reversed(function.args.defaults)):
        if one.arg == name:
            yield cell, default
    yield from ((cell, d) for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults) if d and a.arg == name)
    at = next((i for i, one in enumerate(given) if one.arg == name), None)
    for other in notebook.cells_with(function.name):
        for call in other.calls:
            if called_name(call) == function.name:
                skipped = 1 if given and given[0].arg == "self" and isinstance(call.func, ast.Attribute) else 0
                place = None if at is None else at - skipped
                yield from ((other, k.value) for k in call.keywords if k.arg == name)
                if place is not None and 0 <= place < len(call.args):
                    yield other, call.args[place]


def _given_to(call: ast.Call) -> Iterator[ast.AST]:
    for part in (*call.args, *(k.value for k in call.keywords)):
        yield from ast.walk(part)


def _last(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr
