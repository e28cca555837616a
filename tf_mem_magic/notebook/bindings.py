"""Which names statements of a cell bind, and what the others need to know of that."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell, parse, read_cell, words_of
from tf_mem_magic.notebook.text.edits import IMPORT
from tf_mem_magic.notebook.text.mask import NotPython

_WORD = re.compile(r"[^\W\d]\w*")
_APPLY = re.compile(r"(?<![.\w])apply\b(?!\.)|\bimport\b.*\bapply\b")


def assigned(source: str) -> dict[str, set[str]]:
    """Give what the cell's top-level assignments set, as written (``cfg.batch``), with the names in it."""
    cell = read_cell(source)
    body = [] if isinstance(cell, NotPython) else cell.tree.body
    texts = {ast.unparse(target) for s in body if isinstance(s, ast.Assign) for target in s.targets}
    return {text: set(_WORD.findall(text)) for text in texts}


def names_back(original: str, source: str, facts: Facts) -> str:
    """Give the code that sets back what ``source`` sets and ``original`` does not: numbers and texts of earlier cells.

    Without it the original cell, run again, would read what the changed one has set.
    """
    new = sorted(assigned(source).keys() - assigned(original).keys())
    return "\n".join(f"{text} = {facts.scalar(text)!r}" for text in new if facts.scalar(text) is not None)


def read_names(tree: ast.Module) -> set[str]:
    """Give the names that ``tree`` reads from where it runs, in its functions too."""
    scopes = Scopes(tree)
    return {name for (home, name), loads in scopes.loads.items() if isinstance(home, ast.Module) and loads}


def names_of_lines(code: str) -> set[str]:
    """Give the names in the lines of plain Python that run at once: those of function bodies are left out."""
    tree = parse(code)
    statements = [s for s in tree.body if not isinstance(s, ast.FunctionDef)] if tree is not None else []
    return {n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name)}


def without_lines(code: str, names: Collection[str]) -> str:
    """Leave out the statements of plain Python that run at once and name one of ``names``."""
    tree = parse(code)
    if tree is None:
        return code
    lines = code.split("\n")
    for statement in reversed(tree.body):
        named = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
        if not isinstance(statement, ast.FunctionDef) and named & set(names):
            del lines[statement.lineno - 1 : statement.end_lineno]
    return "\n".join(lines)


def evaluated_names(function: ast.FunctionDef) -> set[str]:
    """Give the names that are read when a function is defined: in its decorators and defaults."""
    parts = [*function.decorator_list, *function.args.defaults, *(d for d in function.args.kw_defaults if d)]
    return {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}


def takes_apply(source: str) -> bool:
    """Tell whether a cell uses the name ``apply``, which changed cells import, for something of its own."""
    if "apply" not in words_of(source) or not _APPLY.search(source.replace(IMPORT, "")):
        return False
    cell = read_cell(source)
    return not isinstance(cell, NotPython) and cell.once(_binds_apply)


def _binds_apply(cell: PythonCell) -> bool:
    methods = {id(member) for node in cell.nodes if isinstance(node, ast.ClassDef) for member in node.body}
    return any(_binds(node, "apply") for node in cell.nodes if id(node) not in methods and not _imports_ours(node))


def binds_name(statement: ast.stmt, name: str) -> bool:
    """Tell whether a statement, or what is inside it, gives ``name`` a value."""
    return any(_binds(node, name) for node in ast.walk(statement))


def last_bindings(cell: PythonCell) -> dict[str, ast.stmt]:
    """Give, for each name that a cell's own statements bind, the last of them; what a function binds inside is its own.

    Read once for a cell: ``cell.once(last_bindings)``.
    """
    found: dict[str, ast.stmt] = {}
    for statement in cell.tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[statement.name] = statement
        else:
            found.update((name, statement) for node in ast.walk(statement) for name in _bound(node))
    return found


def _bound(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return () if isinstance(node.ctx, ast.Load) else (node.id,)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.arg):
        return (node.arg,)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return tuple((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    return ()


def _imports_ours(node: ast.AST) -> bool:
    ours = isinstance(node, ast.ImportFrom) and node.module == "tf_mem_magic"
    return ours and all(alias.asname != "apply" for alias in getattr(node, "names", ()))


def _binds(node: ast.AST, name: str) -> bool:
    return name in _bound(node)
