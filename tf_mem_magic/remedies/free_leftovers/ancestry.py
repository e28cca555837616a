"""Which names' values went into the values of others, told from the cells that ran: what must be kept with them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tf_mem_magic.notebook.earlier import earlier_cells
from tf_mem_magic.notebook.text.cell import PythonCell

_FRESH = frozenset(
    {"predict", "predict_on_batch", "evaluate", "train_on_batch", "test_on_batch", "numpy", "get_weights"}
    | {"count_params", "item", "tolist", "summary", "save", "save_weights", "load_weights", "set_weights"}
)
"""Methods whose result holds on to nothing, and which leave nothing of their arguments in their object."""


def needed_by(used: Iterable[str], names: Iterable[str], before_this: Iterable[str]) -> frozenset[str]:
    """Give those of ``names`` that are used, or whose values may be a part of those of ``used``.

    A name's value may hold whatever stands in a statement that binds the name, in what is put into its attributes,
    entries or methods (``models.append(old)``). One name too many does no harm: it only ever counts as in use. It is
    followed from ``names`` on, of which there are few: only cells that name what may hold them are read.
    """
    before, used = earlier_cells(tuple(before_this)), frozenset(used)
    holds: dict[str, set[str]] = {}
    ahead, seen = list(names), set[str]()
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in used:
            for cell in before.with_word(name):
                for holder in cell.once(_holders).get(name, ()):
                    holds.setdefault(holder, set()).add(name)
                    ahead.append(holder)
    found: set[str] = set()
    ahead = [name for name in seen if name in used]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += holds.get(name, ())
    return frozenset(found)


def _holders(cell: PythonCell) -> dict[str, set[str]]:
    """Give for each word of a cell the names into which the cell may put its value."""
    holders: dict[str, set[str]] = {}
    for statement in cell.tree.body:
        for name, words in _put_into(statement):
            for word in words:
                holders.setdefault(word, set()).add(name)
    return holders


def _put_into(statement: ast.stmt) -> Iterator[tuple[str, set[str]]]:
    """Yield names and the words whose values a statement of a cell may put into them."""
    if isinstance(statement, (ast.If, ast.With, ast.AsyncWith, ast.Try)):
        heads = [item for item in ast.iter_child_nodes(statement) if not isinstance(item, ast.stmt)]
        words = {word for head in heads for word in _words(head)}
        yield from ((name, words) for head in heads for name in _stored(head))
        for child in ast.iter_child_nodes(statement):
            inner = child.body if isinstance(child, ast.ExceptHandler) else [child]
            for one in inner:
                if isinstance(one, ast.stmt):
                    yield from _put_into(one)
        return
    if not isinstance(statement, (ast.Import, ast.ImportFrom)):
        words = set(_words(statement))
        yield from ((name, words) for name in _stored(statement))
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            root = _root(node.func)
            if root and root != "apply" and node.func.attr not in _FRESH and node.func.attr != "fit":
                given = [*node.args, *(k.value for k in node.keywords)]
                yield root, {word for one in given for word in _words(one)}


def _stored(node: ast.AST) -> Iterator[str]:
    """Yield the names that get something: by assignment, also to an attribute or entry, by ``def`` or ``global``."""
    of_comprehension = {id(n) for c in ast.walk(node) if isinstance(c, ast.comprehension) for n in ast.walk(c.target)}
    for inner in ast.walk(node):
        if id(inner) in of_comprehension:
            continue
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield inner.name
        elif isinstance(inner, ast.Global):
            yield from inner.names
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id
        elif isinstance(inner, (ast.Attribute, ast.Subscript)) and isinstance(inner.ctx, ast.Store):
            yield from filter(None, [_root(inner)])


def _words(node: ast.AST) -> Iterator[str]:
    """Yield the names that an expression or statement reads; what only computes something new is left out."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _FRESH:
            return
        if node.func.attr == "fit":
            yield from _words(node.func)
            return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from (word for word in [node.value] if word.isidentifier())
    for child in ast.iter_child_nodes(node):
        yield from _words(child)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
