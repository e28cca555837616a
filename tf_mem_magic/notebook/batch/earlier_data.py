"""Datasets and generators of earlier cells: split again where they are used, or set by their attribute."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.core.facts import DatasetFacts
from tf_mem_magic.notebook.batch.generators import assigned_once, batch_parameter, reads_its_batch_anew, unused_by
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.behind import made_by
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.given_once import given_once
from tf_mem_magic.notebook.model import Function
from tf_mem_magic.notebook.scopes import Binding, position
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import line_start
from tf_mem_magic.notebook.uses import called_name, is_batch_name

_IMPORTS = {"tf": "import tensorflow as tf", "tensorflow": "import tensorflow"}
"""The line that an edit needs which writes such a name where the cell does not reach TensorFlow."""


def earlier_dataset(reader: Reader, name: ast.Name, known: DatasetFacts) -> Setting | Unknown:
    """Set the batch size of a dataset or generator that an earlier cell made."""
    if known.kind != "tf.data":
        again = f"`{name.id}` was made in an earlier cell: change its batch size there and run that cell again"
        if known.kind == "PyDataset" and known.batch is not None and reads_its_batch_anew(reader, name.id):
            return _by_attribute(reader, name, known.batch)
        made = _made_again(reader, name) if known.kind == "generator" else None
        return Unknown(again) if made is None else made
    if known.batch is None:
        return Unknown(f"the batch size of `{name.id}`, made in an earlier cell, cannot be told")
    start, end = reader.cell.start(name), reader.cell.end(name)
    module = reader.tensorflow
    samples = known.samples
    if samples is not None and known.cardinality is not None:
        written = module or ("tensorflow" if reader.notebook.mentions("tf") else "tf")
        after = f").apply({written}.data.experimental.assert_cardinality({{count}}))"
        slots = (Slot(known.batch, start, end, f"{name.id}.rebatch(", after, samples, name.id),)
        return Setting(known.batch, slots, imports=() if module else (_IMPORTS[written],))
    uncounted = known.cardinality is not None and not _goes_on_for_ever(reader, name)
    slots = (Slot(known.batch, start, end, f"{name.id}.rebatch(", ")", dataset=name.id, uncounted=uncounted),)
    return Setting(known.batch, slots)


def _goes_on_for_ever(reader: Reader, data: ast.expr) -> bool:
    """Tell whether a dataset is repeated without an end where it is used: ``ds.prefetch(1).repeat()``."""
    parents = reader.scopes.parents
    method = parents.get(data)
    call = parents.get(method) if isinstance(method, ast.Attribute) else None
    if not isinstance(call, ast.Call) or call.func is not method:
        return False
    return repeats(call) or (called_name(call) != "take" and _goes_on_for_ever(reader, call))


def repeats(call: ast.expr) -> bool:
    """Tell whether a dataset is given that its last method repeats without an end."""
    if not isinstance(call, ast.Call) or called_name(call) != "repeat":
        return False
    count = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "count"), None)
    return count is None or ast.unparse(count) in ("None", "-1")


def _by_attribute(reader: Reader, name: ast.Name, batch: int) -> Setting:
    """Set the attribute of a generator of an earlier cell before the cell first uses it: it may count its batches."""
    uses = [name, *reader.scopes.loads.get((reader.scopes.home(name), name.id), [])]
    first = min((reader.scopes.top_statement(use) for use in uses), key=lambda statement: statement.lineno)
    at = line_start(reader.cell, first)
    written = f"{name.id}.batch_size"
    slot = Slot(batch, at, at, f"{written} = ", reader.cell.newline, undo=f"{written} = {batch}", owner=name.id)
    return Setting(batch, (slot,), frozenset({written}))


def _made_again(reader: Reader, name: ast.Name) -> Setting | Unknown | None:
    """Call the generator function that made the data once more where they are used, for smaller batches.

    None where that may not give the same samples: what it is called with has been set since, or its code counts on
    another batch size of the notebook.
    """
    found = assigned_once(reader, name.id)
    call = found[1].value if found is not None else None
    if found is None or not isinstance(call, ast.Call) or not _is_used_once(reader, name):
        return None
    function = reader.notebook.function(called_name(call)) if isinstance(call.func, ast.Name) else None
    node = None if function is None else function.node
    if function is None or not isinstance(node, ast.FunctionDef) or node.decorator_list or not _yields(node):
        return None
    parameter = batch_parameter(node)
    given = None if parameter is None else calls.bind(call, node, parameter, skip=False)
    if parameter is None or given is None or unused_by(reader, call) is not None:
        return None
    size = size_then(reader, *found, given)
    if size is None or not _says_the_same(reader, *found, given) or _counts_on_another(function, parameter):
        return None
    around = _around(call, node, given, parameter)
    if around is None:
        return None
    once = _read_once(reader, found[0], call, function)
    if once:
        return Unknown(
            f"`{name.id}` was made of `{once}`, which gives its values once: make both anew in their cells, with a "
            "smaller batch"
        )
    note = f"`{called_name(call)}` is called anew here for smaller batches: its data begin again."
    start, end = reader.cell.start(name), reader.cell.end(name)
    return Setting(size, (Slot(size, start, end, *around),), notes=(note,))


def _read_once(reader: Reader, cell: PythonCell, call: ast.Call, function: Function) -> str:
    """Name what a generator reads that may be at its end by now: an argument, or what its code reads besides."""
    given = [*call.args, *(k.value for k in call.keywords)]
    found = (given_once(reader.notebook, cell, one) for one in given)
    read = (given_once(reader.notebook, function.cell, one) for one in _read_outside(function))
    return next((one for one in (*found, *read) if one), "")


def _is_used_once(reader: Reader, name: ast.Name) -> bool:
    """Tell whether the cell reads a name of an earlier cell at one place only, which it comes to once."""
    module = reader.cell.tree
    if reader.scopes.home(name) is not module or reader.scopes.scope_of(name) is not module:
        return False
    again = [n for n in reader.scopes.up(name) if isinstance(n, (ast.For, ast.AsyncFor, ast.While))]
    looped = any(not (isinstance(n, ast.For) and name in set(ast.walk(n.iter))) for n in again)
    return not looped and reader.scopes.loads.get((module, name.id), []) == [name]


def _yields(function: ast.FunctionDef) -> bool:
    return any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(function))


_PLAIN = (ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.List, ast.Tuple, ast.Slice)
_PARTS = (*_PLAIN, ast.operator, ast.unaryop, ast.expr_context)


def _says_the_same(reader: Reader, cell: PythonCell, statement: ast.Assign, size: ast.expr) -> bool:
    """Tell whether a call of an earlier cell would be given the same once more: plain values, not set since.

    The batch size, ``size``, is written as a number, whatever its name holds by now.
    """
    call = statement.value
    assert isinstance(call, ast.Call)
    given = [one for one in (*call.args, *(k.value for k in call.keywords)) if one is not size]
    if any(k.arg is None for k in call.keywords):
        return False
    if not all(isinstance(n, _PARTS) for one in given for n in ast.walk(one)):
        return False
    names = {n.id for one in (call.func, *given) for n in ast.walk(one) if isinstance(n, ast.Name)}
    if any(known.name in names and known.kind == "generator" for known in reader.facts.datasets):
        return False
    place = _place(reader, cell, statement)
    if place is None or any(later > place for later in reader.notebook.before.places_setting(*names)):
        return False
    if any(reader.scopes.of(reader.cell.tree, name) for name in names):
        return False
    return all(position(b.node) < position(statement) for n in names for b in cell.scopes.of(cell.tree, n))


def _place(reader: Reader, cell: PythonCell, statement: ast.Assign) -> int | None:
    """Give where among the earlier cells the one stands in which ``statement`` makes the data."""
    made = ast.unparse(statement.targets[0])
    return next((place for place, one in reader.notebook.before.making(made) if one is cell), None)


def size_then(reader: Reader, cell: PythonCell, statement: ast.Assign, given: ast.expr) -> int | None:
    """Give the number that a batch size was as ``statement`` of an earlier cell ran; None where that is not plain."""
    if isinstance(given, ast.Constant):
        return given.value if type(given.value) is int else None
    if not isinstance(given, (ast.Name, ast.Attribute)):
        return None
    name = next(n.id for n in ast.walk(given) if isinstance(n, ast.Name))
    place, before = _place(reader, cell, statement), reader.notebook.before
    places = before.places_setting(name)
    if isinstance(given, ast.Attribute) or place is None or not any(p <= place for p in places):
        set_here = reader.scopes.of(reader.cell.tree, name)
        set_since = [p for p in places if place is None or p >= place]
        return None if set_since or set_here else reader.scalar(ast.unparse(given))
    own: list[Binding] = []
    setting = cell
    for at in sorted((p for p in places if p <= place), reverse=True):
        setting = before.at(at) or cell
        own = setting.scopes.of(setting.tree, name)
        own = [b for b in own if position(b.node) < position(statement)] if setting is cell else own
        if own:
            break
    last = max(own, key=lambda b: position(b.node), default=None)
    plain = last is not None and setting.scopes.top_statement(last.node) is last.node
    number = last.value.value if plain and last is not None and isinstance(last.value, ast.Constant) else None
    return number if type(number) is int else None


def _counts_on_another(function: Function, parameter: str) -> bool:
    """Tell whether a function reads a batch size of the notebook besides the one that it is given."""
    outside = _read_outside(function)
    return any(is_batch_name(n.id) and n.id != parameter and n.id.lower() != "batch" for n in outside)


def _read_outside(function: Function) -> list[ast.Name]:
    """List where a function reads a name of the notebook."""
    scopes = function.cell.scopes
    reads = (n for n in ast.walk(function.node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return [n for n in reads if isinstance(scopes.home(n), ast.Module)]


def _around(call: ast.Call, function: ast.FunctionDef, given: ast.expr, parameter: str) -> tuple[str, str] | None:
    """Give what stands before and after the batch size in a call that gives it; None where it cannot be given."""
    args: list[tuple[str, ast.expr | None]] = [("", one) for one in call.args]
    args += [(f"{k.arg}=", k.value) for k in call.keywords]
    at = next((place for place, (_, one) in enumerate(args) if one is given), None)
    if at is None:  # by the default
        only = [one.arg for one in function.args.posonlyargs]
        by_place = parameter in only
        if by_place and len(call.args) != only.index(parameter):
            return None
        at = len(call.args) if by_place else len(args)
        args.insert(at, ("" if by_place else f"{parameter}=", None))
    written = [name if one is None or one is given else f"{name}{ast.unparse(one)}" for name, one in args]
    before = ", ".join(written[: at + 1])
    after = "".join(f", {one}" for one in written[at + 1 :])
    return f"{ast.unparse(call.func)}({before}", f"{after})"


def split_again(reader: Reader, call: ast.Call) -> Setting | None:
    """Read ``ds.rebatch(32).apply(tf.data.experimental.assert_cardinality(40))``, which an earlier edit wrote."""
    batched: ast.expr = call.func.value  # type: ignore[attr-defined]
    count = call.args[0] if len(call.args) == 1 else None
    if not isinstance(count, ast.Call) or called_name(count) != "assert_cardinality":
        return None
    if not isinstance(batched, ast.Call) or called_name(batched) != "rebatch" or len(batched.args) != 1:
        return None
    data, size = getattr(batched.func, "value", None), batched.args[0]
    if not isinstance(data, ast.Name) or reader.bindings(data):
        return None
    known = reader.facts.dataset(data.id)
    if known is None or known.samples is None or not isinstance(size, ast.Constant) or type(size.value) is not int:
        return None
    after = f").apply({reader.written(count.func)}({{count}}))"
    start, end = reader.cell.start(call), reader.cell.end(call)
    slot = Slot(size.value, start, end, f"{data.id}.rebatch(", after, known.samples, data.id)
    return Setting(size.value, (slot,))


_NUMBERS = frozenset("len int float round abs min max sum ceil floor cardinality".split())
"""Calls that hand on a number of the data, not the data."""

_ITERATORS = ("iter", "as_numpy_iterator", "enumerate", "tqdm")
_DEEPEST = 3


def datasets_in(reader: Reader, expr: ast.expr, depth: int = 0) -> Iterator[str]:
    """Name the batched datasets of earlier cells that an expression hands on: by name, ``iter(ds)``, or such a name."""
    if isinstance(expr, ast.Call) and called_name(expr) in _NUMBERS:
        return
    if not isinstance(expr, ast.Name):
        for part in ast.iter_child_nodes(expr):
            if isinstance(part, ast.expr):
                yield from datasets_in(reader, part, depth)
        return
    known = reader.facts.dataset(expr.id)
    if known is not None and known.batch is not None and not reader.bindings(expr):
        yield known.name
        return
    made = next((p for p in made_by(reader, expr.id) if expr.id in p.binds), None) if depth < _DEEPEST else None
    if made is not None and isinstance(made.statement, ast.Assign) and _is_iterator(made.statement.value):
        yield from datasets_in(reader, made.statement.value, depth + 1)


def _is_iterator(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and called_name(value) in _ITERATORS
