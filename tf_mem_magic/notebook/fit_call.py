"""The one call of ``fit`` with which a cell trained a model, and whether it can be written again in another cell."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tf_mem_magic.core.facts import Facts, ModelFacts
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.model import read_notebook
from tf_mem_magic.notebook.read_first import assigned_names
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.uses import called_name

ARGUMENTS = (
    "x y batch_size epochs verbose callbacks validation_split validation_data shuffle class_weight sample_weight "
    "initial_epoch steps_per_epoch validation_steps validation_batch_size validation_freq"
).split()
"""The arguments of ``fit``, in their order (Keras's TensorFlow trainer)."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class FitCall:
    """The call that trained the model: its statement, the model, and the arguments by name, in ``fit``'s order.

    Arguments that are ``None`` are left out.
    """

    statement: ast.stmt
    model: ModelFacts
    given: dict[str, ast.expr]


def find_fit(cell: PythonCell, facts: Facts) -> FitCall:
    """Find the top-level statement of the cell that trained a model, by ``fit``.

    Raises
    ------
    RefusedError
        If the cell trained no model by ``fit``, more than once, or not in a statement of its own.
    """
    trained = {m.name: m for m in facts.models if m.steps > (m.steps_before or 0)}
    if not trained:
        raise RefusedError("the cell trained no Keras model that a name of the notebook holds")
    calls = [
        node
        for node in ast.walk(cell.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fit"
    ]
    calls = [call for call in calls if _receiver(call) in trained]
    if not calls:
        raise RefusedError("the cell does not call `fit` of the model it trained, and that call is needed")
    if len(calls) > 1:
        raise RefusedError("the cell calls `fit` more than once, so which training to go on with is not known")
    statements = [s for s in cell.tree.body if isinstance(s, (ast.Expr, ast.Assign, ast.AnnAssign))]
    statement = next((s for s in statements if s.value is calls[0]), None)
    if statement is None:
        raise RefusedError("`fit` is not a statement of its own here, but inside a function, a loop or a block")
    model = trained[_receiver(calls[0])]
    if not model.name.isidentifier():
        raise RefusedError(f"`{model.name}` is no plain name")
    return FitCall(statement, model, _arguments(calls[0]))


def last_fit(cells: Iterable[str], model: str) -> tuple[dict[str, ast.expr], str] | None:
    """Find the last call of ``fit`` of a model outside functions: its arguments by name, and the call as text.

    None where no cell has one whose arguments can be told apart.

    Parameters
    ----------
    cells : iterable of str
        The cells, oldest first.
    model : str
        The model, as the call has it.
    """
    for source in reversed(list(cells)):
        cell = read_cell(source) if "fit" in source else None
        if not isinstance(cell, PythonCell):
            continue
        inside = {id(node) for one in cell.nodes if isinstance(one, _FUNCTIONS) for node in ast.walk(one)}
        for call in reversed(cell.calls):
            if id(call) not in inside and _receiver(call) == model and called_name(call) == "fit":
                try:
                    return _arguments(call), ast.unparse(call)
                except RefusedError:
                    continue
    return None


def _receiver(call: ast.Call) -> str:
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    if len(call.args) > len(ARGUMENTS) or any(isinstance(a, ast.Starred) for a in call.args):
        raise RefusedError("the arguments of `fit` cannot be told apart")
    given = dict(zip(ARGUMENTS, call.args))
    for keyword in call.keywords:
        if keyword.arg is None:
            raise RefusedError("some arguments of `fit` are hidden behind **")
        if keyword.arg not in ARGUMENTS:
            raise RefusedError(f"`{keyword.arg}` is no argument of Keras's `fit`")
        given[keyword.arg] = keyword.value
    given = {word: given[word] for word in ARGUMENTS if word in given and not _is_none(given[word])}
    if "x" not in given:
        raise RefusedError("`fit` is given no data")
    return given


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def check_data(fit: FitCall, facts: Facts, cell: PythonCell, left_out: tuple[str, ...]) -> None:
    """See that the model and every argument, but those of ``left_out``, can be written again after the cell.

    Raises
    ------
    RefusedError
        If one of them is made in the call, is changed later, can be read only once, or an epoch has no known length.
    """
    after = cell.tree.body[cell.tree.body.index(fit.statement) :]
    changed = {name for statement in after for name in _changed(statement)}
    if fit.model.name in changed:
        raise RefusedError(f"`{fit.model.name}` is changed after `fit`")
    for word, node in fit.given.items():
        if word not in left_out:
            _check_value(node, facts, changed)
    data = facts.dataset(ast.unparse(fit.given["x"]))
    if data is None or data.cardinality is not None:
        return
    if "steps_per_epoch" not in fit.given:
        raise RefusedError(
            f"how many batches `{data.name}` has is not known, and the new cell must know: give `fit` `steps_per_epoch`"
        )
    if read_notebook(cell.source, facts.earlier_cells).has("from_generator"):
        raise RefusedError(f"`{data.name}` may come from a generator, which can be read only once")


def _changed(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement stores to or deletes, whole or in part."""
    for node in ast.walk(statement):
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            root: ast.expr = node
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            if isinstance(root, ast.Name):
                yield root.id


def _check_value(node: ast.expr, facts: Facts, changed: set[str]) -> None:
    """Refuse an argument that would not be the same when it is written again."""
    text = ast.unparse(node)
    if isinstance(node, ast.Constant) or text in {s.name for s in facts.scalars if s.value is not None}:
        inner: Iterable[ast.expr] = ()
    elif isinstance(node, ast.Name):
        kind = next((d.kind for d in facts.datasets if d.name == node.id), "")
        if kind == "generator":
            raise RefusedError(f"`{node.id}` is a generator, which can be read only once")
        if node.id not in facts.repeatable:
            raise RefusedError(f"`{node.id}` is no array, table or dataset that can be read again after the cell")
        inner = ()
    elif isinstance(node, (ast.Tuple, ast.List)):
        inner = node.elts
    elif isinstance(node, ast.Dict) and None not in node.keys:
        inner = node.values
    elif isinstance(node, ast.Subscript):
        inner = (node.value, *_parts(node.slice))
    elif isinstance(node, ast.BinOp):
        inner = (node.left, node.right)
    elif isinstance(node, ast.UnaryOp):
        inner = (node.operand,)
    elif isinstance(node, ast.Call) and _receives_one(node, "len"):
        inner = node.args
    else:
        raise RefusedError(f"`fit` is given `{text}`, which is made in the call: give it a name first")
    for one in inner:
        _check_value(one, facts, changed)
    for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & changed:
        raise RefusedError(f"`{name}` is changed after `fit`")


def _parts(index: ast.expr) -> list[ast.expr]:
    slices = index.elts if isinstance(index, ast.Tuple) else [index]
    return [
        part
        for one in slices
        for part in ([one.lower, one.upper, one.step] if isinstance(one, ast.Slice) else [one])
        if part is not None
    ]


def _receives_one(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == name and len(call.args) == 1 and not call.keywords


def free_names(cell: PythonCell, facts: Facts, again: str, *wanted: str) -> tuple[str, ...]:
    """Make names for a new cell that no cell of the notebook binds; those that hold ``again`` make the same ones.

    Raises
    ------
    RefusedError
        If the notebook uses the name ``apply`` itself, which the new cell imports.
    """
    texts = [text for text in (cell.source, *facts.earlier_cells) if again not in text]
    taken = {name for text in texts for name in assigned_names(text)}
    if "apply" in taken:
        raise RefusedError("the notebook uses the name `apply` for something of its own")
    tries = ((name, *(f"{name}_{n}" for n in range(2, 99))) for name in wanted)
    return tuple(next(one for one in names if one not in taken) for names in tries)
