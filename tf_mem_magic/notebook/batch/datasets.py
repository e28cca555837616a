"""Data that feeds training: follow it to the call that batches it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace

from tf_mem_magic.core.facts import DatasetFacts
from tf_mem_magic.notebook.cell import insert_argument
from tf_mem_magic.notebook.follow import calls, classes
from tf_mem_magic.notebook.follow.entries import batch_keyword, dict_value, double_star
from tf_mem_magic.notebook.follow.resolve import Reader, Setting, Slot, Unknown, merge, resolve
from tf_mem_magic.notebook.origins import reaches_tensorflow
from tf_mem_magic.notebook.scopes import Binding
from tf_mem_magic.notebook.uses import BATCHERS, called_name, is_batch_name

_DEEPEST = 25
_KEEP = frozenset(
    "map prefetch cache shuffle repeat with_options filter take skip enumerate as_numpy_iterator get_next __iter__ "
    "shard snapshot ignore_errors take_while".split()
)
_COUNTS = frozenset({"take", "skip", "shard"})
_AROUND = frozenset(
    "iter next tqdm trange enumerate experimental_distribute_dataset list tuple experimental_distribute_values".split()
)
LOADERS = {
    "flow": (32, 2),
    "flow_from_directory": (32, 5),
    "flow_from_dataframe": (32, None),
    "image_dataset_from_directory": (32, 5),
    "text_dataset_from_directory": (32, 4),
    "audio_dataset_from_directory": (32, 4),
    "timeseries_dataset_from_array": (128, 5),
    "TimeseriesGenerator": (128, 8),
}
"""Keras's own makers of batched data: their default batch size, and its position among the arguments."""

_ARRAY_METHODS = frozenset("astype reshape to_numpy transpose numpy copy fit_transform toarray ravel squeeze".split())
_ARRAY_CALLS = frozenset(
    "array asarray zeros ones rand randn random normal uniform randint to_categorical expand_dims concatenate stack "
    "pad_sequences one_hot arange random_sample zeros_like ones_like vstack hstack integers".split()
)


_ARRAY_MODULES = frozenset({"np", "numpy", "tf", "tensorflow", "keras", "ops"})


@dataclass(frozen=True, slots=True)
class Arrays:
    """The data are arrays: whoever trains on them decides the batch size."""


Traced = Setting | Unknown | Arrays


def trace(reader: Reader, expr: ast.expr, depth: int = 0) -> Traced:
    """Follow ``expr``, which feeds training, to where it is batched."""
    if depth > _DEEPEST:
        return Unknown("the data's way through the cell is too long to follow")
    if isinstance(expr, ast.Name):
        return _name(reader, expr, depth)
    if isinstance(expr, ast.Call):
        return _call(reader, expr, depth)
    if isinstance(expr, ast.NamedExpr):
        return trace(reader, expr.value, depth + 1)
    if isinstance(expr, ast.BinOp):
        return trace(reader, expr.left, depth + 1)
    if isinstance(expr, (ast.List, ast.Tuple, ast.Dict)):
        return Arrays()
    if isinstance(expr, ast.Subscript):
        inner = trace(reader, expr.value, depth + 1)
        return inner if isinstance(inner, Arrays) else Unknown(f"`{ast.unparse(expr)}` cannot be followed")
    if isinstance(expr, ast.Attribute):
        if expr.attr == "values" or (expr.attr == "T"):
            return Arrays()
        inner = trace(reader, expr.value, depth + 1)
        if isinstance(inner, Arrays):
            return inner
    return Unknown(f"`{ast.unparse(expr)}` cannot be followed to where it is batched")


def _name(reader: Reader, name: ast.Name, depth: int) -> Traced:
    found = reader.bindings(name)
    known = reader.facts.dataset(name.id)
    module = isinstance(reader.scopes.home(name), ast.Module)
    if not found:
        if known is not None:
            return _earlier_dataset(reader, name, known)
        if any(v.name == name.id and v.shape for v in reader.facts.values):
            return Arrays()
        return Unknown(f"`{name.id}` comes from an earlier cell, and how it is batched is not known")
    decisive = [b for b in found if not _hands_on(b)]
    chosen = reader.scopes.reaching(name, decisive)
    traced: Traced = Unknown(f"`{name.id}` is set in more than one place or only under a condition")
    if chosen is not None:
        traced = _binding(reader, name, chosen, depth)
    if module and isinstance(traced, Unknown) and known is not None and known.batch is not None:
        again = _earlier_dataset(reader, name, known)
        traced = again if isinstance(again, Setting) else traced
    if module and isinstance(traced, Unknown) and any(v.name == name.id and v.shape for v in reader.facts.values):
        return Arrays()
    if not module or known is None or not isinstance(traced, Setting) or traced.per_replica:
        return traced
    if known.batch not in (None, traced.value):
        return Unknown(f"`{name.id}` has batches of {known.batch} now, but the cell says {traced.value}")
    return traced


def _hands_on(binding: Binding) -> bool:
    """Say whether a binding is ``ds = ds.map(f).prefetch(1)``: the same batches under the same name."""
    value = binding.value
    steps = 0
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _KEEP:
        value, steps = value.func.value, steps + 1
    return steps > 0 and isinstance(value, ast.Name) and value.id == binding.name


def _binding(reader: Reader, name: ast.Name, chosen: Binding, depth: int) -> Traced:
    if chosen.kind == "param":
        exprs = calls.argument_exprs(reader, chosen)
        if isinstance(exprs, Unknown):
            return exprs
        traced = [trace(reader, e, depth + 1) for e in exprs]
        if all(isinstance(t, Arrays) for t in traced):
            return Arrays()
        unknown = next((t for t in traced if isinstance(t, Unknown)), None)
        settings = [t for t in traced if isinstance(t, Setting)]
        return unknown or (merge(settings) if len(settings) == len(traced) else Unknown(f"`{name.id}` varies"))
    if chosen.value is not None:
        return trace(reader, chosen.value, depth + 1)
    if isinstance(chosen.node, ast.Assign) and isinstance(chosen.node.value, ast.Call):
        if called_name(chosen.node.value) == "load_data":
            return Arrays()
        return trace(reader, chosen.node.value, depth + 1)
    return Unknown(f"`{name.id}` cannot be followed to where it is batched")


def _earlier_dataset(reader: Reader, name: ast.Name, known: DatasetFacts) -> Traced:
    if known.kind != "tf.data":
        return Unknown(f"`{name.id}` was made in an earlier cell: change its batch size there and run that cell again")
    if known.batch is None:
        return Unknown(f"the batch size of `{name.id}`, made in an earlier cell, cannot be told")
    start, end = reader.cell.start(name), reader.cell.end(name)
    module = reaches_tensorflow(reader.cell, reader.facts)
    samples = known.samples
    if samples is not None and known.cardinality is not None:
        after = f").apply({module or 'tf'}.data.experimental.assert_cardinality({{count}}))"
        slots = (Slot(known.batch, start, end, f"{name.id}.rebatch(", after, samples),)
        return Setting(known.batch, slots, notes=() if module else (IMPORT,))
    notes: tuple[str, ...] = ()
    if known.cardinality is not None:
        unknown = f"TensorFlow no longer knows how many batches `{name.id}` has"
        notes = (f"{unknown}: the first epoch shows no total, and Keras may warn that the input ran out.",)
    return Setting(known.batch, (Slot(known.batch, start, end, f"{name.id}.rebatch(", ")"),), notes=notes)


IMPORT = "import tensorflow as tf"
"""A note that is no sentence: the line that the edit needs at the top."""


def _call(reader: Reader, call: ast.Call, depth: int) -> Traced:
    name = called_name(call)
    if isinstance(call.func, ast.Attribute) and name in BATCHERS:
        return _batched(reader, call, name)
    if name in LOADERS:
        return _loader(reader, call, name)
    if name in _AROUND and call.args:
        return trace(reader, call.args[0], depth + 1)
    if isinstance(call.func, ast.Attribute):
        if name in _KEEP:
            inner = trace(reader, call.func.value, depth + 1)
            if name in _COUNTS and isinstance(inner, Setting):
                written = ", ".join(map(ast.unparse, call.args))
                note = f"`.{name}({written})` counts batches: it now stands for fewer samples."
                return replace(inner, notes=(*inner.notes, note))
            return inner
        again = _rebatched(reader, call) if name == "apply" else None
        if again is not None:
            return again
        if "bucket" in name or name in ("group_by_window", "unbatch", "window", "apply", "interleave", "flat_map"):
            return Unknown(f"`.{name}(...)` in line {call.lineno} decides the batches")
        if name in _ARRAY_METHODS:
            return Arrays()
    known = calls.defined(reader, call.func)
    if isinstance(known, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return _own_function(reader, call, known, depth)
    if isinstance(known, ast.ClassDef):
        return _own_class(reader, call, known, depth)
    return _foreign(reader, call, name)


def _rebatched(reader: Reader, call: ast.Call) -> Setting | None:
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
    after = f").apply({ast.unparse(count.func)}({{count}}))"
    slot = Slot(size.value, reader.cell.start(call), reader.cell.end(call), f"{data.id}.rebatch(", after, known.samples)
    return Setting(size.value, (slot,))


def _batched(reader: Reader, call: ast.Call, name: str) -> Traced:
    given = next((k.value for k in call.keywords if k.arg == "batch_size"), None)
    if given is None and call.args and not isinstance(call.args[0], ast.Starred):
        given = call.args[0]
    if given is None:
        return Unknown(f"`.{name}(...)` in line {call.lineno} does not plainly say its batch size")
    inner: ast.expr = call.func.value  # type: ignore[attr-defined]
    while isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and name != "rebatch":
        if inner.func.attr == "unbatch":
            break
        if inner.func.attr in BATCHERS:
            return Unknown(f"the data in line {call.lineno} are batched twice")
        inner = inner.func.value
    return resolve(reader, given)


def _loader(reader: Reader, call: ast.Call, name: str) -> Traced:
    default, index = LOADERS[name]
    given = next((k.value for k in call.keywords if k.arg == "batch_size"), None)
    if given is None and index is not None and index < len(call.args):
        given = call.args[index]
    if any(isinstance(a, ast.Starred) for a in call.args) or (
        given is None and any(k.arg is None for k in call.keywords)
    ):
        return Unknown(f"the arguments of `{name}` in line {call.lineno} cannot be followed")
    if given is not None:
        return resolve(reader, given)
    return default_argument(reader, call, default)


def default_argument(reader: Reader, call: ast.Call, default: int, name: str = "batch_size") -> Setting:
    """Give the setting that writes an argument where a default applies."""
    edit = insert_argument(reader.cell, call, f"{name}=")
    return Setting(default, (Slot(default, edit.start, edit.end, edit.text),))


def _own_function(reader: Reader, call: ast.Call, function: calls.Definition, depth: int) -> Traced:
    from tf_mem_magic.notebook.batch import loops

    inside = [n for n in ast.walk(function) if reader.scopes.scope_of(n) is function]
    returns = [n for n in inside if isinstance(n, ast.Return) and n.value is not None]
    before = dict(reader.entered)
    reader.entered[function] = call
    try:
        if any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in inside):
            names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
            if any(is_batch_name(n) for n in names):
                return _batch_parameter(reader, call, function, names, skip=False)
            return loops.of_names(reader, [function])
        if len(returns) != 1:
            return Unknown(f"`{function.name}` makes its data in several ways")
        value = returns[0].value
        assert value is not None
        if isinstance(value, ast.Tuple):
            return Unknown(f"`{function.name}` makes several data sets")
        return trace(reader, value, depth + 1)
    finally:
        reader.entered = before


def _batch_parameter(
    reader: Reader, call: ast.Call, function: calls.Definition, names: list[str], skip: bool
) -> Setting | Unknown:
    batchy = [n for n in names if is_batch_name(n)]
    if len(batchy) != 1:
        return Unknown(f"`{function.name}` has no parameter that is plainly its batch size")
    binding = next(b for b in reader.scopes.of(function, batchy[0]))
    if len(reader.scopes.of(function, batchy[0])) != 1:
        return Unknown(f"`{function.name}` changes its batch size itself")
    given = calls.bind(call, function, binding.name, skip)
    stars = double_star(reader, call)
    if isinstance(stars, ast.expr):
        given = dict_value(stars, binding.name) or given or calls.default_of(function, binding.name)
    return (
        Unknown(f"`{function.name}` gets its batch size in a way that cannot be followed")
        if given is None
        else (resolve(reader, given))
    )


def _own_class(reader: Reader, call: ast.Call, cls: ast.ClassDef, depth: int) -> Traced:
    function = calls.constructor(cls)
    if function is not None:
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        if any(is_batch_name(n) for n in names):
            return _batch_parameter(reader, call, function, names, skip=True)
    keys = {
        n.attr
        for n in ast.walk(cls)
        if isinstance(n, ast.Attribute) and is_batch_name(n.attr) and ast.unparse(n.value) == "self"
    }
    if len(keys) != 1:
        return Unknown(f"`{cls.name}` does not plainly say its batch size")
    return classes.class_entry(reader, cls, call, keys.pop(), depth + 1)


def _root_name(expr: ast.expr) -> str:
    while isinstance(expr, ast.Attribute):
        expr = expr.value
    return expr.id if isinstance(expr, ast.Name) else ""


def _foreign(reader: Reader, call: ast.Call, name: str) -> Traced:
    given = batch_keyword(call)
    if given is None and not any(k.arg is None for k in call.keywords):
        written = [a for a in call.args if is_batch_name(getattr(a, "attr", getattr(a, "id", "")))]
        given = written[0] if len(written) == 1 else None
    stars = double_star(reader, call)
    if given is None and isinstance(stars, ast.expr):
        given = dict_value(stars, "batch_size")
    if given is not None:
        return resolve(reader, given)
    if name in _ARRAY_CALLS and (isinstance(call.func, ast.Name) or _root_name(call.func) in _ARRAY_MODULES):
        return Arrays()
    return Unknown(f"the data in line {call.lineno} are made by `{name}`, and how it batches is not known")
