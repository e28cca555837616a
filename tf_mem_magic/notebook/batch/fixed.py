"""Models that are built for one batch size only."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import partial

from tf_mem_magic.notebook.batch.counting_on import number_held
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.steps import follows
from tf_mem_magic.notebook.follow.behind import Piece, behind, failing_names, model_names, pieces
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader, Setting
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import SHAPES, called_name, is_batch_name

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
        if here and call is not None and _runs_later(reader, piece.statement, call):
            continue
        for node in ast.walk(piece.statement):
            if not isinstance(node, ast.Call) or not _may_be_a_layer(node):
                continue
            size = _size(node)
            if size is not None and here:
                return f"the model is built for one batch size only {reader.cell.aside(node)}", size
            if not here and (size is not None or _is_stateful(node)):
                return "an earlier cell builds a model for one batch size only", None
    return None


def _runs_later(reader: Reader, statement: ast.stmt, call: ast.Call) -> bool:
    """Tell whether a statement of the cell runs only after the call that failed: another model may get its name."""
    top = reader.scopes.scope_of(call) is reader.cell.tree
    return top and statement.lineno > reader.scopes.top_statement(call).lineno


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


def shape_with(reader: Reader, batch: int, call: ast.Call | None = None) -> ast.Call | None:
    """Find a shape such as ``normal([64, 100])`` that begins with the batch size as a number.

    What ``call`` computes on is data of so many samples: ``x = np.zeros((32, 8))``, ``model.fit(x, y)``.
    """
    handed = [] if call is None else [*call.args, *(k.value for k in call.keywords)]
    data = {n.id for one in handed for n in ast.walk(one) if isinstance(n, ast.Name)}
    for node in reader.cell.calls:
        if called_name(node) not in SHAPES or _only_makes(reader, node, data):
            continue
        # An image of 64 by 64 is no batch.
        if any(one[:1] == [batch] and one.count(batch) == 1 for one in _shapes(node)) and not _is_weight(
            reader, node, batch
        ):
            return node
    return None


def _shapes(call: ast.Call) -> Iterator[list[object]]:
    """Yield the lists of numbers that a call is given; None for what is no number."""
    for given in (*call.args, *(k.value for k in call.keywords)):
        if isinstance(given, (ast.Tuple, ast.List)):
            yield [e.value if isinstance(e, ast.Constant) else None for e in given.elts]


def _is_weight(reader: Reader, node: ast.Call, width: int) -> bool:
    """Tell whether a shape is that of a layer's weights: a variable, as wide as what another one gives."""
    made = {call for call in reader.cell.calls if called_name(call) == "Variable"}
    if made.isdisjoint(reader.scopes.up(node)):
        return False
    inside = (n for call in made for n in ast.walk(call) if isinstance(n, ast.Call) and n is not node)
    return any(len(one) > 1 and one[-1] == width for n in inside if called_name(n) in SHAPES for one in _shapes(n))


def _only_makes(reader: Reader, node: ast.Call, names: set[str]) -> bool:
    """Tell whether an array is made for one of the names, at the top of the cell."""
    statement = reader.scopes.statement(node)
    if not isinstance(statement, ast.Assign) or statement not in reader.cell.tree.body:
        return False
    between = itertools.takewhile(lambda above: above is not statement, reader.scopes.up(node))
    if not all(isinstance(above, (ast.Call, ast.Attribute, ast.BinOp)) for above in between):
        return False
    return all(isinstance(target, ast.Name) and target.id in names for target in statement.targets)


def asked_for(reader: Reader, found: BatchFound) -> str:
    """Say where a loop asks whether a batch has as many samples as it had: ``if len(x) != 64: continue``; or empty.

    A function of an earlier cell may ask it of what it is handed. What the edit sets follows it.
    """
    for cell, node in _nodes_behind(reader, found):
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            continue
        here = cell is reader.cell
        for one, other in ((node.left, node.comparators[0]), (node.comparators[0], node.left)):
            start = cell.start(other)
            edited = here and any(slot.start <= start < slot.end for slot in found.slots)
            if not _is_a_length(one) or edited or not _within_a_loop(cell, node):
                continue
            if _is_number(other, found.value) or _holds(reader, cell, other, found):
                return cell.told(node) if here else "code of an earlier cell"
    return ""


def _nodes_behind(reader: Reader, found: BatchFound) -> Iterator[tuple[PythonCell, ast.AST]]:
    """Yield the nodes of the cell, and of the functions and classes of earlier cells that it reaches."""
    yield from ((reader.cell, node) for node in reader.nodes)
    for piece in behind(reader, failing_names(reader, found.call)):
        if piece.cell is not reader.cell and isinstance(piece.statement, (ast.FunctionDef, ast.ClassDef)):
            yield from ((piece.cell, node) for node in ast.walk(piece.statement))


def _holds(reader: Reader, cell: PythonCell, expr: ast.expr, found: BatchFound) -> bool:
    """Tell whether the size is read by a name that the edit leaves; in an earlier cell, by one of the notebook."""
    if not isinstance(expr, ast.Name):
        return False
    if cell is reader.cell and reader.bindings(expr):
        setting = Setting(found.value, found.slots, found.names)
        return evaluate(reader, expr) == found.value and not follows(reader, expr, setting)
    if not isinstance(cell.scopes.home(expr), ast.Module):
        return False
    return expr.id not in found.names and number_held(reader, expr.id) == found.value


def _is_a_length(expr: ast.expr) -> bool:
    """Tell the number of samples of something: ``len(x)``, ``x.shape[0]``, ``int(tf.shape(x)[0])``."""
    if isinstance(expr, ast.Call) and called_name(expr) in ("int", "len") and len(expr.args) == 1:
        return called_name(expr) == "len" or _is_a_length(expr.args[0])
    if not isinstance(expr, ast.Subscript) or not isinstance(expr.slice, ast.Constant) or expr.slice.value != 0:
        return False
    shape = expr.value.func if isinstance(expr.value, ast.Call) else expr.value
    return isinstance(shape, (ast.Attribute, ast.Name)) and "shape" in (
        shape.attr if isinstance(shape, ast.Attribute) else shape.id
    )


def _within_a_loop(cell: PythonCell, node: ast.AST) -> bool:
    return any(isinstance(up, (ast.For, ast.AsyncFor, ast.While, ast.FunctionDef)) for up in cell.scopes.up(node))


_SIZES = re.compile(
    r"(?i)unit|dim|width|height|channel|class|hidden|feature|filter|latent|pixel|vocab|embed|depth|seq|step|token|len"
)
"""How names are written that hold other sizes than that of a batch."""
_SUMS = ("reduce_sum", "sum", "add_n", "l2_loss")


def mean_with(reader: Reader, found: BatchFound) -> str:
    """Say where a loss is a sum over the batch that is divided by its size, which would stay; empty where none is.

    ``tf.reduce_sum(losses) / 64``, ``* (1. / 64)``, ``global_batch_size=64``: of smaller batches it would be a part of
    a mean. So it would for a sum that a loop over the samples adds up (a metric of one's own), divided by a name that
    holds the size. A name that the edit sets follows them.
    """
    if not reader.notebook.has("sum(", "add_n(", "l2_loss(", "global_batch_size", "+="):
        return ""
    functions = [
        (piece.cell, piece.statement)
        for piece in behind(reader, failing_names(reader, found.call))
        if piece.cell is not reader.cell and isinstance(piece.statement, (ast.FunctionDef, ast.ClassDef))
    ]
    for cell, root in [(reader.cell, reader.cell.tree), *functions]:
        for node in cell.nodes if root is cell.tree else ast.walk(root):
            if isinstance(node, (ast.expr, ast.keyword)) and _divides_by(reader, cell, root, node, found):
                at = node.value if isinstance(node, ast.keyword) else node
                return reader.cell.told(at) if cell is reader.cell else "an earlier cell"
    return ""


def _divides_by(
    reader: Reader, cell: PythonCell, root: ast.AST, node: ast.expr | ast.keyword, found: BatchFound
) -> bool:
    def stays(expr: ast.expr, any_name: bool = True) -> bool:
        """Tell whether a number is as large as the batch, and no place or name that the edit sets."""
        if any(slot.start <= cell.start(expr) < slot.end for slot in found.slots) and cell is reader.cell:
            return False
        if isinstance(expr, (ast.Name, ast.Attribute)):
            name = reader.written(expr)
            says = is_batch_name(name) or "batch" in name.lower() or (any_name and not _SIZES.search(name))
            return says and name not in found.names and number_held(reader, name) == found.value
        return _is_number(expr, found.value)

    if isinstance(node, ast.keyword):
        return node.arg == "global_batch_size" and stays(node.value)
    if not isinstance(node, ast.BinOp):
        return False
    if isinstance(node.op, ast.Div):
        named = isinstance(node.right, (ast.Name, ast.Attribute))
        if _is_sum(cell, node.left):
            return stays(node.right)
        return named and stays(node.right, any_name=False) and _is_added_up(root, node.left)
    if not isinstance(node.op, ast.Mult):
        return False
    sides = (node.left, node.right)
    shares = [side for side in sides if isinstance(side, ast.BinOp) and isinstance(side.op, ast.Div)]
    return any(map(partial(_is_sum, cell), sides)) and any(_is_number(s.left, 1) and stays(s.right) for s in shares)


def _is_sum(cell: PythonCell, expr: ast.expr) -> bool:
    """Tell whether an expression, or what its name was given, adds up all that it gets."""
    if isinstance(expr, ast.Name):
        found = cell.scopes.of(cell.scopes.home(expr), expr.id)
        return any(b.value is not None and not isinstance(b.value, ast.Name) and _is_sum(cell, b.value) for b in found)
    if not isinstance(expr, ast.Call) or called_name(expr) not in _SUMS:
        return False
    return len(expr.args) <= 1 and not any(k.arg == "axis" for k in expr.keywords)


def _is_added_up(root: ast.AST, expr: ast.expr) -> bool:
    """Tell whether a function begins a sum at 0 and adds to it in a loop: ``self.score += one`` for each sample."""
    if not isinstance(expr, (ast.Name, ast.Attribute)):
        return False
    name = ast.unparse(expr)
    for function in (n for n in ast.walk(root) if isinstance(n, ast.FunctionDef)):
        nodes = list(ast.walk(function))
        begins = any(
            isinstance(n, ast.Assign) and _is_number(n.value, 0) and name in map(ast.unparse, n.targets) for n in nodes
        )
        loops = [n for n in nodes if isinstance(n, (ast.For, ast.While))]
        added = (n for loop in loops for n in ast.walk(loop) if isinstance(n, ast.AugAssign))
        if begins and any(isinstance(n.op, ast.Add) and ast.unparse(n.target) == name for n in added):
            return True
    return False


def _is_number(expr: ast.expr, number: int) -> bool:
    return isinstance(expr, ast.Constant) and type(expr.value) in (int, float) and expr.value == number
