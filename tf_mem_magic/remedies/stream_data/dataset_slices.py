"""Datasets of arrays (``from_tensor_slices``), changed to carry the numbers of samples and to look the samples up."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.ranges import CellEdit
from tf_mem_magic.remedies.stream_data.array_calls import LITTLE
from tf_mem_magic.remedies.stream_data.dataset_chains import Chain, Chains, method
from tf_mem_magic.remedies.stream_data.streaming import (
    MAPPED_NOTE,
    PACKAGE_NOTE,
    STAYS_NOTE,
    find_arrays,
    known_bytes,
    map_files,
)

_ANY_ELEMENT = frozenset({"shuffle", "repeat", "take", "skip", "shard", "batch", "cache", "prefetch", "with_options"})
"""Steps that do the same whatever the elements are, so also with the numbers of samples."""

_CHANGERS = frozenset({"fill", "sort", "resize", "put", "partition", "setfield", "byteswap", "shuffle"})


@dataclass(frozen=True, slots=True)
class LookedUp:
    """The edits of one dataset, how many of its steps carry numbers then, and what is to be said."""

    edits: tuple[CellEdit, ...]
    steps: int
    caveats: tuple[str, ...]


def look_up_samples(reader: Reader, chains: Chains, chain: Chain, limit: int | None) -> LookedUp | str | None:
    """Let a dataset of large arrays carry the numbers of samples.

    A text is the reason why not, as a sentence; None where it is no dataset of known, large arrays.
    """
    root = chain.root
    if not isinstance(root, ast.Call) or not isinstance(root.func, ast.Attribute) or not chains.is_source(root):
        return None
    if root.func.attr != "from_tensor_slices" or len(root.args) != 1 or root.keywords:
        return None
    data = root.args[0]
    held = None if any(isinstance(node, ast.List) for node in ast.walk(data)) else find_arrays(reader, data)
    if held is None or not _is_plain(reader, root, data) or _is_set_later(reader, root, _texts(data)):
        return None
    copied = known_bytes(held)
    names = {one.name for one in held}
    little = limit is not None and copied is not None and 2 * copied < LITTLE * limit
    if little or any(v.kind != "numpy.ndarray" for v in reader.facts.values if v.name in names):
        return None
    if "distribute" in reader.cell.python:
        return "the dataset may be spread over several devices"
    later = (node for node in ast.walk(reader.cell.tree) if getattr(node, "lineno", 0) >= root.lineno)
    if any(_changes(node, names | _texts(data)) for node in later):
        return "the arrays are changed in place after the dataset was made, which took a copy"
    cell = reader.cell
    steps = _carrying(reader, chain, root, data)
    last = steps[-1] if steps else root
    if method(last) == "shuffle" and _may_repeat(reader, chain, chain.steps[len(steps) :]):
        return "a `repeat` may follow the shuffling, and TensorFlow makes one step of the two, which draws differently"
    maps = map_files(reader, held)
    edits = (
        CellEdit(cell.end(root.func.value), cell.end(root), f".range(len({_first(reader, data)}))"),
        CellEdit(cell.end(last), cell.end(last), f".map(apply.rows({cell.text(data)}))"),
        *maps,
    )
    batched = "batch" in map(method, steps)
    caveats = (
        MAPPED_NOTE if maps else STAYS_NOTE,
        "The arrays must not change while the dataset is used.",
        *(() if batched else ("Samples are looked up one by one, which takes longer.",)),
        PACKAGE_NOTE,
    )
    return LookedUp(edits, len(steps), caveats)


def _may_repeat(reader: Reader, chain: Chain, rest: tuple[ast.Call, ...]) -> bool:
    """Whether ``repeat`` may come right after the steps that carry numbers; ``rest`` are those that follow them."""
    if rest:
        return method(rest[0]) == "repeat"
    calls = (node for node in ast.walk(reader.cell.tree) if isinstance(node, ast.Call))
    return any(method(call) == "repeat" and call not in chain.steps for call in calls)


def _carrying(reader: Reader, chain: Chain, root: ast.Call, data: ast.expr) -> list[ast.Call]:
    """Give the steps that shall carry numbers: up to the last batch, shuffle, cache or the like."""
    steps: list[ast.Call] = []
    for step in chain.steps:
        if method(step) not in _ANY_ELEMENT or (method(step) == "cache" and (step.args or step.keywords)):
            break
        if _is_rebound(reader, root, step, _texts(data)):
            break
        steps.append(step)
    while steps and method(steps[-1]) in ("prefetch", "with_options"):
        steps.pop()
    return steps


def _is_rebound(reader: Reader, root: ast.Call, step: ast.Call, names: set[str]) -> bool:
    """Whether a name of the arrays is bound between the start of the pipeline and a step of it."""
    after = reader.scopes.statement(root).lineno
    before = reader.scopes.statement(step).end_lineno or 0
    nodes = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
    return any(n.id in names and after <= n.lineno <= before for n in nodes)


def _is_set_later(reader: Reader, root: ast.Call, names: set[str]) -> bool:
    """Whether a name of the arrays is set again further down: what is known of it may be of the later value."""
    stores = [n for n in ast.walk(reader.cell.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return any(n.id in names and n.lineno > root.lineno for n in stores)


def _is_plain(reader: Reader, root: ast.Call, data: ast.expr) -> bool:
    """Whether no comment stands in the text that is replaced, and no bracket around the data."""
    assert isinstance(root.func, ast.Attribute)
    cell = reader.cell
    around = cell.source[cell.end(root.func.value) : cell.start(data)] + cell.source[cell.end(data) : cell.end(root)]
    return "#" not in around and around.count("(") == 1


def _first(reader: Reader, data: ast.expr) -> str:
    while isinstance(data, (ast.Tuple, ast.Dict)):
        data = data.elts[0] if isinstance(data, ast.Tuple) else data.values[0]
    return reader.cell.text(data)


def _texts(root: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(root) if isinstance(n, ast.Name)}


def _changes(node: ast.AST, names: set[str]) -> bool:
    """Whether a statement or call changes one of the arrays in place."""
    if isinstance(node, ast.AugAssign):
        return _root(node.target) in names
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
        return _root(node) in names
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _CHANGERS and any(_root(one) in names for one in (node.func, *node.args)):
            return True
        return any(k.arg == "out" and _root(k.value) in names for k in node.keywords)
    return False


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
