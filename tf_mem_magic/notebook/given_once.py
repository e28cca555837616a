"""Values that go through what they hold once: an open file, ``zip``, ``map``, a generator."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.scopes import Binding
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name

_BUILTIN = frozenset("open zip map filter iter enumerate reversed".split())
_METHODS = frozenset(
    "open fdopen opener iglob scandir walk iterdir rglob finditer imap imap_unordered as_numpy_iterator "
    "make_one_shot_iterator iterrows itertuples iter_rows reader DictReader iter_content iter_lines urlopen "
    "tf_record_iterator nditer ndenumerate as_completed __iter__".split()
)
_OF_MODULES: dict[str, frozenset[str] | None] = {
    "itertools": None,
    "csv": None,
    "glob": frozenset({"iglob"}),
    "os": frozenset({"scandir", "walk"}),
}
"""Modules whose functions give iterators: those named, or all."""

_CHUNKS = frozenset({"chunksize", "iterator"})
_DEEPEST = 6


def given_once(notebook: Notebook, cell: PythonCell, expr: ast.expr) -> str:
    """Name what an expression of ``cell`` reads that gives its values once; empty where the notebook shows none."""
    return next(_once(notebook, cell, expr, 0), "")


def _once(notebook: Notebook, cell: PythonCell, expr: ast.expr, depth: int) -> Iterator[str]:
    """Yield the iterators that a value is, or holds; what a call makes of others is its own."""
    if depth > _DEEPEST:
        return
    if isinstance(expr, ast.Name):
        for home, value in _held(notebook, cell, expr):
            if any(_once(notebook, home, value, depth + 1)):
                yield expr.id
                return
    elif isinstance(expr, ast.GeneratorExp):
        yield _short(expr)
    elif isinstance(expr, ast.Call):
        if _gives_an_iterator(notebook, cell, expr, depth):
            yield _short(expr)
    elif not isinstance(expr, ast.Lambda):
        for child in _parts(expr):
            yield from _once(notebook, cell, child, depth)


def _parts(expr: ast.expr) -> Iterator[ast.expr]:
    """Yield what a value holds, or is taken from."""
    if isinstance(expr, (ast.ListComp, ast.SetComp)):
        yield expr.elt
    elif isinstance(expr, ast.DictComp):
        yield expr.value
    elif isinstance(expr, ast.IfExp):
        yield from (expr.body, expr.orelse)
    else:
        children = (child for child in ast.iter_child_nodes(expr) if isinstance(child, ast.expr))
        yield from (child for child in children if not isinstance(child, ast.Starred))


def _gives_an_iterator(notebook: Notebook, cell: PythonCell, call: ast.Call, depth: int) -> bool:
    func = call.func
    if any(k.arg in _CHUNKS for k in call.keywords):
        return True
    if isinstance(func, ast.Attribute):
        owner = func.value
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        name = owner.id if isinstance(owner, ast.Name) else ""
        module = (notebook.names.meaning(name) or name) if name else ""
        if func.attr == "map" and isinstance(func.value, ast.Name):  # a pool of threads; a dataset goes on being one
            made = (value for _, value in _held(notebook, cell, func.value))
            return any(isinstance(v, ast.Call) and called_name(v).endswith("Executor") for v in made)
        if func.attr == "glob":  # a path gives its files one by one; functions of modules give a list
            return not name or (module == name and name not in ("tf", "tensorflow", "glob"))
        return func.attr in _METHODS or (func.value is owner and _is_of_a_module(module, func.attr))
    if not isinstance(func, ast.Name):
        return False
    own = notebook.function(func.id)
    if own is not None:
        return _yields(own.node)
    module, _, name = notebook.names.meaning(func.id).rpartition(".")
    if _is_of_a_module(module, name):
        return True
    if func.id == "tqdm":
        return any(any(_once(notebook, cell, one, depth + 1)) for one in call.args[:1])
    return func.id in _BUILTIN


def _is_of_a_module(module: str, name: str) -> bool:
    names = _OF_MODULES.get(module, frozenset())
    return names is None or name in names


def _yields(node: ast.AST) -> bool:
    return not isinstance(node, ast.ClassDef) and any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(node))


def _held(notebook: Notebook, cell: PythonCell, name: ast.Name) -> Iterator[tuple[PythonCell, ast.expr]]:
    """Yield what may have been assigned last to a name that a cell reads: there, else in the last cell that sets it."""
    for other in dict.fromkeys((cell, *notebook.before.setting(name.id))):
        found = other.scopes.of(other.tree, name.id)
        found = [b for b in found if b.node is not other.scopes.statement(name)] if other is cell else found
        for binding in found:
            yield from ((other, value) for value in _values(other, binding))
        if found:
            return


def _values(cell: PythonCell, binding: Binding) -> Iterator[ast.expr]:
    """Yield what a binding gives its name: also by ``with … as`` and by unpacking."""
    if binding.value is not None:
        yield binding.value
    elif isinstance(binding.node, (ast.With, ast.AsyncWith)):
        for item in binding.node.items:
            named = item.optional_vars
            if isinstance(named, ast.Name) and named.id == binding.name:
                yield item.context_expr
    elif isinstance(binding.node, ast.Assign) and _is_tee(binding.node.value):
        yield binding.node.value


def _is_tee(value: ast.expr) -> bool:
    """Tell whether a value is unpacked into iterators; what comes of ``a, b = zip(...)`` is none."""
    return isinstance(value, ast.Call) and called_name(value) == "tee"


def _short(expr: ast.expr) -> str:
    if isinstance(expr, ast.Call):
        return f"{ast.unparse(expr.func)}(...)"
    return "(... for ...)"
