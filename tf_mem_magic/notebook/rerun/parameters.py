"""Which numbers and texts a change gives another value, and whether later cells read them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tf_mem_magic.notebook.read_first import read_first
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell

_LONGEST = 60
"""Characters of a value that are shown."""

_RECORDS = frozenset({"dict", "SimpleNamespace", "Namespace"})
"""Calls that only put values together."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Changed:
    """A parameter that a changed cell sets otherwise: ``name`` as written, its values as written before and after.

    ``before`` is empty where nothing tells it.
    """

    name: str
    before: str
    after: str

    @property
    def root(self) -> str:
        """The name that is read to get at it: ``cfg`` of ``cfg.batch``."""
        found = re.match(r"\w+", self.name)
        return found.group() if found else self.name


def changed_values(original: str, source: str, earlier: Sequence[str] = ()) -> tuple[Changed, ...]:
    """Give what the changed cell sets to another number or text than the original did, or than earlier cells have.

    Only what is set outside functions counts: what a function sets for itself no other cell reads.
    """
    before, after = _values(original), _values(source)
    known: dict[str, str] = {}
    missing = after.keys() - before.keys()
    for cell in reversed(earlier):
        if missing <= known.keys():
            break
        if any(re.search(rf"\b{re.escape(_word(name))}\b", cell) for name in missing - known.keys()):
            known = {**{name: value for name, value in _values(cell).items() if name in missing}, **known}
    changed = []
    for name, value in after.items():
        old = before.get(name, known.get(name, ""))
        if old and old != value:
            changed.append(Changed(name, _short(old), _short(value)))
    return tuple(changed)


def reads_any(root: str, cells: Iterable[str], through: Iterable[str] = ()) -> bool:
    """Tell whether one of ``cells`` may read what ``root`` holds, itself or by a function that ``through`` defines."""
    names = _with_readers(root, through)
    bound: set[str] = set()
    for cell in cells:
        read = read_cell(cell)
        if not isinstance(read, PythonCell):
            if any(re.search(rf"\b{re.escape(name)}\b", cell) for name in names - bound):
                return True
            continue
        if read_first(read.tree.body) & (names - bound) or _in_commands(read, names - bound):
            return True
        names |= _with_readers(root, (cell,))
        bound |= {name for name in names if _binds(read, name)}
    return False


def _with_readers(root: str, cells: Iterable[str]) -> set[str]:
    """Give the name with those of the functions and classes that read it, also by one another."""
    functions: dict[str, set[str]] = {}
    for cell in cells:
        read = read_cell(cell)
        if isinstance(read, PythonCell):
            for node in read.tree.body:
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    functions[node.name] = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    found, before = {root}, 0
    while len(found) != before:
        before = len(found)
        found |= {name for name, used in functions.items() if used & found}
    return found


def _binds(cell: PythonCell, name: str) -> bool:
    return any(
        isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
        for node in cell.tree.body
    )


def _in_commands(cell: PythonCell, names: set[str]) -> bool:
    """Tell whether a line magic or a shell command of the cell names one of them."""
    lines = [line for line in cell.source.splitlines() if line.lstrip().startswith(("%", "!"))]
    return any(re.search(rf"\b{re.escape(name)}\b", line) for line in lines for name in names)


def _values(source: str) -> dict[str, str]:
    """Give what a cell sets outside functions to numbers and texts, as they are written; the last one counts."""
    read = read_cell(source)
    if not isinstance(read, PythonCell):
        return {}
    found: dict[str, str] = {}
    for target, value in _assigned(read.tree):
        for name, part in _parts(target, value):
            found[name] = ast.unparse(part)
    return found


def _assigned(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _FUNCTIONS):
            continue
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, ast.AugAssign):
            yield node.target, ast.BinOp(_as_read(node.target), node.op, node.value)
        yield from _assigned(node)


def _as_read(target: ast.expr) -> ast.expr:
    read = ast.parse(ast.unparse(target), mode="eval").body
    assert isinstance(read, ast.expr)
    return read


def _parts(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Take an assignment apart into names, as they would be written, and constant values."""
    if isinstance(target, (ast.Tuple, ast.List)):
        if isinstance(value, (ast.Tuple, ast.List)) and len(target.elts) == len(value.elts):
            for one, each in zip(target.elts, value.elts):
                yield from _parts(one, each)
        return
    if not isinstance(target, (ast.Name, ast.Attribute, ast.Subscript)):
        return
    name = ast.unparse(target)
    if isinstance(value, ast.Dict):
        for key, each in zip(value.keys, value.values):
            if isinstance(key, ast.Constant) and _is_constant(each):
                yield f"{name}[{key.value!r}]", each
    elif isinstance(value, ast.Call) and _called(value) in _RECORDS:
        for keyword in value.keywords:
            if keyword.arg is not None and _is_constant(keyword.value):
                plain = f"{name}[{keyword.arg!r}]" if _called(value) == "dict" else f"{name}.{keyword.arg}"
                yield plain, keyword.value
    elif _is_constant(value):
        yield name, value


def _called(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _is_constant(value: ast.expr) -> bool:
    """Tell whether a value is put together from numbers and texts, names at most in arithmetic with one."""
    if isinstance(value, ast.Constant):
        return True
    if isinstance(value, (ast.Tuple, ast.List, ast.Set)):
        return all(_is_constant(each) for each in value.elts)
    if isinstance(value, ast.UnaryOp):
        return _is_constant(value.operand)
    if isinstance(value, ast.BinOp):
        sides = (value.left, value.right)
        return any(_is_constant(s) for s in sides) and all(_is_constant(s) or _is_plain(s) for s in sides)
    return False


def _is_plain(value: ast.expr) -> bool:
    if isinstance(value, (ast.Attribute, ast.Subscript)):
        return _is_plain(value.value)
    return isinstance(value, ast.Name)


def _word(name: str) -> str:
    found = re.match(r"\w+", name)
    return found.group() if found else name


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"
