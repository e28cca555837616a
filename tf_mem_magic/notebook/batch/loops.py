"""The batch size of a custom training loop: its dataset, its slices, or the one name that says it."""

from __future__ import annotations

import ast
import builtins
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tf_mem_magic.notebook.batch.consumers import only_infers
from tf_mem_magic.notebook.batch.counts import data_beside_a_range, with_loop_counts, with_steps
from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.batch.earlier_data import datasets_in
from tf_mem_magic.notebook.batch.generators import draws_a_batch
from tf_mem_magic.notebook.batch.means.comprehensions import of_comprehension
from tf_mem_magic.notebook.batch.means.lost import split_in_the_loop
from tf_mem_magic.notebook.batch.means.phases import in_turn, made_here
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.batch.named import of_names
from tf_mem_magic.notebook.batch.samples import count_samples
from tf_mem_magic.notebook.batch.steps import follows
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.entries import batch_keyword
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown, merge
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.uses import MODEL, called_name, is_batch_name, is_tape

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_STEP = re.compile(r"(?i)step|train|model|net$|on_batch|predict|generator|discriminator|encoder|decoder")
_DATA = re.compile(r"(?i)data|(?:^|_)ds(?:_|$|\d)|load|gen|batch|iter|pipeline|train(?!able)|valid|test|split")
_BATCH = re.compile(
    r"(?i)^(?:x|y|xs|ys|x_\w+|y_\w+|bx|by|xb|yb|images?|imgs?|labels?|inputs?|targets?|inp|tar|features)$|batch"
)


@dataclass(frozen=True, slots=True)
class Looped:
    """The batch size of a loop; ``infers``: what failed surely computes no gradients."""

    setting: Setting
    infers: bool = False


def find(reader: Reader) -> Looped | Unknown:
    """Find the batch size of the loop that the failing lines belong to."""
    regions = _regions(reader)
    if isinstance(regions, Unknown):
        return regions
    found = _find(reader, regions)
    if isinstance(found, Unknown):
        return found
    fewer = _part_of_a_batch(reader, found)
    return fewer or Looped(found, only_infers(reader, _running(reader, regions)))


def _find(reader: Reader, regions: list[ast.stmt]) -> Setting | Unknown:
    refused: Unknown | None = None
    for loop in _loops(reader, regions):
        found = _of_loop(reader, loop)
        if isinstance(found, Setting):
            settled = with_loop_counts(reader, loop, split_in_the_loop(reader, loop, found))
            as_many = isinstance(settled, Setting) and _takes_as_many(reader, loop, settled)
            return with_steps(reader, settled, loop) if as_many and isinstance(settled, Setting) else settled
        refused = refused or found
    comprehended = of_comprehension(reader, regions)
    if comprehended is not None:
        return comprehended
    named: Setting | None = None
    for region in (*regions, None):
        where = regions if region is None else [region]
        found = of_names(reader, regions) if region is None else _of_call(reader, region)
        found = _without_data_beside(reader, where, found) if isinstance(found, Setting) else found
        if isinstance(found, Setting) and region is not None:
            return found
        named = found if isinstance(found, Setting) else None
        refused = refused or (found if isinstance(found, Unknown) else None)
    if named is None:
        return refused or Unknown("no batch size was found in the lines that led to the error")
    around = next((loop for loop in _loops(reader, regions) if reader.covers(loop)), None)
    setting = named if around is None else with_loop_counts(reader, around, named)
    if around is None or isinstance(setting, Unknown) or setting.same_steps or _steps_follow(reader, regions, setting):
        return setting
    return with_steps(reader, setting, around)


def _steps_follow(reader: Reader, regions: list[ast.stmt], setting: Setting) -> bool:
    """Tell whether the number of batches may grow as they shrink: a loop, a slice or a counter goes by their size.

    What is drawn by chance (``np.random.choice(n, BATCH)``) is not: each turn of the loop draws anew.
    """
    for node in (n for region in regions for n in ast.walk(region)):
        if isinstance(node, (ast.For, ast.AsyncFor)):
            parts = [node.iter]
        elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Slice) and node.lower is not None):
            parts = [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
        else:
            parts = [node.test] if isinstance(node, ast.While) else []
        if any(follows(reader, part, setting) for part in parts):
            return True
    return False


def _takes_as_many(reader: Reader, loop: ast.stmt, setting: Setting) -> bool:
    """Tell whether a ``while`` draws batches that never end, and nothing of it goes by their size."""
    if not isinstance(loop, ast.While) or setting.same_steps or setting.datasets:
        return False
    ends = any(called_name(n) == "next" for n in ast.walk(loop) if isinstance(n, ast.Call))
    if ends or any(slot.counts for slot in setting.slots) or _steps_follow(reader, [loop], setting):
        return False
    tests = [n.test for n in ast.walk(loop) if isinstance(n, (ast.While, ast.If))]
    asked = {n.id for test in tests for n in ast.walk(test) if isinstance(n, ast.Name)}
    sets = (n for n in ast.walk(loop) if isinstance(n, ast.Assign) and follows(reader, n.value, setting))
    return not any(isinstance(n, ast.Name) and n.id in asked for one in sets for t in one.targets for n in ast.walk(t))


def _running(reader: Reader, regions: list[ast.stmt]) -> list[ast.stmt]:
    """List what ran of the regions: the innermost loop that failed, where there is one, else all.

    A loop under a tape is a part of a training step, which computes gradients behind it.
    """
    if any(is_tape(one) and reader.covers(one) for one in reader.nodes):
        return regions
    loops = [loop for loop in _loops(reader, regions) if reader.covers(loop)]
    return list(loops[:1]) or regions


def _part_of_a_batch(reader: Reader, setting: Setting) -> Unknown | None:
    """Refuse where the call that failed gets less than the batch that the loop takes: one image of it."""
    for name in ("__call__", *reader.calls):
        for call in reader.calls.get(name, []):
            if not reader.covers(call) or not call.args or (name and name[0].isupper()):
                continue
            counts = [count_samples(reader, argument) for argument in call.args[:1]]
            if counts[0] is None or counts[0] >= setting.value or not _is_step(reader, call):
                continue
            if follows(reader, call.args[0], setting):
                continue  # half a batch from each side
            got = "one sample" if counts[0] == 1 else f"{counts[0]} samples"
            return Unknown(
                f"`{reader.written(call.func)}` in {reader.cell.told(call)} computes {got} of each batch of "
                f"{setting.value}, so a smaller batch would change nothing"
            )
    return None


def _is_step(reader: Reader, call: ast.Call) -> bool:
    """Tell whether a call may be what ran out: of a model, or of something that is named like a step."""
    written = reader.written(call.func)
    return reader.facts.model(written) is not None or bool(_STEP.search(written))


def _regions(reader: Reader) -> list[ast.stmt] | Unknown:
    """List the statements and functions that the failing lines run in, and the callers of those functions."""
    if not reader.lines:
        training = [n for n in reader.nodes if isinstance(n, _LOOPS)]
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
        around = [] if direct or (reader.lines and reader.covers(region)) else inside
        found += sorted(direct or around, key=lambda n: -n.lineno)
    return list(dict.fromkeys(found))


def _of_loop(reader: Reader, loop: ast.For | ast.AsyncFor | ast.While) -> Setting | Unknown | None:
    inside = [n for n in ast.walk(loop) if isinstance(n, ast.Call)]
    nexts: list[ast.expr] = [n.args[0] for n in inside if called_name(n) == "next" and n.args]
    nexts = nexts or [n for n in inside if draws_a_batch(reader, n)]
    if isinstance(loop, ast.While):
        return _first_trace(reader, nexts)
    source = gone_through(reader, loop.iter)
    if isinstance(source, ast.Call) and called_name(source) in ("range", "trange"):
        if len(source.args) == 3 and isinstance(loop.target, ast.Name):
            return _sliced(reader, loop, source.args[2], loop.target.id)
        drawn = _first_trace(reader, nexts)
        around = (one.iter for one in (loop, *reader.scopes.up(loop)) if isinstance(one, (ast.For, ast.AsyncFor)))
        counts = isinstance(drawn, Setting) and not any(follows(reader, one, drawn) for one in around)
        return with_steps(reader, drawn, loop) if counts and isinstance(drawn, Setting) else drawn
    if isinstance(source, ast.Call) and called_name(source) == "zip":
        return _first_trace(reader, data_beside_a_range(source))
    several = in_turn(reader, source)
    if several:
        return made_here(_first_trace(reader, several))
    traced = trace(reader, source)
    if isinstance(traced, Unknown) and not _may_be_data(reader, source, loop.target):
        return _first_trace(reader, nexts)
    return traced if isinstance(traced, (Setting, Unknown)) else None


def _may_be_data(reader: Reader, source: ast.expr, target: ast.expr) -> bool:
    """Tell whether a loop may go over batches of data, by how they are named."""
    if isinstance(source, ast.Name) and reader.facts.dataset(source.id) is not None:
        return True
    names = [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
    words = [
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(source)
        if isinstance(n, (ast.Name, ast.Attribute))
    ]
    return any(_DATA.search(word) for word in words) or any(_BATCH.search(name) for name in names)


def _first_trace(reader: Reader, exprs: list[ast.expr]) -> Setting | Unknown | None:
    traced = [trace(reader, e) for e in exprs]
    settings = [t for t in traced if isinstance(t, Setting)]
    if len(settings) < len(traced) or not traced:
        return next((t for t in traced if isinstance(t, Unknown)), None)
    whole = merge(settings)
    return whole if isinstance(whole, Unknown) else replace(whole, parts=math.lcm(*(one.parts for one in settings)))


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
                return Unknown(f"the slice in {reader.cell.told(node.upper)} cannot be followed")
            sides = [upper.left, upper.right]
            size = [s for s in sides if not (isinstance(s, ast.Name) and s.id == index)]
            if len(size) != 1:
                return Unknown(f"the slice in {reader.cell.told(upper)} cannot be followed")
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


def _without_data_beside(reader: Reader, regions: list[ast.stmt], named: Setting) -> Setting | Unknown:
    """Refuse a batch size that is handed on beside data of earlier cells, which would keep their batches."""
    beside = next((one for region in regions for one in _data_beside(reader, region, named)), None)
    if beside is None or named.value == 1:
        return named
    return Unknown(f"`{beside}` is handed on beside its batch size, and would keep its batches as they are")


def _data_beside(reader: Reader, region: ast.stmt, named: Setting) -> Iterator[str]:
    """Name the batched datasets of earlier cells that a call on a failing line is handed beside the batch size.

    A function that the cell cannot see into may take the batches of one and count on the other.
    """
    for call in (n for n in ast.walk(region) if isinstance(n, ast.Call) and reader.covers(n)):
        given = [*call.args, *(k.value for k in call.keywords)]
        if _is_foreign(reader, call) and any(follows(reader, one, named) for one in given):
            for one in given:
                yield from datasets_in(reader, one)


def _is_foreign(reader: Reader, call: ast.Call) -> bool:
    """Tell whether the cell cannot see into what is called: a function, or a method, of another place."""
    if isinstance(call.func, ast.Name):
        return calls.defined(reader, call.func) is None
    here = (n for n in reader.nodes if isinstance(n, ast.ClassDef))
    return not any(getattr(n, "name", "") == called_name(call) for cls in here for n in cls.body)


def _dataset_argument(reader: Reader, call: ast.Call) -> Setting | Unknown | None:
    """Read a dataset of an earlier cell handed to a function of an earlier cell that only iterates over it."""
    if not isinstance(call.func, ast.Name) or reader.bindings(call.func):
        return None
    given = [n for a in (*call.args, *(k.value for k in call.keywords)) for n in ast.walk(a) if isinstance(n, ast.Name)]
    known = [n for n in given if not reader.bindings(n) and reader.facts.dataset(n.id) is not None]
    if len(known) != 1 or all(known[0] is not a for a in (*call.args, *(k.value for k in call.keywords))):
        return None  # of several, which one ran out is not known here
    sources = [c for c in reader.facts.earlier_cells if f"def {call.func.id}(" in c]
    if not sources and hasattr(builtins, call.func.id):
        return None  # iter, list, len: Python's own, which use no batch themselves
    if not sources or any(word in sources[-1] for word in ("len(", "cardinality", "unbatch", "batch_size", "BATCH")):
        return Unknown(f"`{call.func.id}` is defined elsewhere, and what it does with `{known[0].id}` is not known")
    traced = trace(reader, known[0])
    return traced if isinstance(traced, (Setting, Unknown)) else None
