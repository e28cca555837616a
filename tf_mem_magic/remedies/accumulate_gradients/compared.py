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


def _whole(text: str, found: re.Match[str]) -> str:
    """Give the name of which a part was found."""
    return next((m[0] for m in _NAME.finditer(text) if m.start() <= found.start() < found.end() <= m.end()), "")


def _each_alone(notebook: Notebook, name: str) -> list[str]:
    """List a function of the notebook and those within it, where they take each sample alone."""
    function = notebook.function(name) if name else None
    if function is None or not isinstance(function.node, ast.FunctionDef):
        return []
    nodes = [node for statement in function.node.body for node in ast.walk(statement)]
    if not any(isinstance(n, ast.Return) for n in nodes) or not all(map(_is_of_each, nodes)):
        return []
    return [name, *(n.name for n in nodes if isinstance(n, ast.FunctionDef))]


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
