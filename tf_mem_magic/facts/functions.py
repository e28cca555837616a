"""The functions of earlier cells that a cell reaches, where defining them once more would make the same."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from tf_mem_magic.core.facts import FunctionFacts
from tf_mem_magic.diagnose.places import is_cell_file
from tf_mem_magic.facts.kinds import is_exactly
from tf_mem_magic.facts.names import stored
from tf_mem_magic.notebook.bindings import read_names

_MOST = 50
"""More functions than this are not followed: the change that a person must read would be too long."""


def find_functions(source: str, namespace: Mapping[str, Any]) -> tuple[FunctionFacts, ...]:
    """Give the functions of earlier cells that ``source`` (plain Python) reads by name, or through one another.

    Left out are functions that a name holds which is not their own, closures, those with attributes, those under a
    decorator other than ``tf.function``, and those whose defaults would be others today. No code of the notebook is
    run.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found: dict[str, FunctionFacts] = {}
    defined = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    queue, seen = sorted(read_names(tree)), set[str]()
    while queue and len(found) < _MOST:
        name = queue.pop(0)
        if name in seen or name in defined or name not in namespace:
            continue
        seen.add(name)
        try:
            fact = _describe(name, namespace)
        except Exception:  # an object that answers for its attributes
            fact = None
        if fact is not None:
            found[name] = fact
            queue += sorted(read_names(ast.parse(fact.source)))
    return tuple(found.values())


def _describe(name: str, namespace: Mapping[str, Any]) -> FunctionFacts | None:
    value = namespace[name]
    function = value if type(value) is FunctionType else _staged(value)
    if function is None or function.__name__ != name or function.__code__.co_freevars:
        return None
    staged = function is not value
    if function.__dict__ and not staged:  # tf.function notes things there; what a person keeps there would be lost
        return None
    if function.__globals__ is not namespace or not is_cell_file(function.__code__.co_filename):
        return None
    try:
        lines, line = inspect.getsourcelines(function)
        tree = ast.parse("".join(lines))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    node = tree.body[0] if len(tree.body) == 1 else None
    if not isinstance(node, ast.FunctionDef) or node.name != name:
        return None
    if not _same_decorators(node, staged, namespace) or not _same_defaults(node, function, namespace):
        return None
    return FunctionFacts(name, "".join(lines).rstrip("\r\n"), function.__code__.co_filename, line, staged)


def _staged(value: Any) -> FunctionType | None:
    """Give the function that ``tf.function`` holds, read without running code of the object."""
    if not type(value).__module__.startswith("tensorflow."):
        return None
    held = stored(value).get("_python_function")
    return held if type(held) is FunctionType else None


def _same_decorators(node: ast.FunctionDef, staged: bool, namespace: Mapping[str, Any]) -> bool:
    if not node.decorator_list:
        return not staged
    one = node.decorator_list[0]
    called = one.func if isinstance(one, ast.Call) else one
    if not staged or len(node.decorator_list) > 1:
        return False
    names = {n.id for n in ast.walk(one) if isinstance(n, ast.Name)}
    plain = all(type(namespace.get(name)) is ModuleType for name in names)
    return plain and ast.unparse(called) in ("tf.function", "tensorflow.function")


def _same_defaults(node: ast.FunctionDef, function: FunctionType, namespace: Mapping[str, Any]) -> bool:
    pairs = list(_defaults(node, function))
    count = len(function.__defaults__ or ()) + len(function.__kwdefaults__ or {})
    return len(pairs) == count and all(_same(written, value, namespace) for written, value in pairs)


def _defaults(node: ast.FunctionDef, function: FunctionType) -> Iterator[tuple[ast.expr, Any]]:
    yield from zip(node.args.defaults, function.__defaults__ or ())
    for default, argument in zip(node.args.kw_defaults, node.args.kwonlyargs):
        if default is not None:
            yield default, (function.__kwdefaults__ or {}).get(argument.arg)


def _same(default: ast.expr, value: Any, namespace: Mapping[str, Any]) -> bool:
    if isinstance(default, ast.Name):
        return namespace.get(default.id, default) is value
    try:
        literal = ast.literal_eval(default)
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return False
    if is_exactly(value, list, dict, set):  # one that was filled meanwhile is not what is written
        entries = [*value.keys(), *value.values()] if is_exactly(value, dict) else list(value)
        plain = all(is_exactly(one, int, float, str, bool, type(None)) for one in entries)
    else:
        plain = is_exactly(value, int, float, str, bool, tuple, type(None))
    return plain and type(literal) is type(value) and bool(literal == value)
