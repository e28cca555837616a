"""The layers that surely produce a model's outputs, where the cell shows them."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.scopes import Scopes, position

_SEQUENTIAL = ("keras.Sequential", "keras.models.Sequential")
_MODEL = ("keras.Model", "keras.models.Model")


def output_layers(names: KerasNames, model: str) -> list[ast.Call] | None:
    """Find the constructor calls of the output layers of ``model``, which the cell builds.

    None where it is not sure which of several models that is, or where an output cannot be followed to one of
    Keras's own layers. A layer that has its own ``dtype`` already is left out.
    """
    tree = names.cell.tree
    made = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and names.origin(n.func) in (*_SEQUENTIAL, *_MODEL)]
    if len(made) > 1:
        made = [
            s.value
            for s in tree.body
            if isinstance(s, ast.Assign) and s.value in made and [ast.unparse(t) for t in s.targets] == [model]
        ]
    if len(made) != 1:
        return None
    scopes = Scopes(tree)
    if names.origin(made[0].func) in _SEQUENTIAL:
        found = [_last_of_sequential(scopes, made[0])]
    else:
        found = [_layer_of_tensor(scopes, one) for one in _outputs(made[0])]
    layers = [one for one in found if one is not None and names.is_layer(one)]
    if not layers or len(layers) != len(found):
        return None
    return [one for one in layers if not any(k.arg in ("dtype", None) for k in one.keywords)]


def _last_of_sequential(scopes: Scopes, made: ast.Call) -> ast.Call | None:
    listed = made.args[0] if made.args else next((k.value for k in made.keywords if k.arg == "layers"), None)
    statement = scopes.statement(made)
    if listed is not None and not isinstance(listed, ast.List):
        return None
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is made else None
    added = [] if target is None else _added(scopes, ast.unparse(target))
    last: ast.expr | None = listed.elts[-1] if listed is not None and listed.elts else None
    if added:
        owner = scopes.parents[statement]
        if any(scopes.parents.get(scopes.statement(call)) is not owner for call in added):
            return None
        last = added[-1].args[0] if added[-1].args else None
    return last if isinstance(last, ast.Call) else None


def _added(scopes: Scopes, name: str) -> list[ast.Call]:
    """List the calls ``name.add(…)``, in the order of the text."""
    found = [
        n
        for n in ast.walk(scopes.tree)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr == "add"
        and ast.unparse(n.func.value) == name
    ]
    return sorted(found, key=position)


def _outputs(made: ast.Call) -> list[ast.expr]:
    by_name = {k.arg: k.value for k in made.keywords}
    output = by_name.get("outputs") or (made.args[1] if len(made.args) > 1 else None)
    if isinstance(output, (ast.List, ast.Tuple)):
        return list(output.elts)
    if isinstance(output, ast.Dict):
        return list(output.values)
    return [] if output is None else [output]


def _layer_of_tensor(scopes: Scopes, tensor: ast.expr) -> ast.Call | None:
    """Follow a symbolic tensor to the constructor in ``Dense(10)(x)``."""
    if isinstance(tensor, ast.Name):
        binding = scopes.reaching(tensor, scopes.of(scopes.home(tensor), tensor.id))
        if binding is None or binding.value is None:
            return None
        tensor = binding.value
    if isinstance(tensor, ast.Call) and isinstance(tensor.func, ast.Call):
        return tensor.func
    return None
