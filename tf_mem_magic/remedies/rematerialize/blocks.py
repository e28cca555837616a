"""Blocks: layer classes of the notebook that a model repeats, and whether their ``call`` may be computed twice."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from dataclasses import dataclass

from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.rematerialize.structure import Definition, Structure, names_called

_LAYERS = ("keras.layers.Layer", "keras.Layer")
_STATE = frozenset({"SpectralNormalization", "IntegerLookup", "StringLookup"})
_RECURRENT = frozenset("RNN LSTM GRU SimpleRNN ConvLSTM1D ConvLSTM2D ConvLSTM3D Bidirectional LSTMCell GRUCell".split())
_MASKS = frozenset({"Embedding", "Masking"})
_UNSURE = frozenset(
    "GradientTape custom_gradient Lambda load_model assign assign_add assign_sub rng default_rng randn randint".split()
)
_LOSSES = frozenset({"add_loss", "add_metric", "ActivityRegularization"})
_CHANGES = frozenset("append extend insert update pop popitem setdefault write update_state setattr exec next".split())
_NOT_OF_A_CALL = frozenset({"__init__", "build", "get_config", "from_config"})


@dataclass(frozen=True, slots=True)
class Block:
    """What is repeated, a layer class or a function that adds layers, and why that may not be computed twice.

    ``call`` is what is decorated: the method of the class, or the function itself. An empty reason: it may.
    """

    definition: ast.ClassDef | ast.FunctionDef
    call: ast.FunctionDef
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of the class or function."""
        return self.definition.name


def find_blocks(tree: ast.Module, notebook: Structure, held: Container[str] = ()) -> tuple[Block, ...]:
    """List the layer classes that ``tree`` defines and the notebook makes more than once, outermost ones only.

    ``held`` are the layers of the model where they are known: other classes are left out then.
    """
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    if held and not any(n.name in held for n in classes):
        return ()
    layers = [n for n in classes if _is_layer(n, notebook.names)]
    repeated = [n for n in layers if notebook.class_of(n.name) is n and notebook.is_repeated(n.name)]
    inside = {name for outer in repeated for name in names_called(outer) if name != outer.name}
    found = []
    for one in repeated:
        calls = [f for f in one.body if isinstance(f, ast.FunctionDef) and f.name == "call"]
        if len(calls) == 1 and one.name not in inside and (not held or one.name in held):
            found.append(Block(one, calls[0], _why_not(one, calls[0], notebook)))
    return tuple(found)


def _is_layer(definition: ast.ClassDef, names: KerasNames) -> bool:
    return len(definition.bases) == 1 and names.origin(definition.bases[0]) in _LAYERS


def _why_not(definition: ast.ClassDef, call: ast.FunctionDef, notebook: Structure) -> str:
    name = definition.name
    if call.decorator_list:
        return f"`{name}.call` is decorated already"
    if call.args.vararg or call.args.kwarg:
        return f"`{name}.call` takes any number of arguments"
    returns = [n.value for n in ast.walk(call) if isinstance(n, ast.Return)]
    if len(returns) == 0 or any(r is None or isinstance(r, (ast.Tuple, ast.List, ast.Dict)) for r in returns):
        return f"`{name}.call` does not give back one tensor"
    return why_not_reached(definition, notebook)


def why_not_reached(definition: Definition, notebook: Structure) -> str:
    """Say what makes a second pass differ, in the block and in what of the notebook its text names; empty: nothing."""
    for one in _reached(definition, notebook):
        reason = _of_layers(one, notebook.names) or _of_effects(one)
        if reason:
            return f"`{one.name}` {reason}"
    return ""


def _reached(definition: Definition, notebook: Structure) -> list[Definition]:
    """List the block and the classes and functions of the notebook that its text names."""
    found: list[Definition] = []
    queue: list[Definition] = [definition]
    while queue:
        one = queue.pop()
        if one not in found:
            found.append(one)
            queue += notebook.definitions({n.id for n in ast.walk(one) if isinstance(n, ast.Name)})
    return found


def _methods(definition: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for one in definition.body:
        if isinstance(one, ast.FunctionDef) and one.name not in _NOT_OF_A_CALL:
            yield one


def _of_layers(node: ast.AST, names: KerasNames) -> str:
    """Say which layer or call of the block makes a second pass differ from the first."""
    seeded = set(_seeded(node, names))
    for one in ast.walk(node):
        name = one.attr if isinstance(one, ast.Attribute) else one.id if isinstance(one, ast.Name) else ""
        if name.startswith("Random") or (name == "random" and one not in seeded):
            return f"uses {name}, which may draw other random numbers in the second pass"
        if name == "dropout" and isinstance(one, ast.Attribute) and _is_called(one.value, "nn"):
            return "uses nn.dropout, which draws other random numbers in the second pass"
        if name in _STATE:
            return f"has {name}, which changes more than its own state when it is called"
        if name in _RECURRENT:
            return f"has {name}, a recurrent layer, with which it was not tested"
        if name in _MASKS:
            return f"has {name}, whose mask would be lost"
        if name in _LOSSES:
            return f"uses {name}, whose loss would get no gradient"
        if name in _UNSURE:
            return f"uses {name}, which may not be the same twice"
        if isinstance(one, ast.keyword) and one.arg == "activity_regularizer":
            return "has an activity_regularizer, whose loss would get no gradient"
    return ""


def _seeded(node: ast.AST, names: KerasNames) -> Iterator[ast.expr]:
    """Yield each ``keras.random`` that draws from a seed generator of the block itself, or makes one."""
    for one in ast.walk(node):
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute):
            module = one.func.value
            own = any(k.arg == "seed" and isinstance(k.value, ast.Attribute) for k in one.keywords)
            if names.origin(module) == "keras.random" and (own or one.func.attr == "SeedGenerator"):
                yield module


def _is_called(node: ast.expr, name: str) -> bool:
    return name == (node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else "")


def _of_effects(node: ast.ClassDef | ast.FunctionDef) -> str:
    """Say what a call of the block leaves behind, which a second call would leave twice."""
    for method in _methods(node) if isinstance(node, ast.ClassDef) else (node,):
        for one in ast.walk(method):
            if isinstance(one, (ast.Global, ast.Nonlocal)):
                return f"changes the outer name `{one.names[0]}` when it is called"
            if isinstance(one, (ast.Attribute, ast.Subscript)) and not isinstance(one.ctx, ast.Load):
                return f"sets `{ast.unparse(one)}` when it is called"
            if isinstance(one, (ast.Yield, ast.YieldFrom, ast.Await)):
                return "is a generator"
            if isinstance(one, ast.Call) and called_name(one) in _CHANGES:
                return f"calls `{ast.unparse(one.func)}`, which may change something each time"
    return ""
