"""The functions of earlier cells that a cell reaches, where defining them once more would make the same."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from tf_mem_magic.core.facts import FunctionFacts
from tf_mem_magic.core.places import is_cell_file

_WORD = re.compile(r"[^\W\d]\w*")

_MOST = 50
"""More functions than this are not followed: the change that a person must read would be too long."""


def find_functions(source: str, namespace: Mapping[str, Any]) -> tuple[FunctionFacts, ...]:
    """Give the functions of earlier cells that ``source`` (plain Python) names, directly or through one another.

    Left out are functions that a name holds which is not their own, closures, those under a decorator other than
    ``tf.function``, and those whose defaults would be others today. No code of the notebook is run.
    """
    found: dict[str, FunctionFacts] = {}
    defined = set(re.findall(r"(?m)^(?:async )?def +(\w+)", source))
    queue, seen = list(dict.fromkeys(_WORD.findall(source))), set[str]()
    while queue and len(found) < _MOST:
        name = queue.pop(0)
        if name in seen or name in defined or name not in namespace:
            continue
        seen.add(name)
        fact = _describe(name, namespace)
        if fact is not None:
            found[name] = fact
            queue += _WORD.findall(fact.source)
    return tuple(found.values())


def _describe(name: str, namespace: Mapping[str, Any]) -> FunctionFacts | None:
    value = namespace[name]
    function = value if isinstance(value, FunctionType) else _staged(value)
    if function is None or function.__name__ != name or function.__code__.co_freevars:
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
    staged = function is not value
    if not _same_decorators(node, staged, namespace) or not _same_defaults(node, function, namespace):
        return None
    return FunctionFacts(name, "".join(lines).rstrip("\r\n"), function.__code__.co_filename, line, staged)


def _staged(value: Any) -> FunctionType | None:
    """Give the function that ``tf.function`` holds, read without running code of the object."""
    if not type(value).__module__.startswith("tensorflow."):
        return None
    try:
        held = object.__getattribute__(value, "__dict__").get("_python_function")
    except AttributeError:
        return None
    return held if isinstance(held, FunctionType) else None


def _same_decorators(node: ast.FunctionDef, staged: bool, namespace: Mapping[str, Any]) -> bool:
    if not node.decorator_list:
        return not staged
    one = node.decorator_list[0]
    called = one.func if isinstance(one, ast.Call) else one
    return staged and len(node.decorator_list) == 1 and ast.unparse(called) in ("tf.function", "tensorflow.function")


def _same_defaults(node: ast.FunctionDef, function: FunctionType, namespace: Mapping[str, Any]) -> bool:
    given = [*(function.__defaults__ or ())]
    written = node.args.defaults
    keyword = [(d, arg.arg) for d, arg in zip(node.args.kw_defaults, node.args.kwonlyargs) if d is not None]
    given += [(function.__kwdefaults__ or {}).get(name) for _, name in keyword]
    written = [*written, *(default for default, _ in keyword)]
    return len(given) == len(written) and all(_same(d, value, namespace) for d, value in zip(written, given))


def _same(default: ast.expr, value: Any, namespace: Mapping[str, Any]) -> bool:
    if isinstance(default, ast.Name):
        return namespace.get(default.id, default) is value
    try:
        literal = ast.literal_eval(default)
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return False
    return (
        type(literal) is type(value) and type(value) in (int, float, str, bool, tuple, type(None)) and literal == value
    )
