"""Losses that compare the samples of a batch with each other: the mean of parts is not the whole."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.uses import called_name

_COMPARES = re.compile(
    r"(?i)\b(?:dice|tversky|(?:contrastive|triplet)_?loss|ntxent|info_?nce)(?:_?loss)?\b|\.Retrieval\(|"
    r"(?:\b|_)(?:dice|tversky|contrastive|triplet|supcon|simclr|barlow|nt_?xent|info_?nce)\w*_?loss|"
    r"loss=\s*['\"](?:dice|tversky)"
)
_NAME = re.compile(r"\w+")

_EACH_ALONE = frozenset(
    "mean reduce_mean square sqrt maximum minimum abs cast equal not_equal less greater less_equal greater_equal where "
    "log exp pow clip clip_by_value epsilon constant convert_to_tensor add subtract multiply divide negative float "
    "relu sigmoid softplus zeros_like ones_like stop_gradient identity".split()
)
"""Functions that compute each number alone, and the mean of all: a loss of these is a mean over the samples."""

_SUMS = ("sum", "reduce_sum", "norm", "l2_normalize", "normalize")


def compares_samples(notebook: Notebook, text: str) -> bool:
    """Tell whether a text names a loss that seems to compare samples, where the notebook does not show otherwise.

    A contrastive loss of pairs or triplets that are the model's inputs goes by the same name, and compares none.
    """
    names = {_whole(text, found) for found in _COMPARES.finditer(text)}
    return not names <= {defined for name in names for defined in _each_alone(notebook, name)}


_LOSS = re.compile(r"(?:\bloss\s*=|\bcompile\([^()]*(?:\([^()]*\))?,)\s*([A-Za-z_]\w*)\s*[,)]")
_BENDS = frozenset("sqrt rsqrt log log1p log10 exp pow reciprocal divide divide_no_nan".split())
_MEANS = frozenset("mean reduce_mean sum reduce_sum".split())
_COUNTS = re.compile(r"(?i)mask|weight|count|valid|shape|size|len")
_DEEPEST = 3


def bent_mean(notebook: Notebook, text: str) -> str:
    """Name a loss of the notebook that computes with a mean or a sum over the samples of a batch; empty: none does.

    A root of a mean, or a quotient of two sums (F1, R²), of the parts of a batch does not average to that of the whole.
    """
    return next((m[1] for m in _LOSS.finditer(text) if _bends(notebook, m[1], 0)), "")


def _bends(notebook: Notebook, name: str, depth: int) -> bool:
    function = notebook.function(name)
    if function is None or not isinstance(function.node, ast.FunctionDef) or depth > _DEEPEST:
        return False
    nodes = [node for statement in function.node.body for node in ast.walk(statement)]
    sums: set[str] = set()
    for _ in range(2):  # a name may be computed of one that stands below in this order
        for node in nodes:
            if isinstance(node, ast.Assign) and _holds_a_sum(node.value, sums):
                sums |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    if any(_bends_it(node, sums) for node in nodes):
        return True
    called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return any(_bends(notebook, one, depth + 1) for one in sorted(called - {name}))


def _bends_it(node: ast.AST, sums: set[str]) -> bool:
    if isinstance(node, ast.Call) and called_name(node) in _BENDS:
        parts = node.args[-1:] if called_name(node).startswith("divide") else node.args[:1]
        return any(_holds_a_sum(part, sums) and not _COUNTS.search(ast.unparse(part)) for part in parts)
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, (ast.Div, ast.Pow)):
        return False
    part = node.right if isinstance(node.op, ast.Div) else node.left
    return _holds_a_sum(part, sums) and not _COUNTS.search(ast.unparse(part))


def _holds_a_sum(expr: ast.expr, sums: set[str]) -> bool:
    """Tell whether a value is computed of a mean or a sum over the samples of a batch."""
    return any(
        (isinstance(n, ast.Name) and n.id in sums)
        or (isinstance(n, ast.Call) and called_name(n) in _MEANS and not _is_within_a_sample(n))
        for n in ast.walk(expr)
    )


def _whole(text: str, found: re.Match[str]) -> str:
    """Give the name of which a part was found."""
    return next((m[0] for m in _NAME.finditer(text) if m.start() <= found.start() < found.end() <= m.end()), "")


def _each_alone(notebook: Notebook, name: str) -> list[str]:
    """List a function of the notebook and those within it, where they take each sample alone."""
    function = notebook.function(name) if name else None
    if function is None or not isinstance(function.node, ast.FunctionDef):
        return []
    nodes = [node for statement in function.node.body for node in ast.walk(statement)]
    first = function.node.args.args[:1]
    listed = first[0].arg if first and _is_given_a_list(notebook, name) else ""
    if not any(isinstance(n, ast.Return) for n in nodes):
        return []
    if not all(_is_of_each(node) or _is_an_input(node, listed) for node in nodes):
        return []
    return [name, *(n.name for n in nodes if isinstance(n, ast.FunctionDef))]


def _is_given_a_list(notebook: Notebook, name: str) -> bool:
    """Tell whether a layer calls a function with several inputs: ``Lambda(triplet_loss)([anchor, near, far])``."""
    made = ((call, call.func) for cell in notebook.cells_with("Lambda") for call in cell.calls)
    return any(
        isinstance(layer, ast.Call)
        and called_name(layer) == "Lambda"
        and any(isinstance(given, ast.Name) and given.id == name for given in layer.args[:1])
        and any(isinstance(given, (ast.List, ast.Tuple)) for given in call.args[:1])
        for call, layer in made
    )


def _is_an_input(node: ast.AST, listed: str) -> bool:
    """Tell whether an entry is one of a layer's inputs, and not one of its samples."""
    entry = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == listed
    return entry and isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)


def _is_of_each(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        name = called_name(node)
        return name in _EACH_ALONE or (name in _SUMS and _is_within_a_sample(node))
    if isinstance(node, ast.Subscript):
        first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
        added = any(isinstance(n, ast.Constant) and n.value is None for n in ast.walk(node.slice))
        return isinstance(first, ast.Slice) and first.lower is first.upper is first.step is None and not added
    return not isinstance(node, (ast.MatMult, ast.For, ast.While, ast.comprehension, ast.Attribute)) or (
        isinstance(node, ast.Attribute) and node.attr not in ("T", "newaxis")
    )


def _is_within_a_sample(call: ast.Call) -> bool:
    """Tell whether a sum goes along another axis than that of the samples."""
    given = [k.value for k in call.keywords if k.arg in ("axis", "dim")] or call.args[1:2]
    try:
        axis = ast.literal_eval(given[0]) if given else None
    except ValueError:
        return False
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    return all(isinstance(one, int) and (one > 0 or one == -1) for one in axes)
