"""Losses that compare the samples of a batch with each other: the mean of parts is not the whole."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.text.cell import parse
from tf_mem_magic.notebook.uses import called_name, is_batch_name
from tf_mem_magic.remedies.accumulate_gradients.sums import along_samples

_COMPARES = re.compile(
    r"(?i)\b(?:dice|tversky|(?:contrastive|triplet)_?loss|ntxent|info_?nce)(?:_?loss)?\b|\.Retrieval\(|"
    r"(?:\b|_)(?:dice|tversky)\w*_?loss|(?:contrastive|triplet|supcon|simclr|barlow|nt_?xent|info_?nce|npairs?)\w*_?loss|"
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


_PRODUCTS = ("matmul", "dot", "tensordot")
_PICKS = ("range", "arange", "eye", "diag", "diag_part", "tensor_diag_part", "identity")
"""What tells the samples of one product apart by their place: the labels of a contrastive loss, or its diagonal."""


def pairs_samples(text: str) -> bool:
    """Tell whether code multiplies all samples of a batch with all, and knows each again by its place."""
    tree = parse(text)
    statements = [] if tree is None else [n for n in tree.body if not isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    functions = [] if tree is None else [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return any(_pairs(list(ast.walk(one))) for one in (*statements, *functions))


def _pairs(nodes: list[ast.AST]) -> bool:
    return any(map(_is_of_pairs, nodes)) and any(map(_picks, nodes))


def _is_of_pairs(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and called_name(node) in _PRODUCTS:
        given = {k.arg: k.value for k in node.keywords}
        by_flag = any(getattr(given.get(name), "value", None) is True for name in ("transpose_b", "adjoint_b"))
        return by_flag or any(map(_is_transposed, node.args[1:2]))
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and _is_transposed(node.right)


def _is_transposed(expr: ast.expr) -> bool:
    if isinstance(expr, ast.Attribute):
        return expr.attr == "T"
    return isinstance(expr, ast.Call) and called_name(expr) == "transpose"


def _picks(node: ast.AST) -> bool:
    """Tell whether samples are picked by their places, ``tf.range(tf.shape(x)[0])`` or ``tf.linalg.diag_part(…)``.

    Or by the labels that each has in common with each: ``tf.equal(y, tf.transpose(y))``.
    """
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
        return _each_with_each(node.left, node.comparators[0])
    if isinstance(node, ast.Call) and called_name(node) in ("equal", "not_equal") and len(node.args) == 2:
        return _each_with_each(*node.args)
    if not isinstance(node, ast.Call) or called_name(node) not in _PICKS:
        return False
    if called_name(node) not in ("range", "arange", "eye", "identity"):
        return True
    inside = [n for given in node.args for n in ast.walk(given)]
    names = [n.id if isinstance(n, ast.Name) else n.attr for n in inside if isinstance(n, (ast.Name, ast.Attribute))]
    return any(name in ("shape", "len") or is_batch_name(name) for name in names)


def _each_with_each(one: ast.expr, other: ast.expr) -> bool:
    """Tell whether the same values stand along rows on one side and along columns on the other."""
    for along, across in ((one, other), (other, one)):
        if _is_transposed(across) and ast.unparse(along) == _turned(across):
            return True
        first = (
            across.slice.elts[0] if isinstance(across, ast.Subscript) and isinstance(across.slice, ast.Tuple) else None
        )
        first = across.slice if isinstance(across, ast.Subscript) and first is None else first
        base = along.value if isinstance(along, ast.Subscript) else along
        if _is_new_axis(first) and isinstance(across, ast.Subscript) and ast.unparse(base) == ast.unparse(across.value):
            return True
    return False


def _turned(expr: ast.expr) -> str:
    """Give what is transposed, as it is written; empty where by other axes than its two."""
    if isinstance(expr, ast.Attribute):
        return ast.unparse(expr.value)
    return ast.unparse(expr.args[0]) if isinstance(expr, ast.Call) and len(expr.args) == 1 and not expr.keywords else ""


def _is_new_axis(expr: ast.expr | None) -> bool:
    is_none = isinstance(expr, ast.Constant) and expr.value is None
    return is_none or (isinstance(expr, ast.Attribute) and expr.attr == "newaxis")


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
        return name in _EACH_ALONE or (name in _SUMS and along_samples(node, {}) is False)
    if isinstance(node, ast.Subscript):
        first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
        added = any(isinstance(n, ast.Constant) and n.value is None for n in ast.walk(node.slice))
        return isinstance(first, ast.Slice) and first.lower is first.upper is first.step is None and not added
    return not isinstance(node, (ast.MatMult, ast.For, ast.While, ast.comprehension, ast.Attribute)) or (
        isinstance(node, ast.Attribute) and node.attr not in ("T", "newaxis")
    )
