"""What a turn of a loop hands on to the next one beside weights: a threshold that moves, a queue, a state."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import arguments, position
from tf_mem_magic.notebook.uses import called_name, is_tape

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_PLACES = (ast.Name, ast.Attribute, ast.Subscript)
_GROWS = frozenset("append appendleft extend update push enqueue update_state assign assign_add assign_sub".split())


@dataclass(frozen=True, slots=True)
class _Store:
    """A place that is set in a turn: as it is written, whose name that is, and by which statement."""

    text: str
    home: ast.AST | None
    statement: ast.stmt
    is_fresh: bool


def carried(
    reader: Reader, taken: ast.Call, site: ast.Call, loop: ast.For | ast.AsyncFor | ast.While, turn: Sequence[ast.AST]
) -> Iterator[str]:
    """Yield what is read under the tape of ``taken`` as an earlier turn has left it.

    ``site`` is what the ``loop`` calls for an update, or ``taken``'s own; ``turn`` is all that runs in a turn.
    """
    function = next((up for up in reader.scopes.up(taken) if isinstance(up, _FUNCTIONS)), None)
    inside = set(ast.walk(loop))
    within = None if function is None or taken in inside else function
    nodes = dict.fromkeys((*turn, *(ast.walk(within) if within is not None else ())))
    stores = list(_stores(reader, list(nodes)))
    names = {one.text for one in stores}
    for read in _read_under_tape(reader, taken):
        text = ast.unparse(read)
        home = _home(reader, read)
        if within is not None and home is within:
            given = _given(within, site, text) if isinstance(read, ast.Name) else None
            if not isinstance(given, ast.Name) or given.id not in names:
                continue
            read, text, home = given, given.id, _home(reader, given)
        same = [one for one in stores if one.text == text and one.home is home]
        if same and not any(one.is_fresh and _is_before(reader, one, read, site, inside) for one in same):
            yield text


def _stores(reader: Reader, nodes: Sequence[ast.AST]) -> Iterator[_Store]:
    """Yield what statements set: names, attributes, entries; a list that grows; fresh is what is not made of itself."""
    for node in nodes:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)) and node.value is not None:
            targets, value = [node.target], node.value
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            targets, value = [node.target], node.iter
        else:
            grown = _grown(node)
            if grown is not None:
                yield _Store(ast.unparse(grown), _home(reader, grown), reader.scopes.statement(grown), False)
            continue
        read = {ast.unparse(n) for n in ast.walk(value) if isinstance(n, _PLACES)}
        for target in (n for one in targets for n in ast.walk(one) if isinstance(n, _PLACES)):
            if isinstance(target.ctx, ast.Store):
                text = ast.unparse(target)
                fresh = text not in read and not isinstance(node, ast.AugAssign)
                yield _Store(text, _home(reader, target), node, fresh)


def _grown(node: ast.AST) -> ast.expr | None:
    """Give what a statement adds to: ``queue.append(x)``."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr not in _GROWS:
        return None
    return call.func.value if isinstance(call.func.value, _PLACES) else None


def _read_under_tape(reader: Reader, taken: ast.Call) -> Iterator[ast.Name | ast.Attribute | ast.Subscript]:
    """Yield what is read where the gradients are computed; what only picks an entry, or is told, is left out."""
    blocks = (n for n in ast.walk(reader.scopes.scope_of(taken)) if is_tape(n))
    for block in blocks:
        assert isinstance(block, (ast.With, ast.AsyncWith))
        todo: list[ast.AST] = [s for s in block.body if _grown(s) is None]
        while todo:
            node = todo.pop()
            if isinstance(node, _PLACES) and isinstance(node.ctx, ast.Load):
                yield node
            if isinstance(node, ast.Subscript):
                todo.append(node.value)
            elif not isinstance(node, ast.JoinedStr):
                todo += (n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.stmt) or _grown(n) is None)


def _home(reader: Reader, place: ast.AST) -> ast.AST | None:
    """Give the scope of the name that a place belongs to; that of ``self`` is the same in all methods."""
    while isinstance(place, (ast.Attribute, ast.Subscript)):
        place = place.value
    if not isinstance(place, ast.Name) or place.id == "self":
        return None
    return reader.scopes.home(place)


def _given(function: ast.FunctionDef | ast.AsyncFunctionDef, site: ast.Call, name: str) -> ast.expr | None:
    if called_name(site) != function.name:
        return None
    named = {k.arg: k.value for k in site.keywords if k.arg}
    return {**dict(zip((one.arg for one in arguments(function.args)), site.args)), **named}.get(name)


def _is_before(reader: Reader, store: _Store, read: ast.AST, site: ast.Call, turn: set[ast.AST]) -> bool:
    """Tell whether a ``turn`` sets something anew before it reads it."""
    if store.statement in turn:
        at = reader.scopes.statement(read if read in turn else site)
    elif reader.scopes.scope_of(store.statement) is reader.scopes.scope_of(read):
        at = reader.scopes.statement(read)
    else:
        return False
    if isinstance(store.statement, (ast.For, ast.AsyncFor)):
        return at in ast.walk(store.statement)
    return position(store.statement) < position(at)
