"""The layers that surely produce a model's outputs, where the cell shows them."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.scopes import Scopes, position

_SEQUENTIAL = ("keras.Sequential", "keras.models.Sequential")
_MODEL = ("keras.Model", "keras.models.Model")
_DEEPEST = 8
_WRAPPERS = (".TimeDistributed", ".Bidirectional")
_ONLY_SHAPE = (".Reshape", ".Flatten", ".Permute", ".Lambda", ".Activation", ".Softmax", ".Rescaling", ".Cropping1D")
"""Layers without weights after which the layer before gives the output just as well."""


def output_layers(names: KerasNames, model: str, before: ast.stmt) -> list[ast.Call] | None:
    """Find the constructor calls of the output layers of ``model`` as the cell builds it last ``before`` a statement.

    None where it is not sure what builds it, or where an output cannot be followed to one of Keras's own layers. A
    layer that has its own ``dtype`` already is left out.
    """
    finder = _Finder(names)
    made = finder.constructor(model, before)
    found = None if made is None else finder.of_constructor(made)
    if not found or not all(one is not None and names.is_layer(one) for one in found):
        return None
    layers = list(dict.fromkeys(inner for one in found if one is not None for inner in _with_wrapped(names, one)))
    return [one for one in layers if not any(k.arg in ("dtype", None) for k in one.keywords)]


def all_layers(names: KerasNames, model: str, before: ast.stmt) -> list[str] | None:
    """Name the classes of the layers of ``model`` where one list shows them all; None where that is not so."""
    made = _Finder(names).constructor(model, before)
    if made is None or names.origin(made.func) not in _SEQUENTIAL:
        return None
    listed = _listed(made)
    if not isinstance(listed, ast.List) or not all(map(names.is_layer, listed.elts)):
        return None
    return [names.origin(one.func).rpartition(".")[2] for one in listed.elts if isinstance(one, ast.Call)]


def every_layer(names: KerasNames, model: str, before: ast.stmt) -> list[str] | None:
    """Name the classes of all layers of a ``Sequential``, also of those it adds or has by name; None where unsure."""
    finder = _Finder(names)
    made = finder.constructor(model, before)
    if made is None or names.origin(made.func) not in _SEQUENTIAL:
        return None
    layers = list(dict.fromkeys(_all_of_sequential(finder.scopes, made)))  # one layer may stand in it twice
    if not layers or not all(one is not None and names.is_layer(one) for one in layers):
        return None
    return [names.origin(one.func).rpartition(".")[2] for one in layers if isinstance(one, ast.Call)]


def _with_wrapped(names: KerasNames, layer: ast.Call) -> list[ast.Call]:
    """Give a layer, and the one that it wraps (``TimeDistributed(Dense(1))``), which has a type of its own."""
    inside = layer.args[0] if layer.args and names.origin(layer.func).endswith(_WRAPPERS) else None
    return [layer, inside] if isinstance(inside, ast.Call) and names.is_layer(inside) else [layer]


class _Finder:
    """Follows the name of a model to the calls that make its last layers, in one cell."""

    def __init__(self, names: KerasNames) -> None:
        self.names, self.scopes = names, names.cell.scopes
        tree = names.cell.tree
        defined = (ast.FunctionDef, ast.ClassDef)
        self.defined = {s.name: s for s in tree.body if isinstance(s, defined)}

    def constructor(self, model: str, before: ast.stmt) -> ast.Call | None:
        """Find the one call that makes the model: Keras's own constructor, or that of a class of the cell."""
        tree = self.names.cell.tree
        bound = [
            s.value
            for s in ast.walk(tree)
            if isinstance(s, (ast.Assign, ast.AnnAssign))
            and isinstance(s.value, ast.Call)
            and model in [ast.unparse(t) for t in (s.targets if isinstance(s, ast.Assign) else [s.target])]
        ]
        made = [one for one in (self._made_by(call, 0) for call in bound) if one is not None]
        if made and len(made) == len(bound) and len({id(one) for one in made}) == 1:
            return made[0]
        first = [s.value for s in tree.body if isinstance(s, ast.Assign) and s.value in bound]
        at_top = [call for call in first if isinstance(call, ast.Call) and position(call) < position(before)]
        if at_top and (len(first) == 1 or self._shows_all(at_top[-1])):
            return self._made_by(at_top[-1], 0)
        if bound:
            return None
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and self._is_constructor(n)]
        return calls[0] if len(calls) == 1 else None

    def _shows_all(self, call: ast.Call) -> bool:
        """Whether one statement makes the whole model, from a list of layers."""
        return self.names.origin(call.func) in _SEQUENTIAL and isinstance(_listed(call), ast.List)

    def _is_constructor(self, call: ast.Call) -> bool:
        return self.names.origin(call.func) in (*_SEQUENTIAL, *_MODEL)

    def _made_by(self, call: ast.Call, depth: int) -> ast.Call | None:
        if self._is_constructor(call):
            return call
        function = self.defined.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if isinstance(function, ast.ClassDef):
            return call
        if function is None or depth > _DEEPEST:
            return None
        returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
        made = [self._of_expression(value, depth) for value in returned]
        return made[0] if made and None not in made and len({id(one) for one in made}) == 1 else None

    def _of_expression(self, value: ast.expr, depth: int) -> ast.Call | None:
        if isinstance(value, ast.Name):
            binding = self.scopes.reaching(value, self.scopes.of(self.scopes.home(value), value.id))
            value = binding.value if binding is not None and binding.value is not None else value
        return self._made_by(value, depth + 1) if isinstance(value, ast.Call) else None

    def of_constructor(self, made: ast.Call) -> list[ast.Call | None]:
        """List the calls that make the last layers; None for one that is not found."""
        if isinstance(made.func, ast.Name) and isinstance(self.defined.get(made.func.id), ast.ClassDef):
            node = self.defined[made.func.id]
            return self._of_class(node) if isinstance(node, ast.ClassDef) else []
        if self.names.origin(made.func) in _SEQUENTIAL:
            return _last_of_sequential(self.names, self.scopes, made)
        return [layer for one in _outputs(made) for layer in _layers_of_tensor(self.names, self.scopes, one)]

    def _of_class(self, node: ast.ClassDef) -> list[ast.Call | None]:
        """Follow what ``call`` returns to layers that the class keeps in attributes."""
        methods = {s.name: s for s in node.body if isinstance(s, ast.FunctionDef)}
        call, init = methods.get("call"), methods.get("__init__")
        if call is None or init is None:
            return []
        returned = [n.value for n in ast.walk(call) if isinstance(n, ast.Return) and n.value is not None]
        values = [inner for value in returned for inner in (value.elts if isinstance(value, ast.Tuple) else [value])]
        return [self._kept(init, self._attribute_called(value)) for value in values]

    def _attribute_called(self, value: ast.expr) -> str:
        if isinstance(value, ast.Name):
            found = self.scopes.of(self.scopes.home(value), value.id)
            binding = self.scopes.reaching(value, found)
            value = binding.value if binding is not None and binding.value is not None else value
        func = value.func if isinstance(value, ast.Call) else None
        plain = isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id == "self"
        return func.attr if plain and isinstance(func, ast.Attribute) else ""

    def _kept(self, init: ast.FunctionDef, attribute: str) -> ast.Call | None:
        set_here = [s for s in ast.walk(init) if isinstance(s, ast.Assign)]
        found = [s.value for s in set_here if [ast.unparse(t) for t in s.targets] == [f"self.{attribute}"]]
        return found[0] if len(found) == 1 and isinstance(found[0], ast.Call) else None


def _listed(made: ast.Call) -> ast.expr | None:
    return made.args[0] if made.args else next((k.value for k in made.keywords if k.arg == "layers"), None)


def _last_of_sequential(names: KerasNames, scopes: Scopes, made: ast.Call) -> list[ast.Call | None]:
    """Give the last layers of a list, and of what ``add`` puts behind it: up to the last one with weights."""
    found: list[ast.Call | None] = []
    for layer in reversed(_all_of_sequential(scopes, made)):
        found.append(layer if isinstance(layer, ast.Call) else None)
        if not isinstance(layer, ast.Call) or not names.origin(layer.func).endswith(_ONLY_SHAPE):
            break
    return found


def _all_of_sequential(scopes: Scopes, made: ast.Call) -> list[ast.expr | None]:
    """Give the layers of a list and those that ``add`` puts behind it, by what makes them; nothing where unsure."""
    listed = _entries(scopes, _listed(made))
    statement = scopes.statement(made)
    if listed is None:
        return []
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is made else None
    added = [] if target is None else _added(scopes, ast.unparse(target), scopes.scope_of(made))
    owner = scopes.parents[statement]
    if any(scopes.parents.get(scopes.statement(call)) is not owner for call in added):
        return []
    layers: list[ast.expr | None] = [*listed]
    layers += [call.args[0] if call.args else None for call in added]
    return [None if layer is None else _value(scopes, layer) for layer in layers]


def _entries(scopes: Scopes, listed: ast.expr | None) -> list[ast.expr | None] | None:
    """Give the entries of a list, None for those that are not written out; None where nothing is known of its end.

    A name of a list is followed where it is bound once and used once: nothing can have changed the list since.
    """
    if listed is None:
        return []
    if isinstance(listed, ast.Name):
        scope = scopes.scope_of(listed)
        same = [n for n in ast.walk(scope) if isinstance(n, ast.Name) and n.id == listed.id]
        value = _value(scopes, listed)
        return _entries(scopes, value) if len(same) == 2 and value is not listed else None
    if isinstance(listed, ast.BinOp) and isinstance(listed.op, ast.Add):
        end = _entries(scopes, listed.right)
        return None if end is None else [None, *end]
    return [*listed.elts] if isinstance(listed, ast.List) else None


def _added(scopes: Scopes, name: str, scope: ast.AST) -> list[ast.Call]:
    """List the calls ``name.add(…)`` in a scope, in the order of the text."""
    found = [
        n
        for n in ast.walk(scope)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr == "add"
        and ast.unparse(n.func.value) == name
        and scopes.scope_of(n) is scope
    ]
    return sorted(found, key=position)


def _outputs(made: ast.Call) -> Iterable[ast.expr]:
    by_name = {k.arg: k.value for k in made.keywords}
    output = by_name.get("outputs") or (made.args[1] if len(made.args) > 1 else None)
    if isinstance(output, (ast.List, ast.Tuple)):
        return output.elts
    if isinstance(output, ast.Dict):
        return output.values
    return [] if output is None else [output]


def _layers_of_tensor(names: KerasNames, scopes: Scopes, tensor: ast.expr) -> list[ast.Call | None]:
    """Follow a symbolic tensor to the constructor in ``Dense(10)(x)``, and on while a layer only reshapes."""
    found: list[ast.Call | None] = []
    for _ in range(_DEEPEST):
        value = _value(scopes, tensor)
        layer = _value(scopes, value.func) if isinstance(value, ast.Call) else None
        found.append(layer if isinstance(layer, ast.Call) else None)
        goes_on = isinstance(layer, ast.Call) and names.origin(layer.func).endswith(_ONLY_SHAPE)
        if not goes_on or not isinstance(value, ast.Call) or len(value.args) != 1:
            break
        tensor = value.args[0]
    return found


def _value(scopes: Scopes, node: ast.expr) -> ast.expr:
    """Give what a name was surely given; the expression itself where it is no name."""
    if isinstance(node, ast.Name):
        binding = scopes.reaching(node, scopes.of(scopes.home(node), node.id))
        if binding is not None and binding.value is not None:
            return binding.value
    return node
