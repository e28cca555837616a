"""Lists of Python numbers: a graph is traced anew for each number that is taken from one."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tf_mem_magic.notebook.uses import called_name


def number_lists(trees: Iterable[ast.Module]) -> frozenset[str]:
    """Return the names that hold nothing but lists of Python numbers."""
    held: dict[str, list[ast.expr]] = {}
    for node in (n for tree in trees for n in ast.walk(tree)):
        if isinstance(node, ast.Assign):
            for name in (n for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)):
                held.setdefault(name.id, []).append(node.value)
    listed = {name for name, values in held.items() if all(_of_numbers(value, frozenset()) for value in values)}
    return frozenset(listed)


def _of_numbers(expr: ast.expr, listed: frozenset[str]) -> bool:
    if isinstance(expr, ast.Name):
        return expr.id in listed
    if isinstance(expr, (ast.List, ast.Tuple)):
        return bool(expr.elts) and all(_is_number(one) for one in expr.elts)
    if isinstance(expr, ast.Subscript):
        return isinstance(expr.slice, ast.Slice) and _of_numbers(expr.value, listed)
    if isinstance(expr, ast.ListComp):
        taken = {n.id for part in expr.generators for n in ast.walk(part.target) if isinstance(n, ast.Name)}
        called = any(isinstance(n, ast.Call) for n in ast.walk(expr.elt))
        names = {n.id for n in ast.walk(expr.elt) if isinstance(n, ast.Name)}
        return not called and names <= taken and all(_of_numbers(part.iter, listed) for part in expr.generators)
    if not isinstance(expr, ast.Call):
        return False
    name = called_name(expr)
    if name in ("range", "tolist"):
        return True
    return name in ("list", "tuple", "sorted", "reversed") and bool(expr.args) and _of_numbers(expr.args[0], listed)


def _is_number(expr: ast.expr) -> bool:
    if isinstance(expr, ast.UnaryOp):
        return _is_number(expr.operand)
    return isinstance(expr, ast.Constant) and type(expr.value) in (int, float)


def loops_over_numbers(tree: ast.Module, listed: frozenset[str]) -> Iterator[str]:
    """Yield the names that loops take from lists of numbers, one by one."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.comprehension)):
            yield from _taken(node.target, node.iter, listed)


def _taken(target: ast.expr, source: ast.expr, listed: frozenset[str]) -> Iterator[str]:
    name = called_name(source) if isinstance(source, ast.Call) else ""
    if isinstance(source, ast.Call) and name in ("enumerate", "tqdm") and source.args:
        of_one = target.elts[-1] if name == "enumerate" and isinstance(target, ast.Tuple) else target
        yield from _taken(of_one, source.args[0], listed)
    elif isinstance(source, ast.Call) and name == "zip" and isinstance(target, ast.Tuple):
        for one, its in zip(target.elts, source.args):
            yield from _taken(one, its, listed)
    elif isinstance(target, ast.Name) and _of_numbers(source, listed):
        yield target.id


def is_entry(expr: ast.expr, listed: frozenset[str]) -> bool:
    """Tell whether an expression is a part of what is no list of numbers: ``x[i]`` of an array."""
    return isinstance(expr, ast.Subscript) and not _of_numbers(expr.value, listed)
