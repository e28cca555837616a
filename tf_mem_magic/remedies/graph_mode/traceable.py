"""Whether a function of a cell would do the same as a TensorFlow graph: Python runs once, when it is traced."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from tf_mem_magic.notebook.uses import called_name

Functions = Mapping[str, ast.FunctionDef]
_DEEPEST = 6

_VALUES = frozenset({"numpy", "item", "tolist", "to_py", "eval"})
_PYTHON = frozenset({"print", "float", "int", "bool", "input", "open", "next", "iter", "exec", "setattr", "display"})
_MUTATES = frozenset(
    "append extend insert update pop popitem add remove clear setdefault write writelines set_postfix set_description "
    "info debug warning error log put send set_value fit evaluate predict train_on_batch".split()
)
_MODULES = frozenset({"np", "numpy", "random", "time", "os", "sys", "plt", "gc", "logging", "wandb", "pd", "datetime"})
_MAKES = frozenset({"GradientTape", "TensorSpec", "TensorShape", "IndexedSlices"})


def untraceable(function: ast.FunctionDef, functions: Functions, changing: frozenset[str], depth: int = 0) -> str:
    """Say why the function, or one that it calls, would not do the same as a graph; empty: nothing was found.

    ``functions`` are those of the notebook by name, ``changing`` the names, and attributes as ``.beta``, whose
    value changes in loops or by callbacks.
    """
    own = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}
    for node in ast.walk(function):
        reason = _effect(node)
        if reason:
            return f"`{function.name}` {reason}"
        read = node.id if isinstance(node, ast.Name) else f".{node.attr}" if isinstance(node, ast.Attribute) else ""
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load) and read in changing - own:
            told = ast.unparse(node)
            return f"`{function.name}` reads `{told}`, which changes: a graph would keep its first value"
    for name in sorted({called_name(n) for n in ast.walk(function) if isinstance(n, ast.Call)}):
        called = functions.get(name)
        if called is not None and called is not function and depth < _DEEPEST:
            reason = untraceable(called, functions, changing, depth + 1)
            if reason:
                return reason
    return ""


def _effect(node: ast.AST) -> str:
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return f"changes the outer name `{node.names[0]}`"
    if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await, ast.Try, ast.With)):
        return _block(node)
    if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
        return f"sets `{ast.unparse(node)}`, which a graph would do once"
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _MODULES:
        return f"uses `{node.id}`, whose results a graph would keep from its first call"
    return _of_call(node) if isinstance(node, ast.Call) else ""


def _block(node: ast.AST) -> str:
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        tapes = all(isinstance(c, ast.Call) and called_name(c) in ("GradientTape", "name_scope") for c in calls)
        return "" if tapes else f"enters `{ast.unparse(calls[0])}`"
    return "catches errors, which a graph raises elsewhere" if isinstance(node, ast.Try) else "is a generator"


def _of_call(call: ast.Call) -> str:
    name = called_name(call)
    method = isinstance(call.func, ast.Attribute)
    if method and name in _VALUES:
        return f"calls `.{name}()`, which a graph's tensors do not have"
    if not method and name in _PYTHON:
        return f"calls `{name}`, which runs once in a graph, when it is traced"
    if method and name in _MUTATES and not ast.unparse(call.func).startswith(("tf.", "keras.", "tensorflow.")):
        return f"calls `{ast.unparse(call.func)}`, which runs once in a graph, when it is traced"
    if name[:1].isupper() and name not in _MAKES:
        return f"makes a new `{name}` at each call"
    return ""
