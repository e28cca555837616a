"""Calls of the cell's own functions and classes: which argument or default reaches a parameter."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.follow.entries import dict_value, double_star
from tf_mem_magic.notebook.follow.reader import Function, Reader, Unknown
from tf_mem_magic.notebook.scopes import Binding


def argument_exprs(reader: Reader, binding: Binding) -> list[ast.expr] | Unknown:
    """List the expressions that reach a parameter: arguments of the calls that matter, or the default."""
    function = binding.scope
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return Unknown(f"`{binding.name}` is a parameter of a lambda")
    calls = _calls(reader, function)
    if isinstance(calls, Unknown):
        return calls
    found: list[ast.expr] = []
    for call in calls:
        one = bind(call, function, binding.name, skip=_is_method(reader, function))
        if one is None:
            stars = double_star(reader, call)
            one = dict_value(stars, binding.name) if isinstance(stars, ast.expr) else None
        if one is None:
            return Unknown(f"`{binding.name}` is not given in {reader.cell.told(call)} in a way that can be followed")
        if not _hands_itself_on(reader, call, function, one, binding.name):
            found.append(one)
    return found or Unknown(f"`{function.name}` is called only by itself")


def _hands_itself_on(reader: Reader, call: ast.Call, function: Function, given: ast.expr, name: str) -> bool:
    """Tell whether a function calls itself with the parameter as it got it: the first call decides."""
    return isinstance(given, ast.Name) and given.id == name and function in set(reader.scopes.up(call))


def bind(call: ast.Call, function: Function, name: str, skip: bool) -> ast.expr | None:
    """Return the expression that ``call`` hands to the parameter ``name``; None where stars hide it."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    positional = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    if name in positional:
        index = positional.index(name) - int(skip)
        if any(isinstance(a, ast.Starred) for a in call.args[: index + 1]):
            return None
        if 0 <= index < len(call.args):
            return call.args[index]
    if any(keyword.arg is None for keyword in call.keywords):
        return None
    return default_of(function, name)


def default_of(function: Function, name: str) -> ast.expr | None:
    """Return a parameter's default."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    pairs = list(zip(positional[len(positional) - len(args.defaults) :], args.defaults))
    pairs += [(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults) if d is not None]
    return next((default for argument, default in pairs if argument.arg == name), None)


def defined(reader: Reader, name: ast.expr) -> Function | ast.ClassDef | None:
    """Return the function or class of the cell that ``name`` surely means."""
    if not isinstance(name, ast.Name):
        return None
    found = reader.bindings(name)
    if len(found) != 1 or found[0].kind != "def":
        return None
    node = found[0].node
    return node if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else None


def constructor(cls: ast.ClassDef) -> Function | None:
    """Return the class's own ``__init__``."""
    return next((n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)


def _is_method(reader: Reader, function: ast.AST) -> bool:
    if not isinstance(reader.scopes.parents.get(function), ast.ClassDef):
        return False
    decorators = {reader.written(d) for d in getattr(function, "decorator_list", [])}
    return "staticmethod" not in decorators


def _calls(reader: Reader, function: Function) -> list[ast.Call] | Unknown:
    """List the calls of ``function`` in the cell; where the failing lines tell which one, only that."""
    entered = reader.entered(function)
    if entered is not None:
        return [entered]
    owner = reader.scopes.parents.get(function)
    target = owner if isinstance(owner, ast.ClassDef) and function.name == "__init__" else function
    if isinstance(owner, ast.ClassDef) and target is function:
        calls = [n for n in reader.calls_of(function.name) if isinstance(n.func, ast.Attribute)]
    else:
        assert isinstance(target, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        home = reader.scopes.lookup(target.name, reader.scopes.scope_of(target))
        if len(reader.scopes.of(home, target.name)) != 1:
            return Unknown(f"`{target.name}` is defined more than once")
        calls = []
        for load in reader.scopes.loads.get((home, target.name), []):
            parent = reader.scopes.parents[load]
            if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id == "super":
                continue
            if not (isinstance(parent, ast.Call) and parent.func is load):
                return Unknown(f"`{target.name}` is also used without being called {reader.cell.aside(load)}")
            calls.append(parent)
    within = [c for c in calls if reader.covers(c)]
    if not calls:
        return Unknown(f"`{target.name}` is not called in this cell")
    return within or calls


def one_of_several(reader: Reader, name: ast.Name, made: ast.Assign) -> tuple[Function, ast.expr] | None:
    """Find what a function of the cell gives for a name among several: ``train, test = load(64)``."""
    function = defined(reader, made.value.func) if isinstance(made.value, ast.Call) else None
    targets = made.targets[0] if len(made.targets) == 1 else None
    if not isinstance(function, ast.FunctionDef) or not isinstance(targets, (ast.Tuple, ast.List)):
        return None
    inside = [n for n in ast.walk(function) if reader.scopes.scope_of(n) is function]
    returns = [n.value for n in inside if isinstance(n, ast.Return)]
    given = returns[0] if len(returns) == 1 else None
    places = [n for n, one in enumerate(targets.elts) if isinstance(one, ast.Name) and one.id == name.id]
    if not isinstance(given, (ast.Tuple, ast.List)) or len(given.elts) != len(targets.elts) or len(places) != 1:
        return None
    its = given.elts[places[0]]
    starred = any(isinstance(one, ast.Starred) for one in (*given.elts, *targets.elts))
    return None if starred or isinstance(its, (ast.Tuple, ast.List)) else (function, its)
