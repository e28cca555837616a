"""What a loop goes through, behind ``enumerate``, progress bars, and names that hold them."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.uses import called_name

BARS = frozenset("tqdm tqdm_notebook track alive_it progressbar progress_bar".split())
"""Functions of libraries that show how far a loop is, and hand on what they are given first."""
_PASSED = frozenset("enumerate iter list tuple as_numpy".split()) | BARS
_HELD = frozenset("enumerate zip islice range trange".split()) | BARS
_DEEPEST = 10
_MOST_BINDINGS = 40
"""Names that are set more often are not followed."""


def hands_on(reader: Reader, source: ast.expr) -> bool:
    """Tell whether a call gives one by one what it is given first: a function of the notebook is none of these."""
    if not isinstance(source, ast.Call) or called_name(source) not in _PASSED or not source.args:
        return False
    return not isinstance(source.func, ast.Name) or reader.notebook.function(source.func.id) is None


def held_by(scopes: Scopes, source: ast.expr) -> ast.Call | None:
    """Give the call behind a name that only holds what a loop goes through, also one of ``with … as name``."""
    if not isinstance(source, ast.Name) or source not in scopes.parents:
        return None
    found = scopes.of(scopes.home(source), source.id)
    around = next((up for up in scopes.up(source) if _opened_as(up, source.id) is not None), None)
    if around is not None and not any(b.node is not around and around in scopes.up(b.node) for b in found):
        value = _opened_as(around, source.id)
    else:
        chosen = scopes.reaching(source, found) if len(found) <= _MOST_BINDINGS else None
        value = None if chosen is None else chosen.value
    return value if isinstance(value, ast.Call) and called_name(value) in _HELD else None


def _opened_as(node: ast.AST, name: str) -> ast.expr | None:
    """Give what a ``with`` statement opens under a name."""
    items = node.items if isinstance(node, (ast.With, ast.AsyncWith)) else []
    return next((item.context_expr for item in items if _is_named(item.optional_vars, name)), None)


def _is_named(target: ast.expr | None, name: str) -> bool:
    return isinstance(target, ast.Name) and target.id == name


def gone_through(reader: Reader, source: ast.expr) -> ast.expr:
    """Give what a loop goes through; a call of ``trange`` or ``range`` as it is."""
    for _ in range(_DEEPEST):
        inner = held_by(reader.scopes, source)
        if inner is None and (hands_on(reader, source) or _is_cut(source)):
            inner = source.args[0]  # type: ignore[attr-defined]
        if inner is None:
            return source
        source = inner
    return source


def _is_cut(source: ast.expr) -> bool:
    return isinstance(source, ast.Call) and called_name(source) == "islice" and bool(source.args)
