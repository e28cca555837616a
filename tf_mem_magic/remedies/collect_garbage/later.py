"""Whether a model may still be trained after it was put into a list: its weights are not to be taken before that."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Literal

from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.read_first import bound_anew
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell, walk
from tf_mem_magic.notebook.uses import called_name

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_ONLY_READ = frozenset(
    "evaluate predict predict_on_batch test_on_batch summary save save_weights get_weights count_params name to_json "
    "get_config history metrics_names input_shape output_shape export evaluate_generator predict_generator".split()
)
"""What can be asked of a model without changing its weights."""

_LOOKS = frozenset({"print", "len", "id", "type", "str", "repr", "display", "isinstance", "plot_model", "hasattr"})
_TRAINS = frozenset(
    "fit fit_generator train_on_batch train_step apply_gradients apply minimize GradientTape set_weights load_weights "
    "assign assign_add assign_sub trainable_variables trainable_weights compute_gradients fit_resample".split()
)
"""Words without which a function does not change weights."""


When = Literal["never", "in its round", "later"]


def trained_later(notebook: Notebook, entry: ast.expr, statement: ast.stmt, made: ast.stmt) -> When:
    """Tell whether, and when, the model ``entry`` may be changed after ``statement``, which puts it into a list.

    Parameters
    ----------
    notebook : Notebook
        The notebook; other names of the model, and functions that may train it, are looked for in it.
    entry : ast.expr
        What is put into the list: a name, or a call that gives a model which no name holds.
    statement : ast.stmt
        Where that is done.
    made : ast.stmt
        The statement that makes the model of the next round; what runs from there on is another round.
    """
    root = entry
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    if not isinstance(root, ast.Name):
        return "never"
    names = _aliases(notebook.cell, root.id)
    inside, after = _following(notebook.cell, notebook.scopes, statement, made, root.id)
    if any(_may_change(notebook, one, names) for one in after):
        return "later"
    return "in its round" if any(_may_change(notebook, one, names) for one in inside) else "never"


def _aliases(cell: PythonCell, name: str) -> set[str]:
    """Give the names that may hold the same model: set to one of them, or it is set to one of theirs."""
    names = {name}
    pairs = [
        (target.id, node.value.id)
        for node in cell.nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    for _ in pairs:
        names |= {one for pair in pairs if names & set(pair) for one in pair}
    return names


def _following(
    cell: PythonCell, scopes: Scopes, statement: ast.stmt, made: ast.stmt, name: str
) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """List the statements that may run after ``statement`` until ``made`` runs again, and those after the rounds.

    What follows a statement that surely binds ``name`` to something else is left out.
    """
    inside, after = list[ast.stmt](), list[ast.stmt]()
    child: ast.AST = statement
    found = inside
    for parent in scopes.up(statement):
        block = _block_of(parent, child)
        at = block.index(child) if block else 0
        holds = any(n is made for n in walk(parent))
        found += _until_bound(block[at + 1 :], name)
        if isinstance(parent, _LOOPS) and not (found is inside and holds):
            found += _until_bound(block[:at], name)
        elif isinstance(parent, _LOOPS):
            found += _until_bound(block, name)  # what stands above the line that makes the next
        if isinstance(parent, _FUNCTIONS):
            # Whoever calls it may go on with the model: all that the cell does outside of it counts.
            after += [s for s in cell.tree.body if s is not parent]
            break
        if holds:
            found = after
        child = parent
    return inside, after


def _until_bound(block: Sequence[ast.stmt], name: str) -> list[ast.stmt]:
    """List the statements of a block up to that which binds ``name`` to something new."""
    end = next((n for n, one in enumerate(block) if name in bound_anew([one])), len(block))
    return list(block[:end])


def _block_of(parent: ast.AST, child: ast.AST) -> Sequence[ast.stmt]:
    for field in ("body", "orelse", "finalbody"):
        block = getattr(parent, field, None)
        if isinstance(block, list) and child in block:
            return block
    return ()


def _may_change(notebook: Notebook, statement: ast.stmt, names: set[str]) -> bool:
    """Whether a statement may change the weights of the model that ``names`` hold."""
    loads = (n for n in walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    if any(load.id in names and not _only_reads(notebook, load) for load in loads):
        return True
    calls = (n.func for n in walk(statement) if isinstance(n, ast.Call))
    called = {func.id for func in calls if isinstance(func, ast.Name)}
    return any(_function_may(notebook, name, names, set()) for name in called)


def _only_reads(notebook: Notebook, name: ast.Name) -> bool:
    """Whether a read of the model leaves its weights as they are."""
    parent = notebook.scopes.parents[name]
    if isinstance(parent, ast.Attribute):
        return parent.attr in _ONLY_READ
    if isinstance(parent, ast.Call) and name in parent.args:
        called = called_name(parent)
        if isinstance(parent.func, ast.Name) and (found := notebook.function(called)) is not None:
            return not _trains(notebook, found.node, set())
        return called in _LOOKS
    return isinstance(parent, (ast.Assign, ast.Compare))


def _function_may(notebook: Notebook, name: str, names: set[str], seen: set[str]) -> bool:
    """Whether a function of the notebook reads the model by its name, and may train it."""
    found = notebook.function(name)
    if found is None or name in seen:
        return False
    seen.add(name)
    scopes = found.cell.scopes
    reads = [n for n in walk(found.node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    shares = any(n.id in names and scopes.home(n) is found.cell.tree for n in reads)
    if shares and _trains(notebook, found.node, set()):
        return True
    called = {n.func.id for n in walk(found.node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return any(_function_may(notebook, one, names, seen) for one in called)


def _trains(notebook: Notebook, function: ast.AST, seen: set[str]) -> bool:
    """Whether a function, or one that it calls, has a word that trains."""
    words = {n.attr for n in walk(function) if isinstance(n, ast.Attribute)}
    words |= {n.id for n in walk(function) if isinstance(n, ast.Name)}
    if words & _TRAINS:
        return True
    for name in words - seen:
        seen.add(name)
        found = notebook.function(name)
        if found is not None and found.node is not function and _trains(notebook, found.node, seen):
            return True
    return False
