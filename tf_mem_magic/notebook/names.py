"""The names that code reads from the notebook: not those that its own functions bind."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.notebook.cell import PythonCell, read_cell
from tf_mem_magic.notebook.mask import NotPython
from tf_mem_magic.notebook.scopes import Scopes

_IMPORT = "from tf_mem_magic import apply"
_APPLY = re.compile(r"(?<![.\w])apply\b(?!\.)|\bimport\b.*\bapply\b")


def read_names(tree: ast.Module) -> set[str]:
    """Give the names that ``tree`` reads from where it runs, in its functions too."""
    scopes = Scopes(tree)
    return {name for (home, name), loads in scopes.loads.items() if isinstance(home, ast.Module) and loads}


def names_of_lines(code: str) -> set[str]:
    """Give the names in the lines of plain Python that run at once: those of function bodies are left out."""
    statements = [s for s in ast.parse(code).body if not isinstance(s, ast.FunctionDef)]
    return {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name)}


def evaluated_names(function: ast.FunctionDef) -> set[str]:
    """Give the names that are read when a function is defined: in its decorators and defaults."""
    parts = [*function.decorator_list, *function.args.defaults, *(d for d in function.args.kw_defaults if d)]
    return {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}


def takes_apply(source: str) -> bool:
    """Tell whether a cell uses the name ``apply``, which changed cells import, for something of its own."""
    if not _APPLY.search(source.replace(_IMPORT, "")):
        return False
    cell = read_cell(source)
    return not isinstance(cell, NotPython) and cell.once(_binds_apply)


def _binds_apply(cell: PythonCell) -> bool:
    methods = {id(member) for node in cell.nodes if isinstance(node, ast.ClassDef) for member in node.body}
    return any(_binds(node, "apply") for node in cell.nodes if id(node) not in methods and not _imports_ours(node))


def binds_name(statement: ast.stmt, name: str) -> bool:
    """Tell whether a statement, or what is inside it, gives ``name`` a value."""
    return any(_binds(node, name) for node in ast.walk(statement))


def _imports_ours(node: ast.AST) -> bool:
    ours = isinstance(node, ast.ImportFrom) and node.module == "tf_mem_magic"
    return ours and all(alias.asname != "apply" for alias in getattr(node, "names", ()))


def _binds(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.name == name
    if isinstance(node, ast.arg):
        return node.arg == name
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name).partition(".")[0] == name for alias in node.names)
    return False
