"""Data that feeds training: follow it to the call that batches it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.notebook.batch import generators, named
from tf_mem_magic.notebook.batch.earlier_data import earlier_dataset, split_again
from tf_mem_magic.notebook.batch.generators import draws_a_batch, earlier_helper, parameter_with_batch, unused_by
from tf_mem_magic.notebook.batch.means.through import hands_on, held_by
from tf_mem_magic.notebook.follow import calls, classes
from tf_mem_magic.notebook.follow.containers import resolved
from tf_mem_magic.notebook.follow.entries import batch_keyword, dict_value, double_star, zipped
from tf_mem_magic.notebook.follow.reader import Function, Reader, Setting, Slot, Unknown, merge
from tf_mem_magic.notebook.follow.resolve import default_argument, resolve
from tf_mem_magic.notebook.follow.shares import resolve_the_whole
from tf_mem_magic.notebook.scopes import Binding
from tf_mem_magic.notebook.uses import BATCHERS, called_name, is_batch_name

KEEP = frozenset(
    "map prefetch cache shuffle repeat with_options filter take skip enumerate as_numpy_iterator get_next __iter__ "
    "shard snapshot ignore_errors take_while".split()
)
"""Methods of a dataset that hand on its batches as they are."""

COUNTS = frozenset({"take", "skip", "shard"})
"""Those of them that count batches."""

_AROUND = frozenset("next islice experimental_distribute_dataset experimental_distribute_values".split())
LOADERS = {
    "flow": (32, 2),
    "flow_from_directory": (32, 5),
    "flow_from_dataframe": (32, None),
    "image_dataset_from_directory": (32, 5),
    "text_dataset_from_directory": (32, 4),
    "audio_dataset_from_directory": (32, 4),
    "timeseries_dataset_from_array": (128, 5),
    "TimeseriesGenerator": (128, 8),
    "apply.stream": (32, None),
}
"""Makers of batched data, Keras's and ours: their default batch size, and its position among the arguments."""

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


def trace(reader: Reader, expr: ast.expr) -> Traced:
    """Follow ``expr``, which feeds training, to where it is batched."""
    found = reader.once("trace", expr, None, lambda: _trace(reader, expr))
    return Unknown("the data's way through the cell is too long to follow") if found is None else found


def _trace(reader: Reader, expr: ast.expr) -> Traced:
    while isinstance(expr, (ast.NamedExpr, ast.BinOp)):
        expr = expr.value if isinstance(expr, ast.NamedExpr) else expr.left
    if isinstance(expr, ast.Name):
        return _name(reader, expr)
    if isinstance(expr, ast.Call):
        return _call(reader, expr)
    if isinstance(expr, (ast.List, ast.Tuple, ast.Dict)):
        return Arrays()
    if isinstance(expr, ast.Subscript):
        part = trace(reader, expr.value)
        return part if isinstance(part, Arrays) else Unknown(f"`{reader.written(expr)}` cannot be followed")
    if isinstance(expr, ast.Attribute):
        if expr.attr in ("values", "T"):
            return Arrays()
        held = classes.held_by_self(reader, expr)
        if held is not None or isinstance(trace(reader, expr.value), Arrays):
            return Arrays() if held is None else resolved(reader, held, trace)
    return Unknown(f"`{reader.written(expr)}` cannot be followed to where it is batched")


def _name(reader: Reader, name: ast.Name) -> Traced:
    found = reader.bindings(name)
    known = reader.facts.dataset(name.id)
    module = isinstance(reader.scopes.home(name), ast.Module)
    if not found:
        if known is not None:
            return earlier_dataset(reader, name, known)
        if any(v.name == name.id and v.shape for v in reader.facts.values):
            return Arrays()
        return Unknown(f"`{name.id}` comes from an earlier cell, and how it is batched is not known")
    chosen = _decisive(reader, name)
    traced: Traced = Unknown(f"`{name.id}` is set in more than one place or only under a condition")
    if chosen is not None:
        traced = _binding(reader, name, chosen)
    if module and isinstance(traced, Unknown) and known is not None and known.batch is not None:
        again = earlier_dataset(reader, name, known)
        traced = again if isinstance(again, Setting) else traced
    if module and isinstance(traced, Unknown) and any(v.name == name.id and v.shape for v in reader.facts.values):
        return Arrays()
    if not module or known is None or not isinstance(traced, Setting) or traced.per_replica:
        return traced
    if known.batch not in (None, traced.value):
        return Unknown(f"`{name.id}` has batches of {known.batch} now, but the cell says {traced.value}")
    return traced


def _decisive(reader: Reader, name: ast.Name) -> Binding | None:
    """Find the binding that decides the batches, or how many of them there are."""
    found = reader.bindings(name)
    decisive = [b for b in found if not _hands_on(b)]
    counting = [b for b in found if _hands_on(b) and _counts(b)] if decisive else []
    return reader.scopes.reaching(name, [*decisive, *counting])


def chain_of(reader: Reader, expr: ast.expr) -> Iterator[ast.Call]:
    """Yield the methods behind data that hand on their batches, the last one first, through names too."""
    seen: set[ast.expr] = set()
    while expr not in seen:
        seen.add(expr)
        if isinstance(expr, ast.Name):
            chosen = _decisive(reader, expr)
            expr = expr if chosen is None or chosen.value is None else chosen.value
        elif isinstance(expr, ast.Call) and isinstance(expr.func, ast.Attribute) and expr.func.attr in KEEP:
            yield expr
            expr = expr.func.value


def _hands_on(binding: Binding) -> bool:
    """Say whether a binding is ``ds = ds.map(f).prefetch(1)``: the same batches under the same name."""
    value = binding.value
    steps = 0
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in KEEP:
        value, steps = value.func.value, steps + 1
    return steps > 0 and isinstance(value, ast.Name) and value.id == binding.name


def _counts(binding: Binding) -> bool:
    """Say whether a binding is ``ds = ds.take(20)``: fewer of the same batches."""
    value = binding.value
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if value.func.attr in COUNTS:
            return True
        value = value.func.value
    return False


def _binding(reader: Reader, name: ast.Name, chosen: Binding) -> Traced:
    if chosen.kind == "param":
        exprs = calls.argument_exprs(reader, chosen)
        if isinstance(exprs, Unknown):
            return exprs
        return _merged([trace(reader, e) for e in exprs], f"`{name.id}` varies")
    if (held := held_by(reader.scopes, name)) is not None:
        return trace(reader, held)
    if chosen.value is not None:
        return trace(reader, chosen.value)
    if isinstance(chosen.node, ast.Assign) and isinstance(chosen.node.value, ast.Call):
        if called_name(chosen.node.value) == "load_data":
            return Arrays()
        one = calls.one_of_several(reader, name, chosen.node)
        if one is not None:
            with reader.entering(one[0], chosen.node.value):
                return trace(reader, one[1])
        return trace(reader, chosen.node.value)
    return Unknown(f"`{name.id}` cannot be followed to where it is batched")


def _merged(traced: list[Traced], else_: str) -> Traced:
    """Join what was found of several data that go the same way."""
    if all(isinstance(t, Arrays) for t in traced):
        return Arrays()
    unknown = next((t for t in traced if isinstance(t, Unknown)), None)
    settings = [t for t in traced if isinstance(t, Setting)]
    return unknown or (merge(settings) if len(settings) == len(traced) else Unknown(else_))


def _call(reader: Reader, call: ast.Call) -> Traced:
    name = called_name(call)
    if isinstance(call.func, ast.Attribute) and name in BATCHERS:
        return _batched(reader, call, name)
    loader = _loader_of(reader, call)
    if loader is not None:
        return _loader(reader, call, loader)
    if call.args and (name in _AROUND or hands_on(reader, call)):
        return trace(reader, call.args[0])
    if isinstance(call.func, ast.Attribute):
        if name in KEEP:
            return _kept(reader, call)
        if name == "zip":
            return _merged([trace(reader, part) for part in zipped(call)], "not all that is zipped has batches")
        again = split_again(reader, call) if name == "apply" else None
        if again is not None:
            return again
        if "bucket" in name or name in ("group_by_window", "unbatch", "window", "apply", "interleave", "flat_map"):
            return Unknown(f"`.{name}(...)` in {reader.cell.told(call)} decides the batches")
        if name in _ARRAY_METHODS:
            return Arrays()
    known = calls.defined(reader, call.func)
    if isinstance(known, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return _own_function(reader, call, known)
    if isinstance(known, ast.ClassDef):
        return _own_class(reader, call, known)
    found = _foreign(reader, call, name)
    return (unused_by(reader, call) or found) if isinstance(found, Setting) else found


def _kept(reader: Reader, call: ast.Call) -> Traced:
    """Follow a chain of methods that hand on the batches as they are; what counts batches counts those of before."""
    counting: ast.Call | None = None
    inner: ast.expr = call
    while isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr in KEEP:
        if inner.func.attr in COUNTS:
            counting = counting or inner
        inner = inner.func.value
    traced = trace(reader, inner)
    if counting is None or not isinstance(traced, Setting):
        return traced
    if traced.per_replica:
        return Unknown(f"`.{called_name(counting)}(...)` in {reader.cell.told(counting)} counts batches")
    at = reader.cell.end(counting)
    dataset = next((n.id for n in ast.walk(inner) if isinstance(n, ast.Name)), "the dataset")
    return Setting(traced.value, (Slot(traced.value, at, at, ".rebatch(", ")", dataset=dataset),))


def _batched(reader: Reader, call: ast.Call, name: str) -> Traced:
    given = next((k.value for k in call.keywords if k.arg == "batch_size"), None)
    if given is None and call.args and not isinstance(call.args[0], ast.Starred):
        given = call.args[0]
    if given is None:
        return Unknown(f"`.{name}(...)` in {reader.cell.told(call)} does not plainly say its batch size")
    inner: ast.expr = call.func.value  # type: ignore[attr-defined]
    while isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and name != "rebatch":
        if inner.func.attr == "unbatch":
            break
        if inner.func.attr in BATCHERS:
            return Unknown(f"the data in {reader.cell.told(call)} are batched twice")
        inner = inner.func.value
    return resolve(reader, given)


def makes_batches(reader: Reader, data: ast.expr) -> bool:
    """Tell whether data are surely made in batches by what the cell says, whatever they were when Keras saw them."""
    chosen = _decisive(reader, data) if isinstance(data, ast.Name) else None
    made = chosen.value if chosen is not None else data
    return isinstance(made, ast.Call) and _loader_of(reader, made) is not None


def _loader_of(reader: Reader, call: ast.Call) -> str | None:
    """Name the maker of batched data that is called; another library's of that name is none."""
    name = next((name for name in (called_name(call), reader.written(call.func)) if name in LOADERS), None)
    return name if name is not None and generators.is_of_keras(reader, call) else None


def _loader(reader: Reader, call: ast.Call, name: str) -> Traced:
    default, index = LOADERS[name]
    given = next((k.value for k in call.keywords if k.arg == "batch_size"), None)
    if given is not None:
        return resolve(reader, given)
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return Unknown(f"the arguments of `{name}` in {reader.cell.told(call)} cannot be followed")
    if index is not None and index < len(call.args):
        return resolve(reader, call.args[index])
    return default_argument(reader, call, default)


def _own_function(reader: Reader, call: ast.Call, function: Function) -> Traced:
    inside = [n for n in ast.walk(function) if reader.scopes.scope_of(n) is function]
    returns = [n.value for n in inside if isinstance(n, ast.Return) and n.value is not None]
    with reader.entering(function, call):
        if any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in inside):
            names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
            if any(is_batch_name(n) for n in names):
                return _batch_parameter(reader, call, function, names, skip=False)
            return named.of_names(reader, [function])
        if len(returns) != 1:
            return Unknown(f"`{function.name}` makes its data in several ways")
        if draws_a_batch(reader, call):
            names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
            return _batch_parameter(reader, call, function, names, skip=False)
        if isinstance(returns[0], ast.Tuple):
            return Unknown(f"`{function.name}` makes several data sets")
        return trace(reader, returns[0])


def _batch_parameter(
    reader: Reader, call: ast.Call, function: Function, names: list[str], skip: bool
) -> Setting | Unknown:
    batchy = [n for n in names if is_batch_name(n)]
    counted = None if batchy or isinstance(function, ast.Lambda) else parameter_with_batch(reader, call, function)
    batchy = batchy if counted is None else [counted]
    if len(batchy) != 1:
        return Unknown(f"`{function.name}` has no parameter that is plainly its batch size")
    binding = next(b for b in reader.scopes.of(function, batchy[0]))
    if len(reader.scopes.of(function, batchy[0])) != 1:
        return Unknown(f"`{function.name}` changes its batch size itself")
    given = calls.bind(call, function, binding.name, skip)
    stars = double_star(reader, call)
    if isinstance(stars, ast.expr):
        given = dict_value(stars, binding.name) or given or calls.default_of(function, binding.name)
    if given is None:
        return Unknown(f"`{function.name}` gets its batch size in a way that cannot be followed")
    return unused_by(reader, call) or resolve_the_whole(reader, given)


def _own_class(reader: Reader, call: ast.Call, cls: ast.ClassDef) -> Traced:
    function = calls.constructor(cls)
    if function is not None:
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        if any(is_batch_name(n) for n in names):
            return _batch_parameter(reader, call, function, names, skip=True)
    keys = {
        n.attr
        for n in ast.walk(cls)
        if isinstance(n, ast.Attribute) and is_batch_name(n.attr) and reader.written(n.value) == "self"
    }
    if len(keys) != 1:
        return Unknown(f"`{cls.name}` does not plainly say its batch size")
    return resolved(reader, classes.class_entry(reader, cls, call, keys.pop()), resolve)


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
    helper = earlier_helper(reader, call)
    if helper is not None:
        return helper
    if name in _ARRAY_CALLS and (isinstance(call.func, ast.Name) or _root_name(call.func) in _ARRAY_MODULES):
        return Arrays()
    return Unknown(f"the data in {reader.cell.told(call)} are made by `{name}`, and how it batches is not known")
