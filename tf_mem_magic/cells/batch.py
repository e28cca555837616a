"""Find where the batch size that feeds the failing line is set, and set it to another value."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace

from tf_mem_magic.cells import calls as calls_of
from tf_mem_magic.cells import loops
from tf_mem_magic.cells.containers import dict_value, mutated
from tf_mem_magic.cells.datasets import IMPORT, Arrays, Traced, default_argument, trace
from tf_mem_magic.cells.mask import NotPython
from tf_mem_magic.cells.settings import Reader, Setting, Slot, Unknown, evaluate, resolve
from tf_mem_magic.cells.source import CellEdit, PythonCell, apply_edits, insert_line
from tf_mem_magic.cells.uses import KERAS, called_name
from tf_mem_magic.core.facts import Facts

KERAS_DEFAULT = 32
"""The batch size of Keras's fit, evaluate and predict on arrays where none is given (keras Trainer documentation)."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A number of steps that must grow as the batch shrinks: the expression, and its value where it is a constant.

    ``whole``: they are exactly one pass over the data, which is what Keras does where none are given.
    """

    name: str
    expr: ast.expr
    value: int | None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class BatchFound:
    """The batch size that feeds the failing line: its value and all that must change with it.

    ``method`` is the Keras method that trains, or ``"loop"``; ``call`` that method's call; ``receiver`` the name of
    the model; ``seen`` what Keras was observed to use; ``validation`` the slots of the validation data.
    """

    cell: PythonCell
    value: int
    slots: tuple[Slot, ...]
    method: str = "loop"
    call: ast.Call | None = None
    receiver: str | None = None
    seen: int | None = None
    per_replica: bool = False
    validation: tuple[Slot, ...] = ()
    steps: tuple[Steps, ...] = ()
    names: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def find_batch(cell: PythonCell, facts: Facts, lines: frozenset[int]) -> BatchFound | Unknown:
    """Find the batch size behind ``lines``, the cell's lines that led to the error; empty where they are unknown."""
    reader = Reader(cell, facts, lines)
    if any(isinstance(n, ast.Call) and called_name(n) in ("globals", "exec") for n in ast.walk(cell.tree)):
        return Unknown("the cell uses `globals()` or `exec`, so its names cannot be followed")
    consumers = _keras_calls(reader)
    if isinstance(consumers, Unknown):
        return consumers
    fixed = _fixed_model(reader)
    if consumers:
        found = [_keras(reader, call) for call in consumers]
        refused = next((f for f in found if isinstance(f, Unknown)), None)
        whole = [f for f in found if isinstance(f, BatchFound)]
        if refused is not None:
            return refused
        if len({(f.value, f.slots) for f in whole}) > 1:
            return Unknown("the cell trains more than once, and the error does not say which call failed")
        return _checked(whole[0], whole[0].names, fixed)
    setting = loops.find(reader)
    if isinstance(setting, Unknown):
        return setting
    looped = BatchFound(cell, setting.value, setting.slots, per_replica=setting.per_replica, notes=setting.notes)
    return _checked(looped, setting.names, fixed)


_FIXED = re.compile(
    r"batch_input_shape\s*=|batch_shape\s*=\s*[(\[](?!\s*None)|stateful\s*=\s*True|Input(?:Layer)?\([^)]*batch_size"
)


def _fixed_model(reader: Reader) -> tuple[str, ast.expr | None] | None:
    """Find where a model is built for one batch size only: the reason, and the size where the cell says it."""
    for node in ast.walk(reader.cell.tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg: k.value for k in node.keywords}
        shape = keywords.get("batch_input_shape", keywords.get("batch_shape"))
        size = shape.elts[0] if isinstance(shape, (ast.Tuple, ast.List)) and shape.elts else shape
        if called_name(node) in ("Input", "InputLayer") and "batch_size" in keywords:
            size = keywords["batch_size"]
        if size is not None and not (isinstance(size, ast.Constant) and size.value is None):
            return f"the model is built for one batch size only (line {node.lineno})", size
    if any(_FIXED.search(text) for text in reader.facts.earlier_cells):
        return "an earlier cell builds a model for one batch size only", None
    return None


def _checked(
    found: BatchFound, names: frozenset[str], fixed: tuple[str, ast.expr | None] | None
) -> BatchFound | Unknown:
    if fixed is None or (fixed[1] is not None and ast.unparse(fixed[1]) in names):
        return found
    return Unknown(fixed[0])


def set_batch(found: BatchFound, batch: int) -> tuple[str, tuple[str, ...]] | Unknown:
    """Give the cell with the batch size set to ``batch``, and the sentences that go with it."""
    cell = found.cell
    edits = [slot.edit(batch) for slot in found.slots]
    edits += [slot.edit(min(slot.value, batch)) for slot in found.validation]
    notes = [note for note in found.notes if note != IMPORT]
    if IMPORT in found.notes:
        edits.append(insert_line(cell, _first_statement(cell), IMPORT))
    for steps in found.steps:
        note = _scale(cell, steps, found.value, batch, edits)
        if note:
            notes.append(note)
    changed = apply_edits(cell, edits)
    if isinstance(changed, NotPython):
        return Unknown(changed.reason)
    if changed == cell.source:
        return Unknown("the change would leave the cell as it is")
    return changed, tuple(dict.fromkeys(notes))


def _first_statement(cell: PythonCell) -> ast.stmt:
    body = cell.tree.body
    rest = [
        s
        for i, s in enumerate(body)
        if not (isinstance(s, ast.ImportFrom) and s.module == "__future__")
        and not (i == 0 and isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        and s.lineno not in cell.hidden
    ]
    return (rest or body)[0]


def _scale(cell: PythonCell, steps: Steps, old: int, new: int, edits: list[CellEdit]) -> str:
    if steps.whole:
        edits.append(CellEdit(cell.start(steps.expr), cell.end(steps.expr), "None"))
        return f"`{steps.name}` becomes None: one pass over the data, as before."
    factor, remainder = divmod(old, new)
    if steps.value is None or remainder:
        return f"`{steps.name}` is set in the cell: check that it still covers your data, each step is smaller now."
    start, end = cell.start(steps.expr), cell.end(steps.expr)
    if not any(edit.start < end and start < edit.end for edit in edits):
        edits.append(CellEdit(start, end, str(steps.value * factor)))
    return f"`{steps.name}` becomes {steps.value * factor}, so that it covers as many samples as before."


def _keras_calls(reader: Reader) -> list[ast.Call] | Unknown:
    """List the Keras calls that may have failed: those on the failing lines, else every ``fit``."""
    calls = [
        n
        for n in ast.walk(reader.cell.tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in KERAS
    ]
    all_calls = [c for c in calls if called_name(c) == "fit"]
    if reader.lines:
        calls = [c for c in calls if reader.covers(c)]
        calls = [c for c in calls if not any(c is not o and c in set(ast.walk(o)) for o in calls)]
        in_function = [c for c in calls if not isinstance(reader.scopes.scope_of(c), ast.Module)]
        calls = in_function or calls or _trained_by_fit(reader, all_calls)
    else:
        calls = [c for c in calls if called_name(c) == "fit"]
    calls = [c for c in calls if not _is_own_method(reader, c)]
    keras = [c for c in calls if not _is_other(reader, c)]
    if calls and not keras:
        return Unknown(f"`{ast.unparse(calls[0].func)}` is no Keras model's method")
    return keras


def _trained_by_fit(reader: Reader, fits: list[ast.Call]) -> list[ast.Call]:
    """Give the calls of ``fit`` that must have led to a line in a model's own method, a loss or a callback."""
    for statement in reader.cell.tree.body:
        if reader.covers(statement) and isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            uses = reader.scopes.loads.get((reader.cell.tree, statement.name), [])
            parents = [(use, reader.scopes.parents[use]) for use in uses]
            called = [p for use, p in parents if isinstance(p, ast.Call) and p.func is use]
            if isinstance(statement, ast.ClassDef) or not called:
                return [f for f in fits if not _is_own_method(reader, f)]
    return []


def _is_own_method(reader: Reader, call: ast.Call) -> bool:
    """Say whether the call is of a method that a class of the cell defines itself."""
    receiver = call.func.value  # type: ignore[attr-defined]
    chosen = None
    if isinstance(receiver, ast.Name):
        chosen = reader.scopes.reaching(receiver, reader.bindings(receiver))
    made = chosen.value if chosen is not None else receiver
    cls = calls_of.defined(reader, made.func) if isinstance(made, ast.Call) else None
    if isinstance(receiver, ast.Name) and receiver.id == "self":
        cls = next((n for n in reader.scopes.up(call) if isinstance(n, ast.ClassDef)), None)
    return isinstance(cls, ast.ClassDef) and any(
        isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.name == called_name(call) for n in cls.body
    )


def _is_other(reader: Reader, call: ast.Call) -> bool:
    """Say whether the call's receiver is surely no Keras model (a scaler, a scikit-learn estimator)."""
    receiver = call.func.value  # type: ignore[attr-defined]
    if not isinstance(receiver, ast.Name):
        return False
    if reader.facts.model(receiver.id) is not None:
        return False
    chosen = reader.scopes.reaching(receiver, reader.bindings(receiver))
    if chosen is not None and isinstance(chosen.value, ast.Call):
        made = chosen.value.func
        if isinstance(made, ast.Name):
            sources = [b.node for b in reader.bindings(made)]
            if any(isinstance(s, ast.ImportFrom) and (s.module or "").split(".")[0] == "sklearn" for s in sources):
                return True
    names = {m.name for m in reader.facts.models}
    return bool(names) and isinstance(reader.scopes.home(receiver), ast.Module) and receiver.id not in names


def _keras(reader: Reader, call: ast.Call) -> BatchFound | Unknown:
    method = called_name(call)
    if any(isinstance(a, ast.Starred) for a in call.args):
        return Unknown(f"the arguments in line {call.lineno} cannot be followed")
    extra = _double_star(reader, call)
    if isinstance(extra, Unknown):
        return extra
    given = _argument(call, extra, "batch_size", KERAS[method])
    if isinstance(given, ast.Constant) and given.value is None:
        return Unknown(f"`batch_size=None` in line {call.lineno} leaves the choice to Keras")
    setting = _of_data(reader, call, method, extra, given)
    if isinstance(setting, Unknown):
        return setting
    seen = next((b.batch for b in reader.facts.batches if b.method == method), None)
    if seen is not None and (seen % setting.value if setting.per_replica else seen != setting.value):
        return Unknown(f"the cell seems to say {setting.value}, but Keras used batches of {seen}")
    divisors = _divisors(reader, call, extra, setting)
    validation, notes = _validation(reader, call, extra, setting)
    receiver = call.func.value  # type: ignore[attr-defined]
    return BatchFound(
        reader.cell,
        setting.value,
        (*setting.slots, *divisors),
        method,
        call,
        receiver.id if isinstance(receiver, ast.Name) else None,
        seen,
        setting.per_replica,
        validation,
        _steps(reader, call, extra, replace(setting, slots=(*setting.slots, *divisors))),
        setting.names,
        (*setting.notes, *notes),
    )


def _double_star(reader: Reader, call: ast.Call) -> ast.expr | Unknown | None:
    """Give the dict literal behind ``**fit_args``; None where there is none."""
    stars = [k.value for k in call.keywords if k.arg is None]
    if not stars:
        return None
    unknown = Unknown(f"`**{ast.unparse(stars[0])}` in line {call.lineno} cannot be followed")
    expr = stars[0]
    if len(stars) > 1:
        return unknown
    if isinstance(expr, ast.Name):
        chosen = reader.scopes.reaching(expr, reader.bindings(expr))
        if chosen is None or chosen.value is None or _changed(reader, expr.id):
            return unknown
        expr = chosen.value
    if isinstance(expr, ast.Dict) and all(isinstance(k, ast.Constant) for k in expr.keys):
        return expr
    plain = isinstance(expr, ast.Call) and called_name(expr) == "dict" and not expr.args
    return expr if plain and all(k.arg for k in expr.keywords) else unknown  # type: ignore[attr-defined]


def _changed(reader: Reader, name: str) -> bool:
    """Say whether the cell changes the dict ``name`` after it is made."""
    stored = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.Subscript) and not isinstance(n.ctx, ast.Load)]
    return any(ast.unparse(n.value) == name for n in stored) or mutated(reader, ast.Name(name))


def _argument(call: ast.Call, extra: ast.expr | None, name: str, index: int | None) -> ast.expr | None:
    found = next((k.value for k in call.keywords if k.arg == name), None)
    if found is None and index is not None and index < len(call.args):
        found = call.args[index]
    return found if found is not None or extra is None else dict_value(extra, name)


def _of_data(
    reader: Reader, call: ast.Call, method: str, extra: ast.expr | None, given: ast.expr | None
) -> Setting | Unknown:
    data = _argument(call, extra, "x", 0)
    target = None if method == "predict" else _argument(call, extra, "y", 1)
    if isinstance(target, ast.Constant) and target.value is None:
        target = None
    if data is None:
        return Unknown(f"`{method}` in line {call.lineno} does not plainly say its data")
    sources = {b.source for b in reader.facts.batches if b.method == method}
    traced: Traced = Arrays() if target is not None or sources == {"arrays"} else trace(reader, data)
    if isinstance(traced, Setting):
        return traced
    if isinstance(traced, Unknown) and (given is None or not _surely_no_dataset(reader, data, sources)):
        return traced
    if given is not None:
        return resolve(reader, given)
    receiver = call.func.value  # type: ignore[attr-defined]
    known = isinstance(receiver, ast.Name) and reader.facts.model(receiver.id) is not None
    if reader.facts.tensorflow is not None and not known and not sources:
        return Unknown(f"whether `{ast.unparse(receiver)}` is a Keras model is not known")
    return default_argument(reader, call, KERAS_DEFAULT)


def _surely_no_dataset(reader: Reader, data: ast.expr, sources: set[str]) -> bool:
    if sources or not isinstance(data, ast.Name) or reader.facts.tensorflow is None:
        return False
    return reader.facts.dataset(data.id) is None and any(v.name == data.id for v in reader.facts.values)


def _validation(
    reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting
) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    """Find the slots of the validation data that are not the training data's own."""
    data = _argument(call, extra, "validation_data", None)
    own = _argument(call, extra, "validation_batch_size", None)
    if own is not None and not isinstance(data, ast.Constant):
        traced: Traced = resolve(reader, own)
    elif data is None or isinstance(data, (ast.Tuple, ast.Constant)):
        return (), ()
    else:
        traced = trace(reader, data)
    if isinstance(traced, Setting):
        slots = tuple(s for s in traced.slots if s not in setting.slots)
        return slots if not traced.per_replica or setting.per_replica else (), traced.notes if slots else ()
    if isinstance(traced, Unknown):
        return (), (f"The validation data keep their batch size: {traced.reason}.",)
    return (), ()


def _steps(reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting) -> tuple[Steps, ...]:
    found = []
    for name in ("steps_per_epoch", "validation_steps") if called_name(call) == "fit" else ("steps",):
        expr = _argument(call, extra, name, None)
        if expr is None or (isinstance(expr, ast.Constant) and expr.value is None):
            continue
        if _counts_rebatched(reader, expr, setting):
            found.append(Steps(name, expr, None, whole=True))
        elif not _follows(reader, expr, setting):
            value = evaluate(reader, expr)
            found.append(Steps(name, expr, value if isinstance(value, int) else None))
    return tuple(found)


def _counts_rebatched(reader: Reader, expr: ast.expr, setting: Setting) -> bool:
    """Say whether ``expr`` is ``len(train_ds)`` of a finite dataset that the edit splits again."""
    if not (isinstance(expr, ast.Call) and called_name(expr) == "len" and len(expr.args) == 1):
        return False
    name = expr.args[0]
    known = reader.facts.dataset(name.id) if isinstance(name, ast.Name) else None
    counted = isinstance(name, ast.Name) and any(s.before == f"{name.id}.rebatch(" for s in setting.slots)
    return counted and known is not None and known.cardinality is not None


def _is_rebatched(setting: Setting) -> bool:
    return any(".rebatch(" in slot.before for slot in setting.slots)


def _divisors(reader: Reader, call: ast.Call, extra: ast.expr | None, setting: Setting) -> tuple[Slot, ...]:
    """Find the batch size written once more as a number in ``steps_per_epoch=n // 64``."""
    expr = _argument(call, extra, "steps_per_epoch", None)
    found = []
    for node in ast.walk(expr) if expr is not None else ():
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.FloorDiv, ast.Div)):
            known = isinstance(node.right, ast.Constant) and node.right.value == setting.value
            if known and evaluate(reader, node.left) is None:
                found.append(reader.slot(node.right, setting.value))
    return tuple(found)


def _follows(reader: Reader, expr: ast.expr, setting: Setting, depth: int = 0) -> bool:
    """Say whether ``expr`` is computed from the batch size that is edited, or from the data themselves."""
    if depth > 10:
        return False
    slots = {(s.start, s.end) for s in setting.slots if not s.before}
    for node in ast.walk(expr):
        if isinstance(node, ast.expr) and ast.unparse(node) in setting.names:
            return True
        if isinstance(node, ast.expr) and (reader.cell.start(node), reader.cell.end(node)) in slots:
            return True
        if isinstance(node, ast.Attribute) and node.attr == "batch_size":
            return True
        if isinstance(node, ast.Call) and called_name(node) == "len" and node.args:
            counted = trace(reader, node.args[0])
            if isinstance(counted, Setting) and counted.slots == setting.slots and not _is_rebatched(setting):
                return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            chosen = reader.scopes.reaching(node, reader.bindings(node))
            if chosen is not None and chosen.value is not None and _follows(reader, chosen.value, setting, depth + 1):
                return True
    return False
