"""Shuffle buffers of ``tf.data``: moved to where the elements are small, or made smaller."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.follow.calls import defined
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.ranges import CellEdit
from tf_mem_magic.remedies.stream_data.dataset_chains import Chain, Chains, method

MANY = 1000
"""Samples in a shuffle buffer from which a smaller one is proposed."""

FEW = 100
"""Samples in a shuffle buffer up to which it is left where it is."""

SHARE = 16
"""A smaller buffer holds this fraction of the samples."""

_SMALL = ("Dataset.list_files", "Dataset.range", "Dataset.from_tensor_slices")
_KEEPS_ORDER = frozenset({"prefetch", "with_options"})
_PURE = ("tensorflow.", "keras.ops.", "keras.utils.to_categorical")
_IMPURE = ("random", "function", "Variable", "data.", "lookup", "summary")


def move_before_maps(reader: Reader, chains: Chains, chain: Chain, step: ast.Call) -> list[CellEdit]:
    """Shuffle what the samples are made from (file names, numbers) instead of the samples; empty where not possible.

    The order stays the same: a buffer of the same size, with the same seed, draws the same places. A ``repeat`` right
    after it goes along, because TensorFlow makes one step of the two, which draws differently.
    """
    index = chain.steps.index(step)
    last = next((one for one in chain.steps[index + 1 : index + 2] if method(one) == "repeat"), step)
    maps = index
    while maps and (method(chain.steps[maps - 1]) in _KEEPS_ORDER or _maps_in_order(chain.steps[maps - 1])):
        maps -= 1
    while maps < index and method(chain.steps[maps]) != "map":
        maps += 1
    given = step.args[:1]
    size = evaluate(reader, given[0]) if given else None
    if isinstance(size, int) and size < FEW:
        return []
    small = any(chains.is_source(chain.root, name) for name in _SMALL)
    before = {method(one) for one in chain.steps[:maps]}
    if maps == index or not small or not before <= {"repeat", "take", "skip", "shard", "shuffle"}:
        return []
    target = chain.steps[maps - 1] if maps else chain.root
    cell = reader.cell
    assert isinstance(step.func, ast.Attribute)
    start, end, at = cell.end(step.func.value), cell.end(last), cell.end(target)
    text = cell.source[start:end]
    statements = {reader.scopes.statement(one) for one in (step, last, target)}
    arguments = [*step.args, *last.args, *(k.value for k in (*step.keywords, *last.keywords))]
    split = reader.scopes.statement(step) is not reader.scopes.statement(last)
    fixed = len(statements) == 1 or all(isinstance(a, ast.Constant) for a in arguments)
    if "#" in text or "\\" in text or split or not fixed:
        return []
    return [CellEdit(start, end, ""), CellEdit(at, at, text)]


def draws_nothing(reader: Reader, chains: Chains, chain: Chain, step: ast.Call) -> bool:
    """Whether the functions of the maps before ``step`` surely give a sample the same result at any place."""
    maps = [one for one in chain.steps[: chain.steps.index(step)] if method(one) == "map"]
    return all(one.args and _is_pure(reader, chains, one.args[0]) for one in maps)


def is_many(reader: Reader, chain: Chain, step: ast.Call) -> ast.expr | None:
    """Give the argument that makes a buffer hold many samples; None where it does not, or that is not known."""
    given = [*step.args[:1], *(k.value for k in step.keywords if k.arg == "buffer_size")]
    size = evaluate(reader, given[0]) if len(given) == 1 else None
    before = {method(one) for one in chain.steps[: chain.steps.index(step)]}
    many = MANY // 10 if before & {"batch", "padded_batch", "ragged_batch"} else MANY
    return given[0] if isinstance(size, int) and size >= many else None


def _maps_in_order(step: ast.Call) -> bool:
    ordered = not any(k.arg is None or k.arg == "deterministic" for k in step.keywords)
    return method(step) == "map" and ordered and len(step.args) == 1


def _is_pure(reader: Reader, chains: Chains, function: ast.expr) -> bool:
    body: ast.AST | None = function if isinstance(function, ast.Lambda) else defined(reader, function)
    if isinstance(function, ast.Name) and body is None and not reader.bindings(function):
        body = _earlier(chains, function.id)
    if not isinstance(body, (ast.Lambda, ast.FunctionDef)):
        return False
    calls = [n for n in ast.walk(body) if isinstance(n, ast.Call)]
    return all(_is_pure_call(chains, call) for call in calls)


def _earlier(chains: Chains, name: str) -> ast.FunctionDef | None:
    for tree in reversed(chains.names.earlier):
        found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
        stored = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name and not _loads(n)]
        if found or stored:
            return found[0] if len(found) == 1 and not stored else None
    return None


def _loads(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def _is_pure_call(chains: Chains, call: ast.Call) -> bool:
    origin = chains.names.origin(call.func)
    return origin.startswith(_PURE) and not any(word in origin for word in _IMPURE)
