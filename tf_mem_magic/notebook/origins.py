"""How a cell reaches Keras and where it builds models, told from the imports of this and earlier cells."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tf_mem_magic.notebook.cell import PythonCell, parse

_BUILDERS = ("keras.layers.", "keras.models.", "keras.applications.", "keras.Sequential", "keras.Model", "keras.Input")
_NO_BUILDERS = ("keras.layers.Layer", "keras.models.save_model")
LOADERS = frozenset({"load_model", "model_from_json", "clone_model", "from_config", "from_preset", "from_pretrained"})
"""Calls that give a model its dtype policy from elsewhere than the global policy."""


class KerasNames:
    """Names of a cell resolved to Keras's own (``keras.layers.Dense``), as far as imports tell."""

    def __init__(self, cell: PythonCell, earlier_cells: Iterable[str] = ()) -> None:
        self.cell = cell
        self.earlier = [tree for tree in map(parse, earlier_cells) if tree is not None]
        self.origins: dict[str, str] = {}
        self.builders: set[str] = set()
        for tree in (*self.earlier, cell.tree):
            self._learn(tree)

    def origin(self, node: ast.AST) -> str:
        """Give the full name of a dotted expression, ``tensorflow.keras`` being ``keras``; empty where unknown."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.origins:
            return ""
        return _plain(".".join([self.origins[node.id], *reversed(parts)]))

    def is_layer(self, call: ast.expr) -> bool:
        """Whether ``call`` constructs one of Keras's own layers."""
        if not isinstance(call, ast.Call):
            return False
        origin = self.origin(call.func)
        return origin.startswith("keras.layers.") and origin[len("keras.layers.") :][:1].isupper()

    def builds(self, node: ast.AST) -> bool:
        """Whether running ``node`` constructs layers or models; what only defines a function or class does not."""
        return any(self._is_builder(call.func) for call in _calls(node))

    def loads(self, node: ast.AST) -> bool:
        """Whether ``node`` gets a model from a file, a configuration or another model."""
        return any(_last(call.func) in LOADERS for call in _calls(node))

    def handle(self, before: ast.stmt) -> str | None:
        """Give the expression that surely means the module ``keras`` just before a top-level statement."""
        bound: dict[str, str] = {}
        index = self.cell.tree.body.index(before)
        for statement in [s for tree in self.earlier for s in tree.body] + self.cell.tree.body[:index]:
            for name in _stored(statement):
                bound.pop(name, None)
            bound.update(_imports(statement))
        for name, origin in bound.items():
            if _plain(origin) == "keras":
                return name
        return next((f"{name}.keras" for name, origin in bound.items() if origin == "tensorflow"), None)

    def _learn(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            self.origins.update(_imports(node))
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                origin = self.origin(node.value)
                if origin.startswith("keras"):
                    self.origins[node.targets[0].id] = origin
            if isinstance(node, ast.ClassDef) and any(self.builds_class(base) for base in node.bases):
                self.builders.add(node.name)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(map(self.builds, node.body)):
                self.builders.add(node.name)

    def builds_class(self, base: ast.expr) -> bool:
        """Whether a class with this base is a layer or a model."""
        origin = self.origin(base)
        return origin.startswith("keras.") or (isinstance(base, ast.Name) and base.id in self.builders)

    def _is_builder(self, func: ast.expr) -> bool:
        if isinstance(func, ast.Name) and func.id in self.builders:
            return True
        origin = self.origin(func)
        return origin.startswith(_BUILDERS) and not origin.startswith(_NO_BUILDERS)


def _plain(origin: str) -> str:
    for long in ("tensorflow.python.keras", "tensorflow.keras", "keras.api", "keras.src"):
        if origin == long or origin.startswith(f"{long}."):
            return f"keras{origin[len(long) :]}"
    return origin


def _imports(node: ast.AST) -> dict[str, str]:
    if isinstance(node, ast.Import):
        return {
            a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0] for a in node.names
        }
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names if a.name != "*"}
    return {}


def _stored(statement: ast.stmt) -> list[str]:
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that run when ``node`` runs: not those in the body of a function that it defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        inside: list[ast.AST] = [*node.decorator_list, *node.args.defaults]
    elif isinstance(node, ast.Lambda):
        inside = []
    else:
        inside = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call):
            yield node
    for child in inside:
        yield from _calls(child)


def _last(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
