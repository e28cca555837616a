"""Models that are built for one batch size only."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.notebook.follow.behind import Piece, behind, failing_names, model_names, pieces
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.uses import SHAPES, called_name

FIXED_BATCH = re.compile(
    r"batch_(?:input_)?shape\s*=\s*(?!None|[(\[]\s*None)|stateful\s*=\s*True|Input(?:Layer)?\(.*batch_size"
)
"""What the text of a cell must hold that builds such a model; whether it does is read from the tree."""


_PARTS = "num_microbatches"
_WORDS = ("batch_shape", "batch_input_shape", "stateful", "batch_size")


def fixed_model(reader: Reader, call: ast.Call | None) -> tuple[str, ast.expr | None] | None:
    """Find where the failing model is built for one batch size only: the reason, and the size where the cell says it.

    ``call`` is the call of Keras that failed; None: a loop of the cell's own.
    """
    if not reader.notebook.matches(FIXED_BATCH, *_WORDS):
        return None
    for piece in _that_made_it(reader, model_names(reader, call)):
        here = piece.cell is reader.cell
        for node in ast.walk(piece.statement):
            if not isinstance(node, ast.Call) or not _may_be_a_layer(node):
                continue
            size = _size(node)
            if size is not None and here:
                return f"the model is built for one batch size only {reader.cell.aside(node)}", size
            if not here and (size is not None or _is_stateful(node)):
                return "an earlier cell builds a model for one batch size only", None
    return None


def micro_batches(reader: Reader) -> str:
    """Say that an optimizer splits each batch into a number of parts (TensorFlow Privacy); empty where none does."""
    for cell in reader.notebook.cells_with(_PARTS):
        for node in cell.nodes:
            if not isinstance(node, ast.keyword) or node.arg != _PARTS:
                continue
            one = isinstance(node.value, ast.Constant) and node.value.value in (None, 1)
            known = reader.scalar(ast.unparse(node.value)) if isinstance(node.value, ast.Name) else None
            if not one and known != 1:
                return (
                    f"the optimizer splits each batch by `{_PARTS}`, which must divide it: make both smaller where "
                    "they are set, and run the cells from there on again"
                )
    return ""


def _that_made_it(reader: Reader, names: frozenset[str]) -> list[Piece]:
    """List the statements behind a model; all that there are where none of them makes it."""
    found = behind(reader, names)
    if any(names & piece.binds for piece in found):
        return found
    return [piece for cell in reader.notebook.cells_with(*_WORDS) for piece in cell.once(pieces)]


def _may_be_a_layer(call: ast.Call) -> bool:
    """Tell layers, and what makes them, from other functions that take such an argument: ``tf.eye(batch_shape=…)``."""
    return called_name(call)[:1].isupper() or called_name(call) == "partial"


def _size(call: ast.Call) -> ast.expr | None:
    """Return the batch size that a layer or an input is made for; None where it is made for any."""
    keywords = {k.arg: k.value for k in call.keywords}
    shape = keywords.get("batch_input_shape", keywords.get("batch_shape"))
    size = shape.elts[0] if isinstance(shape, (ast.Tuple, ast.List)) and shape.elts else shape
    if called_name(call) in ("Input", "InputLayer") and "batch_size" in keywords:
        size = keywords["batch_size"]
    return None if isinstance(size, ast.Constant) and size.value is None else size


def _is_stateful(call: ast.Call) -> bool:
    given = next((k.value for k in call.keywords if k.arg == "stateful"), None)
    return isinstance(given, ast.Constant) and given.value is True


def shape_with(reader: Reader, batch: int) -> ast.Call | None:
    """Find a shape such as ``normal([64, 100])`` that begins with the batch size as a number."""
    for node in reader.cell.calls:
        if called_name(node) not in SHAPES:
            continue
        for given in (*node.args, *(k.value for k in node.keywords)):
            sizes = given.elts if isinstance(given, (ast.Tuple, ast.List)) else []
            numbers = [e.value if isinstance(e, ast.Constant) else None for e in sizes]
            # An image of 64 by 64 is no batch.
            if numbers[:1] == [batch] and numbers.count(batch) == 1:
                return node
    return None


_SUMS = ("reduce_sum", "sum", "add_n")


def mean_with(reader: Reader, batch: int, call: ast.Call | None) -> str:
    """Say where a loss is a sum over the batch that is divided by its size as a number; empty where none is.

    ``tf.reduce_sum(losses) / 64`` or ``* (1. / 64)``: of smaller batches it would be a part of a mean.
    """
    if not reader.notebook.has(f"/ {batch}", f"/{batch}"):
        return ""
    pieces_of = [piece for piece in behind(reader, failing_names(reader, call)) if piece.cell is not reader.cell]
    functions = [(p.statement, False) for p in pieces_of if isinstance(p.statement, (ast.FunctionDef, ast.ClassDef))]
    for root, here in [(reader.cell.tree, True), *functions]:
        for node in ast.walk(root):
            if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Div) or not _is_number(node.right, batch):
                continue
            left = node.left
            summed = isinstance(left, ast.Call) and called_name(left) in _SUMS
            if summed or _is_number(left, 1):
                return reader.cell.told(node) if here else "an earlier cell"
    return ""


def _is_number(expr: ast.expr, number: int) -> bool:
    return isinstance(expr, ast.Constant) and type(expr.value) in (int, float) and expr.value == number
