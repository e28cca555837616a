"""The one batch size that code uses by a name that says so."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.entries import key_of
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown, merge
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.scopes import Scopes, arguments
from tf_mem_magic.notebook.uses import called_name, is_batch_name


def of_names(reader: Reader, regions: Sequence[ast.stmt]) -> Setting | Unknown:
    """Read the one batch size that the regions use by a name that says so."""
    settings: list[Setting] = []
    used: list[ast.expr] = []
    for region in regions:
        for node in ast.walk(region):
            if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) or not isinstance(node.ctx, ast.Load):
                continue
            its = key_of(node)
            name = node.id if isinstance(node, ast.Name) else its[1] if its else ""
            if not is_batch_name(name) or reader.role(node) not in ("site", "coupled"):
                continue
            if isinstance(node, ast.Name) and (_holds_data(reader, node) or _counts_turns(reader, node)):
                continue
            if reader.covers(region) and _is_another_step(reader, node):
                continue
            one = resolve(reader, node)
            if isinstance(one, Unknown):
                return one
            settings.append(one)
            used.append(node)
    if not settings:
        return Unknown(_why_none(reader, regions))
    counting = _only_counted_by(reader, used)
    if counting:
        return Unknown(f"`{counting}` only counts here, and what makes the batches keeps its size")
    return merge(settings)


def _only_counted_by(reader: Reader, used: list[ast.expr]) -> str:
    """Name the batch size where the cell, and what it calls, only counts steps with it, or tells it."""
    first = used[0]
    if not isinstance(first, ast.Name) or any(not isinstance(n, ast.Name) or n.id != first.id for n in used):
        return ""
    scopes, facts = reader.scopes, reader.facts
    home = scopes.home(first)
    if not isinstance(home, ast.Module) or first.id in (*facts.used, *facts.read_elsewhere):
        return ""
    loads = scopes.loads.get((home, first.id), [])
    return first.id if loads and all(_counts(reader, scopes, load) for load in loads) else ""


def _counts(reader: Reader, scopes: Scopes, node: ast.expr, depth: int = 0) -> bool:
    """Tell whether a batch size only divides, is compared or is shown, also in the function that it is handed to."""
    above, below = scopes.parents.get(node), node
    while isinstance(above, ast.expr) and not isinstance(above, ast.Call):
        divides = isinstance(above, ast.BinOp) and isinstance(above.op, (ast.FloorDiv, ast.Div, ast.Mod))
        if (divides and below is above.right) or isinstance(above, (ast.Compare, ast.JoinedStr)):  # type: ignore[attr-defined]
            return True
        below, above = above, scopes.parents.get(above)
    if isinstance(above, ast.keyword):
        above = scopes.parents.get(above)
    if not isinstance(above, ast.Call) or below is not node or depth > _DEEPEST:
        return isinstance(above, ast.Call) and called_name(above) in ("print", "format")
    found = reader.notebook.function(called_name(above)) if isinstance(above.func, ast.Name) else None
    if found is None or not isinstance(found.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return called_name(above) in ("print", "format")
    given = (one.arg for one in arguments(found.node.args))
    name = next((one for one in given if calls.bind(above, found.node, one, skip=False) is node), "")
    its = found.cell.scopes.loads.get((found.node, name), [])
    return bool(name) and all(_counts(reader, found.cell.scopes, load, depth + 1) for load in its)


def _why_none(reader: Reader, regions: Sequence[ast.stmt]) -> str:
    """Say why there is none: data of an earlier cell may be all that the failing line hands on."""
    for call in (n for region in regions for n in ast.walk(region) if isinstance(n, ast.Call) and reader.covers(n)):
        for given in (*call.args, *(k.value for k in call.keywords)):
            plain = isinstance(given, ast.Name) and not reader.bindings(given)
            if plain and isinstance(given, ast.Name) and _MADE.search(given.id) and _is_made(reader, given.id):
                return f"`{given.id}` comes from an earlier cell, and how it is batched is not known"
    return "no batch size was found in the lines that led to the error"


def _is_made(reader: Reader, name: str) -> bool:
    """Tell whether the last earlier cell that sets a name makes something by a call for it."""
    for cell in reader.notebook.before.setting(name):
        found = cell.scopes.of(cell.tree, name)
        return bool(found) and all(isinstance(one.value, ast.Call) for one in found)
    return False


def _is_another_step(reader: Reader, node: ast.expr) -> bool:
    """Say whether a call that gives nothing back, and did not fail, is handed the batch size: ``learn(batch_size)``."""
    statement = reader.scopes.statement(node)
    return isinstance(statement, ast.Expr) and not reader.covers(statement) and isinstance(statement.value, ast.Call)


_MADE = re.compile(
    r"(?i)data|(?:^|_)ds(?:_|$|\d)|load|(?:^|_)gen(?:$|_)|_generator$|batches|(?:^|_)it(?:$|er)|pipeline|stream|queue"
)
"""Names of what gives batches."""

_DEEPEST = 4

_EITHER = ("batch", "b", "train_batch", "val_batch", "test_batch", "minibatch", "mini_batch")
"""Names that mean a batch of data as often as its size."""

_NUMBERS = ("int", "len", "min", "max", "round", "floor", "ceil", "abs", "float", "get", "getattr")


def _holds_data(reader: Reader, name: ast.Name) -> bool:
    """Say whether ``batch`` is a batch of data rather than a size: a loop's variable, or what a call draws."""
    if name.id.lower() not in _EITHER:
        return False
    found = reader.bindings(name)
    return any(b.kind == "loop" for b in found) or any(_is_data(b.value) for b in found if b.kind == "assign")


def _counts_turns(reader: Reader, name: ast.Name) -> bool:
    """Say whether ``batch`` is only read as a number of turns: ``for step in range(batch)``."""
    if name.id.lower() not in _EITHER:
        return False
    loads = reader.scopes.loads.get((reader.scopes.home(name), name.id), [])
    return all(_is_turns(reader.scopes.parents.get(load)) for load in loads)


def _is_turns(above: ast.AST | None) -> bool:
    return isinstance(above, ast.Call) and called_name(above) in ("range", "trange") and len(above.args) == 1


def _is_data(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return called_name(value) not in _NUMBERS
    drawn = isinstance(value, ast.Subscript) and isinstance(value.slice, (ast.Slice, ast.Call, ast.Tuple))
    return drawn or isinstance(value, (ast.ListComp, ast.List, ast.Tuple, ast.Dict, ast.GeneratorExp))
