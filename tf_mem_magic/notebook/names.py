"""The names that code reads from the notebook: not those that its own functions bind."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.notebook.bindings import parse
from tf_mem_magic.notebook.scopes import Scopes

_IMPORT = "from tf_mem_magic import apply"
_APPLY = re.compile(r"(?<![.\w])apply\b(?!\.)")


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
    nodes = list(ast.walk(parse(source) or ast.Module([], [])))
    methods = {id(member) for node in nodes if isinstance(node, ast.ClassDef) for member in node.body}
    return any(_binds_apply(node) for node in nodes if id(node) not in methods)


def _binds_apply(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id == "apply" and not isinstance(node.ctx, ast.Load)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.name == "apply"
    if isinstance(node, ast.arg):
        return node.arg == "apply"
    if isinstance(node, ast.ImportFrom) and node.module == "tf_mem_magic":
        return any(alias.asname == "apply" for alias in node.names)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name) == "apply" for alias in node.names)
    return False
