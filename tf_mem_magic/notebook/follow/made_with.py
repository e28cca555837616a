"""What an earlier cell made with the batch size, by name or number, and what of it computes with that ever after."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from tf_mem_magic.notebook.follow.behind import Piece
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import SHAPES, called_name, is_batch_name, role

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_OF_DATA = ("__getitem__", "__iter__", "__next__")
"""Methods of classes that give batches: what they are made with is where a batch is set."""

_TELL = ("__init__", "get_config", "from_config", "__repr__", "__str__")
"""Methods that keep or tell a number, and compute nothing with it."""

_PLAIN = ("object", "ABC", "Callback", "")
"""Bases of classes that are no part of a model."""

_TRAINING = frozenset({"apply_gradients", "train_on_batch", "fit", "minimize"})
_DEEPEST = 6
"""Through so many functions a number is followed."""


@dataclass(frozen=True, eq=False)
class Given:
    """A number handed to what an earlier cell makes.

    Attributes
    ----------
    call : ast.Call
        What is made.
    expr : ast.expr
        The argument.
    name : str
        The name of the batch size that it reads, as written; empty for a number.
    number : int or None
        The number that stands there.
    """

    call: ast.Call
    expr: ast.expr
    name: str
    number: int | None


def given_in(cell: PythonCell) -> dict[ast.stmt, list[Given]]:
    """List for each top-level statement of a cell the batch sizes and the numbers that its calls are given."""
    found: dict[ast.stmt, list[Given]] = {}
    for statement in cell.tree.body:
        calls = (n for n in ast.walk(statement) if isinstance(n, ast.Call) and _makes_something(n))
        mine = [given for call in calls for given in _given(call)]
        if mine:
            found[statement] = mine
    return found


def _makes_something(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) or called_name(call) in ("Lambda", "partial")


def _given(call: ast.Call) -> Iterator[Given]:
    arguments = [*call.args, *(k.value for k in call.keywords)]
    parts = [v for a in arguments for v in (a.values if isinstance(a, ast.Dict) else [a])]
    for part in parts:
        if isinstance(part, ast.Constant):
            if type(part.value) is int and part.value > 1:
                yield Given(call, part, "", part.value)
        elif isinstance(part, (ast.Name, ast.Attribute, ast.Subscript)) and is_batch_name(_last(part)):
            yield Given(call, part, ast.unparse(part), None)


def _last(expr: ast.expr) -> str:
    if isinstance(expr, ast.Subscript):
        return str(expr.slice.value) if isinstance(expr.slice, ast.Constant) else ""
    return expr.attr if isinstance(expr, ast.Attribute) else expr.id if isinstance(expr, ast.Name) else ""


def computes_with(given: Given, made: Mapping[str, Piece]) -> str:
    """Name what computes with a number that it is given; empty where nothing is known to.

    ``made`` are the functions and classes of the notebook behind the model, by name.
    """
    call = given.call
    if called_name(call) == "Lambda":
        arguments = next((k.value for k in call.keywords if k.arg == "arguments"), None)
        inside = isinstance(arguments, ast.Dict) and given.expr in arguments.values
        return "Lambda" if inside and given.name else ""
    first = call
    if called_name(call) == "partial" and call.args:
        first = ast.Call(call.args[0], call.args[1:], call.keywords)
    piece = made.get(first.func.id) if isinstance(first.func, ast.Name) else None
    if piece is None:
        return ""
    parameter = parameter_of(piece.statement, first, given.expr)
    if parameter is None or (not given.name and not is_batch_name(parameter)):
        return ""
    as_function = first is not call  # it is called later, with this number
    return _name_of(piece) if _counts(piece, parameter, made, 0, later=as_function) else ""


def only_trains(piece: Piece, given: Given, maker: Piece | None) -> bool:
    """Tell whether a number was only handed to a step that trains, and gives nothing back: that is over.

    ``piece`` is the statement with the call, ``maker`` the function that it calls.
    """
    if maker is None or not isinstance(piece.cell.scopes.parents.get(given.call), ast.Expr):
        return False
    nodes = list(ast.walk(maker.statement)) if isinstance(maker.statement, _FUNCTIONS) else []
    called = {called_name(n) for n in nodes if isinstance(n, ast.Call)}
    return bool(called & _TRAINING) and "add" not in called and not any(isinstance(n, ast.Global) for n in nodes)


def _name_of(piece: Piece) -> str:
    return getattr(piece.statement, "name", "")


def parameter_of(defined: ast.stmt, call: ast.Call, expr: ast.expr) -> str | None:
    """Name the parameter by which a function or a class gets an argument."""
    function, skipped = defined, 0
    if isinstance(defined, ast.ClassDef):
        own = next((n for n in defined.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if own is None:
            return None
        function, skipped = own, 1
    if not isinstance(function, _FUNCTIONS):
        return None
    by_name = next((k.arg for k in call.keywords if k.value is expr), None)
    if by_name is not None:
        return by_name
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)][skipped:]
    at = next((i for i, arg in enumerate(call.args) if arg is expr), len(names))
    return names[at] if at < len(names) else None


def _counts(piece: Piece, parameter: str, made: Mapping[str, Piece], depth: int, later: bool = False) -> bool:
    """Tell whether a function or a class computes with a parameter where it sets no batch of data by it.

    What a function computes at once is there and done, but for a shape; what a function or a layer that it makes
    computes later goes on counting on the number. ``later``: the function itself is what is called later.
    """
    defined = piece.statement
    if isinstance(defined, ast.ClassDef):
        return _class_counts(piece, defined, parameter, made, depth)
    if not isinstance(defined, _FUNCTIONS):
        return False
    return _function_counts(piece, defined, parameter, made, depth, later=later)


def _function_counts(
    piece: Piece, function: _Function, parameter: str, made: Mapping[str, Piece], depth: int, later: bool
) -> bool:
    scopes = piece.cell.scopes
    for node in scopes.loads.get((function, parameter), []):
        its = role(scopes, node)
        if its in ("site", "free"):
            handed = its == "site" and depth < _DEEPEST and _handed_on(piece, node, made, depth)
            if handed:
                return True
            continue
        inner = later or next(n for n in scopes.up(node) if isinstance(n, (*_FUNCTIONS, ast.Lambda))) is not function
        if inner or _is_shape(scopes.parents.get(node), scopes.parents) or _handed_on(piece, node, made, depth):
            return True
    return False


def _is_shape(above: ast.AST | None, parents: Mapping[ast.AST, ast.AST]) -> bool:
    """Tell whether what stands in ``above`` is a shape, or a length in one."""
    for _ in range(3):
        if isinstance(above, ast.Call):
            return called_name(above) in SHAPES
        if isinstance(above, ast.keyword) and above.arg in ("batch_shape", "batch_input_shape"):
            return True
        above = parents.get(above) if above is not None else None
    return False


def _handed_on(piece: Piece, node: ast.expr, made: Mapping[str, Piece], depth: int) -> bool:
    """Tell whether a parameter is handed to a function or class of the notebook that computes with it."""
    above = piece.cell.scopes.parents.get(node)
    if isinstance(above, ast.keyword):
        above = piece.cell.scopes.parents.get(above)
    if not isinstance(above, ast.Call) or not isinstance(above.func, ast.Name) or depth >= _DEEPEST:
        return False
    target = made.get(above.func.id)
    if target is None:
        return False
    parameter = parameter_of(target.statement, above, node)
    return parameter is not None and _counts(target, parameter, made, depth + 1)


def _class_counts(piece: Piece, cls: ast.ClassDef, parameter: str, made: Mapping[str, Piece], depth: int) -> bool:
    methods = [n for n in cls.body if isinstance(n, _FUNCTIONS)]
    names = {m.name for m in methods}
    of_keras = bool(names & {"call", "__call__"}) or any(_last(base) not in _PLAIN for base in cls.bases)
    if not of_keras or names.intersection(_OF_DATA):
        return False
    init = next(m for m in methods if m.name == "__init__")
    if _function_counts(piece, init, parameter, made, depth, later=False):
        return True
    kept = set(_kept(init, parameter))
    working = [m for m in methods if m.name not in _TELL and not m.name.startswith("on_")]
    reads = (node for method in working for node in ast.walk(method) if _is_own(node, kept))
    return any(role(piece.cell.scopes, node) not in ("site", "free") for node in reads)


def _kept(init: _Function, parameter: str) -> Iterator[str]:
    """Yield the attributes that ``__init__`` sets by a parameter."""
    for node in ast.walk(init):
        if isinstance(node, ast.Assign) and any(
            isinstance(n, ast.Name) and n.id == parameter for n in ast.walk(node.value)
        ):
            yield from (target.attr for target in node.targets if isinstance(target, ast.Attribute))


def _is_own(node: ast.AST, kept: set[str]) -> TypeGuard[ast.Attribute]:
    own = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in kept
    return own and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
