"""Numbers of batches that are handed on beside their size: ``batches(x, batch_size=64, max_batches=2500)``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.steps import follows
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.scopes import arguments
from tf_mem_magic.notebook.uses import KERAS, called_name

_COUNT = r"(?:max|num|n|nb|no|total|limit|train|training|epoch)_?"
_BATCHES = re.compile(
    rf"^(?:{_COUNT})*(?:mini_?)?batches(?:_limit)?(?:_?(?:per|in|each)_?epoch)?$|^(?:batch|batches)_(?:limit|count)$"
)
"""Names of a number of batches."""

_PER_EPOCH = re.compile(
    r"^(?:steps|iterations|iters|updates)_?(?:per|in|each)_?epoch$|^epoch_(?:steps|iterations|iters)$"
)
_STEPS = re.compile(rf"^(?:max|total|train|training)_(?:{_COUNT})*(?:steps|iterations|iters|iter|updates)$")
"""Names of a number of updates; ``num_steps`` alone may be that of the steps in a sequence."""

_LIMITS = ("range", "trange", "islice", "take", "min", "int")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def with_caps(reader: Reader, found: BatchFound) -> BatchFound | Unknown:
    """Let a number of batches that is handed on beside their size cover as many samples as before.

    It grows where the notebook's own code is seen to take no more than so many; where that is not seen, it stays, and
    ``capped`` says so.
    """
    setting = Setting(found.value, (*found.slots, *found.validation), found.names)
    slots, capped = list[Slot](), ""
    for call, name, given in () if found.per_replica or found.same_steps else _caps(reader, setting):
        start, end = reader.cell.start(given), reader.cell.end(given)
        number = evaluate(reader, given)
        owner = _owner(reader, call)
        is_limit = owner is not None and _only_limits(owner, name)
        if is_limit and _grows_inside(reader, owner, found):
            continue
        if is_limit and not _STEPS.match(name) and isinstance(number, int):
            slots.append(Slot(found.value, start, end, counts=reader.cell.text(given)))
        else:
            capped = capped or f"`{name}={reader.written(given)}` of `{reader.written(call.func)}`"
    if capped and any(one.name == "steps_per_epoch" and not one.whole for one in found.steps):
        return Unknown(
            f"{capped} may count batches, as `steps_per_epoch` does, and would stay: an epoch would end early"
        )
    return replace(found, slots=tuple(dict.fromkeys((*found.slots, *slots))), capped=capped)


def _caps(reader: Reader, setting: Setting) -> Iterator[tuple[ast.Call, str, ast.expr]]:
    """Yield the calls that are handed the batch size, and a number of batches that does not follow it."""
    for call in reader.cell.calls:
        if called_name(call) in KERAS:
            continue
        named = [(name, one) for name, one in _handed(reader, call) if _is_cap(name) and not _is_none(one)]
        if not named:
            continue
        given = [*call.args, *(k.value for k in call.keywords)]
        if any(follows(reader, one, setting) for one in given):
            yield from ((call, name, one) for name, one in named if not follows(reader, one, setting))


def _is_cap(name: str) -> bool:
    return any(pattern.match(name.lower()) for pattern in (_BATCHES, _PER_EPOCH, _STEPS))


def _is_none(expr: ast.expr) -> bool:
    """Tell what is no number: ``None``, ``True``, a text; below 0 means all."""
    if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.USub):
        return True
    return isinstance(expr, ast.Constant) and type(expr.value) is not int


def _handed(reader: Reader, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a call hands on, by the names that it has there, as far as these are known."""
    yield from ((k.arg, k.value) for k in call.keywords if k.arg)
    function = _owner(reader, call)
    made = calls.constructor(function) if isinstance(function, ast.ClassDef) else function
    if isinstance(made, _FUNCTIONS) and not any(isinstance(one, ast.Starred) for one in call.args):
        plain = [*made.args.posonlyargs, *made.args.args][isinstance(function, ast.ClassDef) :]
        yield from ((one.arg, given) for one, given in zip(plain, call.args))


def _owner(reader: Reader, call: ast.Call) -> ast.AST | None:
    """Give the function or class of the notebook that a plain name calls."""
    found = reader.notebook.function(call.func.id) if isinstance(call.func, ast.Name) else None
    return None if found is None else found.node


def _only_limits(owner: ast.AST, name: str) -> bool:
    """Tell whether a parameter only says after how many batches something ends: ``range(n)``, ``if i >= n: break``."""
    made = calls.constructor(owner) if isinstance(owner, ast.ClassDef) else owner
    if not isinstance(made, _FUNCTIONS) or name not in {one.arg for one in arguments(made.args)}:
        return False
    parents = {child: node for node in ast.walk(owner) for child in ast.iter_child_nodes(node)}
    reads = [n for n in ast.walk(made) if isinstance(n, ast.Name) and n.id == name]
    kept = {_kept_as(parents.get(one)) for one in reads} - {""}
    reads = [one for one in reads if not _kept_as(parents.get(one))]
    held = [
        n for n in ast.walk(owner) if isinstance(n, ast.Attribute) and n.attr in kept and isinstance(n.ctx, ast.Load)
    ]
    roles = [_role(parents, one) for one in (*reads, *held)]
    return "limit" in roles and "other" not in roles


def _kept_as(statement: ast.AST | None) -> str:
    """Name the attribute in which ``self.steps = steps`` keeps a parameter."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
    return target.attr if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" else ""


def _role(parents: dict[ast.AST, ast.AST], read: ast.AST) -> str:
    """Tell whether a number limits turns, is only asked whether it is there, or does something else."""
    above = parents.get(read)
    if isinstance(above, ast.Compare):
        asked = any(isinstance(op, (ast.Is, ast.IsNot)) for op in above.ops)
        return "asked" if asked else "limit"
    if isinstance(above, (ast.BoolOp, ast.If)) or (isinstance(above, ast.UnaryOp) and isinstance(above.op, ast.Not)):
        return "asked"
    if isinstance(above, ast.Call) and called_name(above) in _LIMITS and read in above.args:
        return "limit" if called_name(above) not in ("min", "int") else _role(parents, above)
    if isinstance(above, ast.Return):
        function = parents.get(above)
        return "limit" if isinstance(function, ast.FunctionDef) and function.name == "__len__" else "other"
    return "other"


def _grows_inside(reader: Reader, owner: ast.AST | None, found: BatchFound) -> bool:
    """Tell whether the edit makes numbers of batches grow in the function itself, which stands in the cell."""
    if owner is None or owner not in reader.cell.tree.body:
        return False
    first, last = reader.cell.start(owner), reader.cell.end(owner)
    return any(slot.counts and first <= slot.start < last for slot in found.slots)
