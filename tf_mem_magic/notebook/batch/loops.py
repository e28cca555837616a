"""The batch size of a custom training loop: its dataset, its slices, or the one name that says it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.cell import read_cell
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.entries import batch_keyword, key_of
from tf_mem_magic.notebook.follow.resolve import Reader, Setting, Unknown, evaluate, merge, resolve
from tf_mem_magic.notebook.mask import NotPython
from tf_mem_magic.notebook.uses import MODEL, called_name, is_batch_name, role

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_WORD = re.compile(r"[^\W\d]\w*")
_THERE = "make it smaller where it is set, and run the cells from there on again"


def find(reader: Reader) -> Setting | Unknown:
    """Find the batch size of the loop that the failing lines belong to."""
    regions = _regions(reader)
    if isinstance(regions, Unknown):
        return regions
    refused: Unknown | None = None
    for loop in _loops(reader, regions):
        found = _of_loop(reader, loop)
        if isinstance(found, Setting):
            return _alone(reader, found)
        refused = refused or found
    for region in regions:
        found = _of_call(reader, region)
        if isinstance(found, Setting):
            return _alone(reader, found)
        refused = refused or found
    named = of_names(reader, regions)
    if isinstance(named, Setting):
        return named
    return refused or named


def _alone(reader: Reader, setting: Setting) -> Setting | Unknown:
    """Refuse where a dataset is split again although other code counts on its batch size by name."""
    if not any(".rebatch(" in slot.before for slot in setting.slots):
        return setting
    loads = [n for loads in reader.scopes.loads.values() for n in loads]
    named = [n for n in loads if is_batch_name(n.id) and evaluate(reader, n) is not None]
    for load in named:
        if load.id in reader.facts.read_elsewhere:
            return _elsewhere(load.id, setting.value)
        coupled = role(reader.scopes, load) in ("site", "coupled")
        one = resolve(reader, load) if coupled else Unknown("it is used for something else")
        joined = merge([setting, one]) if isinstance(one, Setting) else one
        if isinstance(joined, Unknown):
            return Unknown(f"`{load.id}` in line {load.lineno} also counts on batches of {setting.value}: {_THERE}")
        setting = joined
    for text in reader.facts.earlier_cells:
        for name in _batch_names_in_functions(reader, text):
            return _elsewhere(name, setting.value)
    return setting


def _elsewhere(name: str, value: int) -> Unknown:
    return Unknown(f"a function of an earlier cell uses `{name}`, which would stay {value}: {_THERE}")


def _batch_names_in_functions(reader: Reader, text: str) -> Iterator[str]:
    """Name the batch sizes that functions of an earlier cell read, where the cell reaches them.

    In a body the name is read when the function runs (``facts.read_elsewhere`` tells); a default was read when the
    function was defined.
    """
    cell = read_cell(text)
    if isinstance(cell, NotPython):
        return
    facts, words = reader.facts, set(_WORD.findall(reader.cell.source))
    own = {s.name for s in reader.cell.tree.body if isinstance(s, ast.FunctionDef)}
    scopes = cell.scopes
    loads = [n for (home, _), found in scopes.loads.items() for n in found if isinstance(home, ast.Module)]
    for load in loads:
        function = next((above for above in scopes.up(load) if isinstance(above, _FUNCTIONS)), None)
        if function is None or not is_batch_name(load.id):
            continue
        name = getattr(function, "name", "")
        default = isinstance(scopes.scope_of(load), ast.Module)
        reached = (
            name not in own and (name in facts.used or name in words) if default else load.id in facts.read_elsewhere
        )
        if reached or facts.tensorflow is None:
            yield load.id


def _regions(reader: Reader) -> list[ast.stmt] | Unknown:
    """List the statements and functions that the failing lines run in, and the callers of those functions."""
    if not reader.lines:
        training = [n for n in ast.walk(reader.cell.tree) if isinstance(n, _LOOPS)]
        if not training:
            return Unknown("the cell has no training loop and no call of fit")
        tops = {reader.scopes.top_statement(n) for n in training}
        return sorted(tops, key=lambda s: s.lineno)
    regions = [s for s in reader.cell.tree.body if reader.covers(s)]
    for statement in list(regions):
        regions += _callers(reader, statement)
    if not regions:
        return Unknown("the error did not come from a line of this cell that trains")
    return list(dict.fromkeys(regions))


def _callers(reader: Reader, statement: ast.stmt) -> list[ast.stmt]:
    """List the cell's statements that call a function of the cell, also through other functions."""
    found: list[ast.stmt] = []
    todo, seen = [statement], set()
    while todo:
        current = todo.pop()
        if not isinstance(current, (ast.FunctionDef, ast.AsyncFunctionDef)) or current.name in seen:
            continue
        seen.add(current.name)
        for load in reader.scopes.loads.get((reader.cell.tree, current.name), []):
            top = reader.scopes.top_statement(load)
            if top is not current:
                found.append(top)
                todo.append(top)
    return found


def _loops(reader: Reader, regions: list[ast.stmt]) -> list[ast.For | ast.AsyncFor | ast.While]:
    """List the loops of the regions, those nearest to the failing line first."""
    found: list[ast.For | ast.AsyncFor | ast.While] = []
    for region in regions:
        inside = [n for n in ast.walk(region) if isinstance(n, (ast.For, ast.AsyncFor, ast.While))]
        direct = [n for n in inside if reader.covers(n)]
        calling = [n for n in inside if n not in direct and not reader.covers(region)]
        found += sorted(direct or calling or inside, key=lambda n: -n.lineno)
    return list(dict.fromkeys(found))


def _of_loop(reader: Reader, loop: ast.For | ast.AsyncFor | ast.While) -> Setting | Unknown | None:
    nexts = [n.args[0] for n in ast.walk(loop) if isinstance(n, ast.Call) and called_name(n) == "next" and n.args]
    if isinstance(loop, ast.While):
        return _first_trace(reader, nexts)
    source = loop.iter
    while isinstance(source, ast.Call) and called_name(source) in ("tqdm", "enumerate", "trange") and source.args:
        if called_name(source) == "trange":
            break
        source = source.args[0]
    if isinstance(source, ast.Call) and called_name(source) in ("range", "trange"):
        if len(source.args) == 3 and isinstance(loop.target, ast.Name):
            return _sliced(reader, loop, source.args[2], loop.target.id)
        return _first_trace(reader, nexts)
    if isinstance(source, ast.Call) and called_name(source) == "zip":
        return _first_trace(reader, source.args)
    traced = trace(reader, source)
    return traced if isinstance(traced, (Setting, Unknown)) else None


def _first_trace(reader: Reader, exprs: list[ast.expr]) -> Setting | Unknown | None:
    traced = [trace(reader, e) for e in exprs]
    settings = [t for t in traced if isinstance(t, Setting)]
    if len(settings) < len(traced) or not traced:
        return next((t for t in traced if isinstance(t, Unknown)), None)
    return merge(settings)


def _sliced(reader: Reader, loop: ast.For | ast.AsyncFor, step: ast.expr, index: str) -> Setting | Unknown | None:
    """Read ``for i in range(0, n, step): x[i:i + size]``: all sizes must agree with the step."""
    named = step.id if isinstance(step, ast.Name) else step.attr if isinstance(step, ast.Attribute) else None
    if not (_trains(loop) if named is None else is_batch_name(named) or "chunk" in named.lower()):
        return None
    sizes = []
    for node in map(_leading_slice, ast.walk(loop)):
        if isinstance(node, ast.Slice) and isinstance(node.lower, ast.Name) and node.lower.id == index and node.upper:
            upper = node.upper
            if isinstance(upper, ast.Call) and called_name(upper) == "min" and upper.args:
                upper = next((a for a in upper.args if isinstance(a, ast.BinOp)), upper)
            if not (isinstance(upper, ast.BinOp) and isinstance(upper.op, ast.Add)):
                return Unknown(f"the slice in line {node.upper.lineno} cannot be followed")
            sides = [upper.left, upper.right]
            size = [s for s in sides if not (isinstance(s, ast.Name) and s.id == index)]
            if len(size) != 1:
                return Unknown(f"the slice in line {upper.lineno} cannot be followed")
            sizes.append(size[0])
    if not sizes:
        return None
    found = []
    for expr in [step, *sizes]:
        one = resolve(reader, expr)
        if isinstance(one, Unknown):
            return one
        found.append(one)
    return merge(found)


def _leading_slice(node: ast.AST) -> ast.AST | None:
    """Give the slice of the first axis, which is the batch's."""
    if not isinstance(node, ast.Subscript):
        return None
    return node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice


def _trains(loop: ast.AST) -> bool:
    """Say whether a loop calls something that by its name takes a step of training or inference."""
    words = ("step", "train", "model", "on_batch", "loss", "predict", "gradienttape")
    names = [called_name(n).lower() for n in ast.walk(loop) if isinstance(n, ast.Call)]
    return any(word in name for name in names for word in words)


def _of_call(reader: Reader, region: ast.stmt) -> Setting | Unknown | None:
    """Read a call on the failing line that is handed its batch size or its dataset."""
    if isinstance(region, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or not reader.lines:
        return None
    for node in ast.walk(region):
        if not isinstance(node, ast.Call) or not reader.covers(node):
            continue
        if calls.defined(reader, node.func) is not None:
            continue
        given = batch_keyword(node)
        if given is not None and not called_name(node)[:1].isupper() and not MODEL.search(called_name(node)):
            return resolve(reader, given)
        found = _dataset_argument(reader, node)
        if found is not None:
            return found
    return None


def _dataset_argument(reader: Reader, call: ast.Call) -> Setting | Unknown | None:
    """Read a dataset of an earlier cell handed to a function of an earlier cell that only iterates over it."""
    if not isinstance(call.func, ast.Name) or reader.bindings(call.func):
        return None
    given = [a for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Name)]
    known = [a for a in given if not reader.bindings(a) and reader.facts.dataset(a.id) is not None]
    if len(known) != 1:
        return None
    sources = [c for c in reader.facts.earlier_cells if f"def {call.func.id}(" in c]
    if not sources or any(word in sources[-1] for word in ("len(", "cardinality", "unbatch", "batch_size", "BATCH")):
        return Unknown(f"`{call.func.id}` is defined elsewhere, and what it does with `{known[0].id}` is not known")
    traced = trace(reader, known[0])
    return traced if isinstance(traced, (Setting, Unknown)) else None


def of_names(reader: Reader, regions: Sequence[ast.stmt]) -> Setting | Unknown:
    """Read the one batch size that the regions use by a name that says so."""
    settings: list[Setting] = []
    for region in regions:
        for node in ast.walk(region):
            if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) or not isinstance(node.ctx, ast.Load):
                continue
            its = key_of(node)
            name = node.id if isinstance(node, ast.Name) else its[1] if its else ""
            if not is_batch_name(name) or role(reader.scopes, node) not in ("site", "coupled"):
                continue
            if isinstance(node, ast.Name) and _holds_data(reader, node):
                continue
            one = resolve(reader, node)
            if isinstance(one, Unknown):
                return one
            settings.append(one)
    if not settings:
        return Unknown("no batch size was found in the lines that led to the error")
    return merge(settings)


def _holds_data(reader: Reader, name: ast.Name) -> bool:
    """Say whether ``batch`` is a batch of data rather than a size: the variable of a loop."""
    return any(b.kind == "loop" for b in reader.bindings(name)) and name.id.lower() in ("batch", "train_batch", "b")
