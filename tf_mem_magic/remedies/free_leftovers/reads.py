"""Which names a cell may use: what its code says, not what its comments and texts mention."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from tf_mem_magic.core.facts import FunctionFacts
from tf_mem_magic.notebook.read_first import rebuilt_names
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import split_lines

_WORD = re.compile(r"[^\W\d]\w*")
_ANY_NAME = frozenset({"globals", "locals", "vars"})
_RUNS_TEXT = frozenset({"eval", "exec"})
_OF_IPYTHON = frozenset({"user_ns", "run_cell", "run_line_magic", "run_cell_magic", "safe_execfile", "ev", "ex"})
_MAGIC = re.compile(r"^\s*%{1,2}(?:run|store|reset|load|recall|rerun|macro)\b", re.MULTILINE)
_IN_TEXT = frozenset({"eval", "query", "exec", "getattr", "setattr", "run_line_magic"})
"""Calls that look up names which stand in a text."""


def hidden_use(cell: PythonCell, functions: Iterable[FunctionFacts]) -> str:
    """Give the code that may use any name at all: of the cell, or of a function that it reaches; empty: none."""
    lines = split_lines(cell.source)
    magic = _MAGIC.search("\n".join(lines[number - 1] for number in sorted(cell.hidden)))
    if magic is not None:
        return magic[0].strip()
    read = (read_cell(function.source) for function in functions)
    for tree in (cell.tree, *(one.tree for one in read if isinstance(one, PythonCell))):
        own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        own |= {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (told := _of_any_name(node, own)):
                return told
            if isinstance(node, ast.Attribute) and node.attr in _OF_IPYTHON and _is_shell(node.value):
                return f".{node.attr}"
    return ""


def _of_any_name(call: ast.Call, own: set[str]) -> str:
    """Give the call of a builtin that reaches names of which the text does not speak; empty where it is none."""
    if not isinstance(call.func, ast.Name) or call.func.id in own:
        return ""
    if call.func.id in _ANY_NAME and not call.args:
        return f"{call.func.id}()"
    plain = call.args and isinstance(call.args[0], ast.Constant)
    return f"{call.func.id}(…)" if call.func.id in _RUNS_TEXT and not plain else ""


def _is_shell(node: ast.expr) -> bool:
    return "ipython" in ast.unparse(node).lower() or ast.unparse(node) in ("ip", "shell")


def used_words(cell: PythonCell) -> set[str]:
    """Give the names that the cell's code may use; one that it only sets anew is none of them.

    A text counts where it is one name, or where it is given to what looks up names in texts; of a line that only
    IPython reads every word counts.
    """
    lines = split_lines(cell.source)
    hidden = {word for number in cell.hidden for word in _WORD.findall(lines[number - 1])}
    return (set(_words(cell.tree)) - rebuilt_names(cell.source)) | hidden


def _words(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            yield from node.names
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield node.value
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _IN_TEXT:
                texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))
                yield from (word for text in texts for word in _WORD.findall(text))
