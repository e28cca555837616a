"""Numbers of steps that must grow as the batch shrinks: ``steps_per_epoch`` and ``validation_steps``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.entries import dict_value
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import CellEdit
from tf_mem_magic.notebook.uses import FITS, ORDER, called_name

STEPS = ("steps_per_epoch", "validation_steps")
"""The arguments of ``fit`` that count steps."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A number of steps that must grow as the batch shrinks.

    Attributes
    ----------
    name : str
        The argument.
    expr : ast.expr
        What is given for it.
    value : int or None
        Its value, where that is known.
    whole : bool
        They are exactly one pass over the data, which is what Keras does where none are given.
    samples : int or None
        They are one pass over so many samples.
    stays : bool
        The value is not known, but is surely the same after the edit: it may be multiplied.
    of_validation : bool
        They are taken from data of the size that the validation has.
    endless : bool
        The data may not end by themselves, so that a step too many gets samples of a further pass.
    """

    name: str
    expr: ast.expr
    value: int | None
    whole: bool = False
    samples: int | None = None
    stays: bool = False
    endless: bool = False
    of_validation: bool = False


def scale(cell: PythonCell, steps: Steps, old: int, new: int, edits: list[CellEdit]) -> str:
    """Add the edit that keeps ``steps`` covering the same samples; return the sentence that says so.

    Raises
    ------
    RefusedError
        If an epoch would no longer see the samples that it saw.
    """
    if steps.whole:
        edits.append(CellEdit(cell.start(steps.expr), cell.end(steps.expr), "None"))
        return f"`{steps.name}` becomes None: one pass over the data, as before."
    factor, remainder = divmod(old, new)
    if factor == 1 and not remainder:
        return ""
    start, end = cell.start(steps.expr), cell.end(steps.expr)
    plain = isinstance(steps.expr, (ast.Name, ast.Call, ast.Attribute, ast.Subscript))
    if steps.value is None and steps.stays and remainder and steps.name == "validation_steps":
        before, after = ("-(-", "") if plain else ("-(-(", ")")
        edits += [CellEdit(start, start, before), CellEdit(end, end, f"{after} * {old} // {new})")]
        return f"`validation_steps` becomes {old} / {new} times as many, so that it covers as many samples as before."
    if steps.value is None and steps.stays and not remainder:
        edits += [CellEdit(start, start, f"{factor} * {'' if plain else '('}")]
        edits += [] if plain else [CellEdit(end, end, ")")]
        return (
            f"`{steps.name}` becomes {factor} times as many, so that it covers as many samples as before.{_more(steps)}"
        )
    if steps.value is None:
        where = f"in {cell.told(steps.expr)} "
        if steps.name == "validation_steps":
            return f"`validation_steps` {where}cannot be followed: check that it still covers your data."
        raise RefusedError(
            f"`{steps.name}` {where}cannot be followed, and has to grow as the batch shrinks: an epoch would no longer "
            "see all samples"
        )
    if steps.samples is None and remainder and steps.name != "validation_steps" and not steps.of_validation:
        raise RefusedError(f"`{steps.name}` is {steps.value}, and no whole number of batches of {new} takes its place")
    count = -(-steps.value * old // new) if steps.samples is None else -(-steps.samples // new)
    if not any(edit.start < end and start < edit.end for edit in edits):
        edits.append(CellEdit(start, end, str(count)))
    return f"`{steps.name}` becomes {count}, so that it covers as many samples as before.{_more(steps)}"


def _more(steps: Steps) -> str:
    """Say where results may be more: a last batch that was not full may make one small batch, not two."""
    if steps.name != "steps" or not steps.endless or steps.samples is not None:
        return ""
    return (
        " Where the last batch was not full, samples of a further pass may follow: look at how many results there are."
    )


def find_steps(
    reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting, validation: Setting | None = None
) -> tuple[Steps, ...]:
    """Find the numbers of steps that do not follow the batch size by themselves.

    ``validation`` is where the batch size of the validation data is set; None: they have none of their own.
    """
    found = []
    data = first_argument(call, extra)
    changed = setting.names | (validation.names if validation else frozenset())
    for name in STEPS if called_name(call) in FITS else ("steps",):
        expr = argument(call, extra, name, None)
        if expr is None or (isinstance(expr, ast.Constant) and expr.value is None):
            continue
        counted = _counted(reader, expr, setting)
        if counted is not None:
            found.append(_one_pass(reader, name, expr, counted, data))
        elif not follows(reader, expr, setting):
            if name == "validation_steps" and validation is not None and follows(reader, expr, validation):
                continue
            value = evaluate(reader, expr)
            if value is None and isinstance(expr, (ast.Attribute, ast.Subscript)):
                value = reader.scalar(reader.cell.text(expr))
            whole = int(value) if value is not None and value == int(value) else None
            stays = whole is None and surely_stays(reader, expr, changed)
            found.append(Steps(name, expr, whole, stays=stays, endless=not _ends(reader, data)))
    return tuple(found)


def _ends(reader: Reader, data: ast.expr | None) -> bool:
    """Tell whether data are known to end by themselves, whatever number of steps is asked for."""
    known = reader.facts.dataset(data.id) if isinstance(data, ast.Name) else None
    return known is not None and (known.kind == "PyDataset" or known.cardinality is not None)


def _one_pass(reader: Reader, name: str, expr: ast.expr, counted: str, data: ast.expr | None) -> Steps:
    """Describe steps that are the length of a dataset of an earlier cell: left out only where it ends by itself."""
    known = reader.facts.dataset(counted)
    assert known is not None
    ends = isinstance(data, ast.Name) and data.id == counted
    return Steps(name, expr, known.cardinality if known.samples else None, whole=ends, samples=known.samples)


def _counted(reader: Reader, expr: ast.expr, setting: Setting) -> str | None:
    """Name the finite dataset that the edit splits again and whose batches ``expr`` counts: ``len(train_ds)``."""
    while isinstance(expr, ast.Call) and called_name(expr) in ("int", "numpy") and not expr.keywords:
        if called_name(expr) == "numpy" and isinstance(expr.func, ast.Attribute):
            expr = expr.func.value
        elif len(expr.args) == 1:
            expr = expr.args[0]
        else:
            return None
    if not isinstance(expr, ast.Call) or called_name(expr) not in ("len", "cardinality"):
        return None
    method = called_name(expr) == "cardinality" and not expr.args and isinstance(expr.func, ast.Attribute)
    given = expr.func.value if method and isinstance(expr.func, ast.Attribute) else expr.args[0] if expr.args else None
    known = reader.facts.dataset(given.id) if isinstance(given, ast.Name) else None
    if known is None or known.name not in setting.datasets or known.cardinality is None:
        return None
    return known.name


def find_divisors(
    reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting, given: ast.expr | None = None
) -> tuple[Slot, ...]:
    """Find the batch size that divides the samples in ``steps_per_epoch=n // 64``, where it is not set already.

    It may stand there as a number, as a name of an earlier cell, or, where the steps have a name, in what that is set
    to. ``given`` is the expression that is the batch size and is replaced at the call only.
    """
    expr = argument(call, extra, "steps_per_epoch" if called_name(call) in FITS else "steps", None)
    found = []
    for divisor in divisors(reader, expr) if expr is not None else ():
        if reader.written(divisor) in setting.names:
            continue
        same = given is not None and reader.written(divisor) == reader.written(given)
        value = divisor.value if isinstance(divisor, ast.Constant) else _number(reader, divisor)
        if same or value == setting.value:
            found.append(reader.slot(divisor, setting.value))
    return tuple(found)


def divisors(reader: Reader, expr: ast.expr) -> Iterator[ast.expr]:
    """Yield what data are divided by, also where the steps have a name that the cell sets once."""
    seen: set[ast.expr] = set()
    queue = [expr]
    while queue and len(seen) < 20:
        one = queue.pop(0)
        if one in seen:
            continue
        seen.add(one)
        for node in ast.walk(one):
            if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.FloorDiv, ast.Div)):
                known = evaluate(reader, node.left) is None or not isinstance(node.right, ast.Constant)
                if known:
                    yield node.right
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                chosen = reader.reaching(node)
                if chosen is not None and chosen.value is not None:
                    queue.append(chosen.value)


def _number(reader: Reader, expr: ast.expr) -> int | None:
    found = resolve(reader, expr)
    if isinstance(found, Setting):
        return None if found.per_replica else found.value
    value = evaluate(reader, expr)
    return value if isinstance(value, int) else reader.scalar(reader.cell.text(expr))


def follows(reader: Reader, expr: ast.expr, setting: Setting) -> bool:
    """Tell whether ``expr`` is computed from the batch size that is edited, or from the data themselves."""
    key = (setting.names, setting.slots)
    return bool(reader.once("follows", expr, key, lambda: _is_following(reader, expr, setting)))


def _is_following(reader: Reader, expr: ast.expr, setting: Setting) -> bool:
    slots = {(s.start, s.end) for s in setting.slots if not s.before}
    for node in _beside_samples(expr):
        plain = isinstance(node, (ast.Name, ast.Attribute, ast.Subscript))
        if plain and reader.written(node) in setting.names:
            return True
        if isinstance(node, ast.expr) and (reader.cell.start(node), reader.cell.end(node)) in slots:
            return True
        if isinstance(node, ast.Attribute) and node.attr == "batch_size" and _is_set(reader, node.value, setting):
            return True
        counts = isinstance(node, ast.Call) and called_name(node) == "len" and bool(node.args)
        if counts and _is_set(reader, node.args[0], setting):  # type: ignore[attr-defined]
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            chosen = reader.reaching(node)
            if chosen is not None and chosen.value is not None and follows(reader, chosen.value, setting):
                return True
            given = calls.argument_exprs(reader, chosen) if chosen is not None and chosen.kind == "param" else []
            if given and not isinstance(given, Unknown) and all(follows(reader, one, setting) for one in given):
                return True
    return False


def _beside_samples(expr: ast.expr) -> Iterator[ast.AST]:
    """Walk an expression without the data whose samples it counts: ``valid.samples`` is the same for all batches."""
    yield expr
    if isinstance(expr, ast.Attribute) and expr.attr in _OF_SAMPLES - {"shape"}:
        return
    for child in ast.iter_child_nodes(expr):
        yield from _beside_samples(child)  # type: ignore[arg-type]


_ARITHMETIC = frozenset({"int", "round", "len", "min", "max", "ceil", "floor", "float", "abs", "sum"})
_MODULES = frozenset({"math", "np", "numpy"})
_OF_SAMPLES = frozenset({"n", "samples", "shape", "num_examples", "filenames", "labels", "classes"})
"""What data tell of their samples, whatever their batches."""


def surely_stays(reader: Reader, expr: ast.expr, changed: frozenset[str]) -> bool:
    """Tell whether ``expr`` surely has the same value after the edit, which sets the names ``changed``.

    It is made of numbers, of names that earlier cells set, and of arithmetic of these; what belongs to an object that
    the edit changes may follow it.
    """
    return bool(reader.once("stays", expr, changed, lambda: _is_staying(reader, expr, changed)))


def _is_staying(reader: Reader, expr: ast.expr, changed: frozenset[str]) -> bool:
    if isinstance(expr, ast.Constant):
        return True
    if isinstance(expr, ast.Name):
        if any(name == expr.id or name.startswith((f"{expr.id}.", f"{expr.id}[")) for name in changed):
            return False
        if not reader.bindings(expr):
            return True
        chosen = reader.reaching(expr)
        sure = chosen is not None and chosen.kind == "assign" and chosen.value is not None
        return sure and surely_stays(reader, chosen.value, changed)  # type: ignore[union-attr, arg-type]
    if isinstance(expr, ast.Attribute) and expr.attr in _OF_SAMPLES and isinstance(expr.value, ast.Name):
        return True
    if isinstance(expr, (ast.Attribute, ast.Subscript)):
        index = expr.slice if isinstance(expr, ast.Subscript) else None
        return (index is None or isinstance(index, ast.Constant)) and surely_stays(reader, expr.value, changed)
    if isinstance(expr, ast.BinOp):
        return surely_stays(reader, expr.left, changed) and surely_stays(reader, expr.right, changed)
    if isinstance(expr, ast.Call) and called_name(expr) == "len" and len(expr.args) == 1 and _is_split(reader, expr):
        return True
    if isinstance(expr, ast.Call) and called_name(expr) in _ARITHMETIC and not expr.keywords:
        owner = expr.func.value if isinstance(expr.func, ast.Attribute) else None
        plain = owner is None or (isinstance(owner, ast.Name) and owner.id in _MODULES)
        return plain and all(surely_stays(reader, given, changed) for given in expr.args)
    return False


def _is_split(reader: Reader, call: ast.Call) -> bool:
    """Tell whether samples are counted that the cell has from ``train_test_split``: as many whatever their batches."""
    found = reader.bindings(call.args[0]) if isinstance(call.args[0], ast.Name) else []
    statement = reader.scopes.statement(found[0].node) if len(found) == 1 else None
    value = statement.value if isinstance(statement, ast.Assign) else None
    return isinstance(value, ast.Call) and called_name(value) == "train_test_split"


def _is_set(reader: Reader, data: ast.expr, setting: Setting) -> bool:
    """Tell whether ``data`` are those whose batches the edit makes smaller, where they are made."""
    traced = trace(reader, data)
    same = isinstance(traced, Setting) and bool(traced.slots) and set(traced.slots) <= set(setting.slots)
    return same and not setting.datasets


def argument(call: ast.Call, extra: ast.expr | None, name: str, index: int | None) -> ast.expr | None:
    """Return an argument of ``call``: by keyword, by position, or from the dict behind ``**``.

    ``index`` is the position; None: as Keras's own method has it.
    """
    found = next((k.value for k in call.keywords if k.arg == name), None)
    order = ORDER.get(called_name(call), ())
    if index is None and name in order:
        index = order.index(name)
    if found is None and index is not None and index < len(call.args):
        found = call.args[index]
    return found if found is not None or extra is None else dict_value(extra, name)


def first_argument(call: ast.Call, extra: ast.expr | None) -> ast.expr | None:
    """Return the data that a call of Keras computes on; Keras's older methods call them ``generator``."""
    found = argument(call, extra, "x", 0)
    return found if found is not None else argument(call, extra, "generator", None)
