"""Names that a part of a cell can let go of as it begins, because it binds them anew before anything reads them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.read_first import bound_anew, read_first
from tf_mem_magic.notebook.text.cell import PythonCell, parse
from tf_mem_magic.notebook.text.mask import split_lines
from tf_mem_magic.notebook.uses import called_name

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LATER = (*_FUNCTIONS, ast.Lambda, ast.GeneratorExp)
"""Code that runs, and reads its names, later than where it stands."""

_LEAVES = (ast.Continue, ast.Break, ast.Return, ast.Raise)
_OPTIMIZER = re.compile(r"\boptimizers\b|\b(?:Ada\w+|Nadam|SGD|RMSprop|Lion|Ftrl|Lamb|Muon)\b")
_DYNAMIC = re.compile(r"\b(?:globals|locals|vars|eval|exec|user_ns|run_cell|get_ipython)\b")
_NAMES_NOTHING = re.compile(r"\s*(?:%(?:matplotlib|config|autosave|precision)\b[^{$]*|![^{$]*|[^%!{$]*)$")
"""Lines of magics and of the shell that read no name of the notebook; a shell's line may go on in the next."""

_PLAIN_WITH = re.compile(r"(?:scope|device|GradientTape|open|tqdm|bar)\(")
"""Contexts that surely let exceptions through."""


def forgettable(
    cell: PythonCell, facts: Facts, around: Sequence[ast.stmt], rest: Sequence[ast.stmt], models: set[str]
) -> tuple[str, ...]:
    """List the names that hold a model, or its state, and that ``rest`` binds anew before anything reads them.

    Where an exception may be caught, they would be without a value afterwards, so none is given. A name that a function
    reads is left alone, unless that function is itself made anew after it.

    Parameters
    ----------
    cell : PythonCell
        The cell.
    facts : Facts
        What it held when it failed.
    around : sequence of ast.stmt
        The statements around ``rest``, in the same function.
    rest : sequence of ast.stmt
        The statements from the place on, to the end of their block.
    models : set of str
        Names that are known to hold models there.
    """
    if _DYNAMIC.search(cell.source) or any(_catches(statement) for statement in around):
        return ()
    nodes = [n for s in rest for n in walk_own(s)]
    if any(isinstance(n, ast.stmt) and _catches(n, inside=True) for n in nodes) or _hidden(cell, rest):
        return ()
    if any(isinstance(n, _LEAVES) for n in nodes):
        rest = rest[:1]
    if read_first(rest) & _bound_to_later_code(rest):
        return ()
    held = {name for s in rest for n in walk_own(s) for name in _holders(n, models)}
    # A graph that was traced holds the variables that it reads.
    held |= {s.name for s in rest if isinstance(s, _FUNCTIONS) and s.decorator_list}
    return tuple(sorted(bound_anew(rest) & held - _read_elsewhere(cell, facts, rest)))


def walk_own(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of a statement but for those inside of functions and classes."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield node
            todo += ast.iter_child_nodes(node)


def _catches(statement: ast.stmt, inside: bool = False) -> bool:
    """Tell whether an exception may end in a statement, or whether it does something on its way.

    ``inside``: the statement belongs to the rest itself, where what a ``try`` binds is not sure anyway.
    """
    if isinstance(statement, (ast.With, ast.AsyncWith)):
        return not all(_PLAIN_WITH.search(ast.unparse(item.context_expr)) for item in statement.items)
    return not inside and (isinstance(statement, ast.Try) or type(statement).__name__ == "TryStar")


def _hidden(cell: PythonCell, rest: Sequence[ast.stmt]) -> bool:
    """Tell whether a line that only IPython reads stands among the statements: it may name anything."""
    last = rest[-1].end_lineno or rest[-1].lineno
    lines = split_lines(cell.source)
    within = [lines[line - 1] for line in cell.hidden if rest[0].lineno <= line <= min(last, len(lines))]
    return not all(_NAMES_NOTHING.match(line) for line in within)


def _bound_to_later_code(rest: Sequence[ast.stmt]) -> set[str]:
    """Give the names of functions, and those bound to a generator or lambda."""
    found = {s.name for s in rest if isinstance(s, _FUNCTIONS)}
    for statement in rest:
        for node in walk_own(statement):
            if isinstance(node, ast.Assign) and any(isinstance(n, _LATER) for n in ast.walk(node.value)):
                found |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return found


def _holders(node: ast.AST, models: set[str]) -> Iterator[str]:
    """Yield the names that a statement binds to a model, or to what refers to one: a ``History``, an optimizer."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            names = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
            yield from (n.id for n in names if isinstance(n, ast.Name) and (n.id in models or _refers(node.value)))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield from [node.target.id] if node.target.id in models else []


def _refers(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    return called_name(value) == "fit" or _OPTIMIZER.search(ast.unparse(value.func)) is not None


def _read_elsewhere(cell: PythonCell, facts: Facts, rest: Sequence[ast.stmt]) -> set[str]:
    """Give the names that other code than ``rest`` may read while it runs, and names that functions share."""
    own = [n for s in rest for n in ast.walk(s)]
    known = {id(n) for n in own}
    trees = [cell.tree, *(tree for tree in map(parse, facts.earlier_cells) if tree is not None)]
    others = [n for tree in trees for n in ast.walk(tree) if id(n) not in known]
    shared = {name for n in others if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
    return _read_later(others) | shared | (set(facts.read_elsewhere) - _read_later(own))


def _read_later(nodes: Sequence[ast.AST]) -> set[str]:
    """Give the names that functions and generators among ``nodes`` read from outside of them."""
    found: set[str] = set()
    for code in (n for n in nodes if isinstance(n, _LATER)):
        loads = {n.id for n in ast.walk(code) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        found |= loads - _own_names(code)
    return found


def _own_names(code: ast.AST) -> set[str]:
    """Give the names that a function or generator binds itself."""
    arguments = {n.arg for n in ast.walk(code) if isinstance(n, ast.arg)}
    stored = {n.id for n in ast.walk(code) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    shared = {name for n in ast.walk(code) if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
    return (arguments | stored) - shared
