"""Values that an earlier cell made for batches of one size, and that code which runs computes with a batch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from tf_mem_magic.notebook.follow.behind import Piece, behind, failing_names, made_by, model_names
from tf_mem_magic.notebook.follow.made_with import Given
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import KERAS, MODEL, SHAPES, called_name, is_batch_name, role

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_STEPS = ("train_on_batch", "test_on_batch")
_LIBRARIES = ("tensorflow.", "keras.", "numpy.")
_LOSS = re.compile(r"(?i)loss|entropy|criterion|(?:^|_)[bc]ce(?:$|_)|(?:^|_)ms[el](?:$|_)")
_NUMBER = frozenset("int float len round abs max min sum ceil floor cast constant range".split())
"""Calls that give a number of it, or count to it: no value with one entry for each sample."""

_SAME_ENTRIES = frozenset("cast astype constant convert_to_tensor asarray array numpy expand_dims".split())
"""Calls whose result has the entries of what they are given."""

_SQUARE = SHAPES | {"eye"}


def made_for_the_batch(reader: Reader, call: ast.Call | None) -> Iterator[tuple[str, Given]]:
    """Yield what code that runs computes with a batch, by name, and the size by which an earlier cell made it.

    ``call`` is the call of Keras that failed; None: a loop of the cell's own. A mask, labels of ones or a constant of
    a model stay as they are when the batch becomes smaller.
    """
    if not reader.notebook.before.has(*_SQUARE, "ones", "batch", "BATCH", "Batch", "bs"):
        return
    seen: set[str] = set()
    for node in _computed_with(reader, call):
        name = node.id
        if name in seen or _is_set_by(reader.cell, name) or reader.scalar(name) is not None:
            continue
        seen.add(name)
        piece = next((p for p in made_by(reader, name) if name in p.binds), None)
        if piece is None or piece.cell is reader.cell or not isinstance(piece.statement, ast.Assign):
            continue
        value = _value_of(piece.statement, name)
        if value is not None:
            yield from ((name, given) for given in _sizes(piece.cell, value))


def _is_set_by(cell: PythonCell, name: str) -> bool:
    return bool(cell.scopes.of(cell.tree, name))


def _value_of(statement: ast.Assign, name: str) -> ast.expr | None:
    """Return what a name is set to: ``ones, zeros = np.ones(n), np.zeros(n)`` sets two."""
    for target in statement.targets:
        if isinstance(target, ast.Name) and target.id == name:
            return statement.value
        pairs = isinstance(target, (ast.Tuple, ast.List)) and isinstance(statement.value, (ast.Tuple, ast.List))
        if pairs and len(target.elts) == len(statement.value.elts):  # type: ignore[attr-defined]
            both = zip(target.elts, statement.value.elts)  # type: ignore[attr-defined]
            found = next((v for t, v in both if isinstance(t, ast.Name) and t.id == name), None)
            if found is not None:
                return found  # type: ignore[no-any-return]
    return None


def _sizes(cell: PythonCell, value: ast.expr) -> Iterator[Given]:
    """Yield the batch sizes, by name or number, that a value was made with."""
    for call in (n for n in ast.walk(value) if isinstance(n, ast.Call)):
        of_a_shape = called_name(call) in _SQUARE
        if not of_a_shape and not _may_make_an_array(call):
            continue
        parts = [*call.args, *(k.value for k in call.keywords)]
        for part in parts:
            first = part.elts[0] if isinstance(part, (ast.Tuple, ast.List)) and part.elts else part
            if of_a_shape and isinstance(first, ast.Constant) and _leads(part, first, parts):
                yield Given(call, first, "", first.value)  # type: ignore[arg-type]
            for node in ast.walk(part if of_a_shape else first):
                if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) or not _is_size(node):
                    continue
                if of_a_shape or (node is first and role(cell.scopes, node) != "free"):
                    yield Given(call, node, ast.unparse(node), None)


def _is_size(node: ast.Name | ast.Attribute | ast.Subscript) -> bool:
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and is_batch_name(str(node.slice.value))
    return is_batch_name(node.attr if isinstance(node, ast.Attribute) else node.id)


def _leads(part: ast.expr, first: ast.Constant, parts: list[ast.expr]) -> bool:
    """Tell whether a number is the first of a shape, and no other of it: an image of 64 by 64 is no batch."""
    if type(first.value) is not int or part is not parts[0]:
        return False
    shape = part.elts if isinstance(part, (ast.Tuple, ast.List)) else [part]
    return [getattr(e, "value", None) for e in shape].count(first.value) == 1


def _may_make_an_array(call: ast.Call) -> bool:
    """Tell functions that may make one entry for each sample from those that make numbers, data, models, objects."""
    name = called_name(call)
    return name[:1].islower() and name not in _NUMBER and not MODEL.search(name) and name not in KERAS


def _computed_with(reader: Reader, call: ast.Call | None) -> Iterator[ast.Name]:
    """Yield the names of the notebook that what runs computes with a batch.

    A call of ``fit`` computes with what its model and its functions read; a loop of the cell with all that it reads.
    """
    whole = call is not None and called_name(call) in KERAS
    data = {d.name for d in reader.facts.datasets} | {v.name for v in reader.facts.values}
    roots = model_names(reader, call) if whole else failing_names(reader, call)
    if not whole:
        tops = [s for s in reader.cell.tree.body if reader.covers(s)] or reader.cell.tree.body
        for statement in tops:
            yield from _operands(reader, reader.cell, ast.walk(statement))
    for piece in behind(reader, roots, but=data):
        if isinstance(piece.statement, _FUNCTIONS) or (whole and _builds(piece)):
            yield from _operands(reader, piece.cell, ast.walk(piece.statement))


def _builds(piece: Piece) -> bool:
    """Tell statements that may build a model from calls of its methods, which compute once."""
    statement = piece.statement
    if not isinstance(statement, ast.Expr):
        return True
    return isinstance(statement.value, ast.Call) and called_name(statement.value) == "add"


def _operands(reader: Reader, cell: PythonCell, nodes: Iterable[ast.AST]) -> Iterator[ast.Name]:
    for node in nodes:
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        if isinstance(cell.scopes.home(node), ast.Module) and _is_operand(reader, cell, node):
            yield node


def _is_operand(reader: Reader, cell: PythonCell, name: ast.Name) -> bool:
    """Tell whether a name stands beside another value in an operation, a loss, or a step of training."""
    node: ast.AST = name
    parents = cell.scopes.parents
    above = parents.get(node)
    beside = False
    while above is not None:
        if isinstance(above, (ast.Tuple, ast.List)):
            beside = beside or any(_is_a_value(reader, e) for e in above.elts if e is not node)
        elif isinstance(above, ast.Attribute):
            if above.attr not in _SAME_ENTRIES or not isinstance(parents.get(above), ast.Call):
                return False
        elif isinstance(above, ast.Call):
            own = above.func if isinstance(above.func, ast.Attribute) else None
            if called_name(above) in _STEPS and node is not own:
                return True
            arguments = (*above.args, *(k.value for k in above.keywords))
            others = beside or any(_is_a_value(reader, a) for a in arguments if name not in set(ast.walk(a)))
            if node is not own and (others or called_name(above) not in _SAME_ENTRIES):
                return others and _computes(reader, above, in_list=beside)
        elif isinstance(above, ast.BinOp):
            return isinstance(above.op, (ast.Add, ast.Sub, ast.Mult, ast.MatMult)) and not beside
        elif not isinstance(above, ast.keyword):
            return False
        node, above = above, parents.get(above)
    return False


def _computes(reader: Reader, call: ast.Call, in_list: bool) -> bool:
    """Tell a library's operations, layers (``Concatenate()([a, b])``) and losses from other calls, as of datasets."""
    if isinstance(call.func, ast.Call):
        return in_list or reader.notebook.origin(call.func.func).startswith(_LIBRARIES)
    origin = reader.notebook.origin(call.func)
    computes = origin.startswith(_LIBRARIES) and not origin.startswith("tensorflow.data.")
    return computes or bool(_LOSS.search(called_name(call)))


def _is_a_value(reader: Reader, node: ast.expr) -> bool:
    """Tell an operand from a number or a name of a library, such as ``tf.float32``."""
    if isinstance(node, (ast.Constant, ast.UnaryOp)):
        return False
    return not reader.notebook.origin(node)
