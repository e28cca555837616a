"""Function blocks: functions of the notebook that add the layers of one block to a functional model."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.rematerialize.blocks import Block, why_not_reached
from tf_mem_magic.remedies.rematerialize.structure import WHOLE, Structure, names_called

_STRUCTURE = frozenset({"get_layer", "load_weights", "load_model", "clone_model", "layers"})


def find_function_blocks(tree: ast.Module, notebook: Structure) -> tuple[Block, ...]:
    """List the functions that ``tree`` itself defines and the notebook calls more than once, outermost ones only."""
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and notebook.is_repeated(n.name)]
    repeated = [n for n in functions if notebook.function_of(n.name) is n and _adds_layers(n, notebook)]
    inside = {name for outer in repeated for name in names_called(outer) if name != outer.name}
    found = []
    for one in repeated:
        if one.name not in inside:
            reason = _why_not(one, notebook) or why_not_reached(one, notebook) or _structure(notebook)
            found.append(Block(one, one, reason))
    return tuple(found)


def _parts(one: ast.FunctionDef, notebook: Structure) -> list[ast.FunctionDef]:
    """List a function and the functions of the notebook that it calls, these in turn too."""
    parts: list[ast.FunctionDef] = []
    queue = [one]
    while queue:
        part = queue.pop()
        if part not in parts:
            parts.append(part)
            queue += [f for name in sorted(names_called(part)) if (f := notebook.function_of(name)) is not None]
    return parts


def _adds_layers(one: ast.FunctionDef, notebook: Structure) -> bool:
    """Whether a function makes two layers of Keras at least, alone or with what it calls, and no whole model."""
    calls = [n for part in _parts(one, notebook) for n in ast.walk(part) if isinstance(n, ast.Call)]
    whole = any(called_name(call) in WHOLE for call in calls)
    return not whole and sum(notebook.names.is_layer(call) for call in calls) > 1


def _why_not(one: ast.FunctionDef, notebook: Structure) -> str:
    if one.decorator_list:
        return f"`{one.name}` is decorated already"
    if one.args.vararg or one.args.kwarg:
        return f"`{one.name}` takes any number of arguments"
    nested = [n for n in ast.walk(one) if isinstance(n, (ast.FunctionDef, ast.Lambda, ast.ClassDef)) and n is not one]
    if nested:
        return f"`{one.name}` defines a function or class of its own"
    returns = [n.value for n in ast.walk(one) if isinstance(n, ast.Return)]
    if len(returns) == 0 or any(r is None or isinstance(r, (ast.Tuple, ast.List, ast.Dict)) for r in returns):
        return f"`{one.name}` does not give back one tensor"
    for part in _parts(one, notebook):
        if name := _read_from_outside(part, notebook):
            return f"`{part.name}` reads `{name}`, which is made outside it"
    return ""


def _read_from_outside(one: ast.FunctionDef, notebook: Structure) -> str:
    """Give a name that the function reads and that the notebook sets to something else than a constant."""
    own = {a.arg for a in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)}
    own |= {n.id for n in ast.walk(one) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(one):
        if isinstance(node, ast.Name) and node.id not in own:
            cells = (*notebook.notebook.before.binding(node.id), notebook.notebook.cell)
            if not all(_is_constant(value) for cell in cells for value in cell.once(_set_to).get(node.id, ())):
                return node.id
    return ""


def _set_to(cell: PythonCell) -> dict[str, list[ast.expr | None]]:
    """Give what the top-level statements of a cell set each name to; None where that is no plain value."""
    set_to: dict[str, list[ast.expr | None]] = {}
    for statement in cell.tree.body:
        value: ast.expr | None = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                set_to.setdefault(node.id, []).append(value)
    return set_to


def _is_constant(value: ast.expr | None) -> bool:
    allowed = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.Tuple, ast.List, ast.Attribute, ast.Name)
    parts = [] if value is None else [n for n in ast.walk(value) if isinstance(n, ast.expr)]
    return value is not None and all(isinstance(part, allowed) for part in parts)


def _structure(notebook: Structure) -> str:
    """Say what in the notebook counts on the model's layers one by one: a block becomes one layer of it."""
    for cell in notebook.notebook.cells_with(*_STRUCTURE):
        for node in cell.nodes:
            name = node.attr if isinstance(node, ast.Attribute) else ""
            if name in _STRUCTURE and not notebook.names.origin(node).startswith("keras.layers"):
                return f"the notebook uses `{ast.unparse(node)}`, and each block would become one layer of the model"
    return ""
