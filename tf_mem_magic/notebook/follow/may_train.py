"""Whether code may train a model: every call in it is followed, known to be harmless, or may be one that trains."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tf_mem_magic.notebook.follow.behind import made_by
from tf_mem_magic.notebook.follow.harmless import COLLECTS, INFERS, METHODS, MODULES, OF_KERAS, TRAINS
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import arguments
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.uses import called_name

_MOST = 60
"""More functions than these are not followed."""

_DEEPEST = 6


@dataclass(frozen=True)
class _Code:
    """Code to look at: its cell, what its parameters are given, and the class whose method it is."""

    node: ast.AST
    cell: PythonCell
    given: Mapping[str, tuple[ast.expr, _Code]] = field(default_factory=dict)
    cls: ast.ClassDef | None = None


@dataclass(frozen=True)
class _Runs:
    """What a call runs: more code of the notebook, a model, or something that trains nothing."""

    code: tuple[_Code, ...] = ()
    infers: bool = False


_NOTHING = _Runs()


def infers(reader: Reader, regions: Iterable[ast.AST]) -> bool | None:
    """Tell whether code surely trains nothing, and infers: True, or does neither: False; None where it may train."""
    queue = [_Code(region, reader.cell) for region in regions]
    seen: set[ast.AST] = {code.node for code in queue}
    found = False
    while queue:
        code = queue.pop()
        for node in ast.walk(code.node):
            if isinstance(node, ast.keyword) and node.arg == "training" and not _is_false(node.value):
                return None
            if not isinstance(node, ast.Call):
                continue
            runs = _Follower(reader, code).called(node)
            if runs is None or len(seen) > _MOST:
                return None
            found = found or runs.infers
            news = [one for one in runs.code if one.node not in seen]
            seen.update(one.node for one in news)
            queue += news
    return found


def _is_false(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Constant) and expr.value is False


@dataclass(frozen=True)
class _Follower:
    """Tells what the calls in a piece of code run."""

    reader: Reader
    code: _Code

    def called(self, call: ast.Call) -> _Runs | None:
        """Tell what a call runs; None where it may train."""
        name = called_name(call)
        if name in TRAINS:
            return None
        runs = self._run(call.func, call, 0)
        if runs is None and any(k.arg == "training" and _is_false(k.value) for k in call.keywords):
            runs = _Runs(infers=True)  # by Keras's convention
        if runs is None and name in ("run", "experimental_run_v2") and call.args:
            runs = _NOTHING if self._functions(call) else None
        return None if runs is None else _Runs((*runs.code, *self._functions(call)), runs.infers)

    def _functions(self, call: ast.Call) -> tuple[_Code, ...]:
        """List the functions of the notebook that a call is handed: it may call them."""
        given = [*call.args, *(k.value for k in call.keywords)]
        names = [one for one in given if isinstance(one, (ast.Name, ast.Lambda))]
        found = [self._run(one, None, 0) for one in names if isinstance(one, ast.Lambda) or self._is_function(one)]
        return tuple(code for one in found if one is not None for code in one.code)

    def _is_function(self, name: ast.Name) -> bool:
        function = self.reader.notebook.function(name.id)
        return function is not None and isinstance(self.code.cell.scopes.home(name), ast.Module)

    def _run(self, func: ast.expr, call: ast.Call | None, depth: int) -> _Runs | None:
        """Tell what runs where the value of ``func`` is called."""
        if depth > _DEEPEST:
            return None
        if isinstance(func, ast.Lambda):
            return _Runs((_Code(func.body, self.code.cell, self.code.given, self.code.cls),))
        if isinstance(func, ast.Name):
            return self._of_name(func, call, depth)
        if isinstance(func, ast.Attribute):
            return self._of_method(func, call, depth)
        if isinstance(func, ast.Call):
            return self._of_value(func, depth)
        return None

    # -- names -------------------------------------------------------------------------------------------------------

    def _of_name(self, name: ast.Name, call: ast.Call | None, depth: int) -> _Runs | None:
        scopes = self.code.cell.scopes
        home = scopes.home(name)
        found = scopes.of(home, name.id)
        if not isinstance(home, ast.Module):
            if name.id in self.code.given and any(b.kind == "param" for b in found):
                expr, code = self.code.given[name.id]
                return _Follower(self.reader, code)._run(expr, None, depth + 1)
            if len(found) == 1 and isinstance(found[0].node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                return _Runs((_Code(found[0].node, self.code.cell, self.code.given, self.code.cls),))
            return self._all([b.value for b in found], depth) if all(b.kind == "assign" for b in found) else None
        if self.reader.facts.model(name.id) is not None:
            return _Runs(infers=True)
        function = self.reader.notebook.function(name.id)
        if function is not None:
            node, cls = function.node, None
            if isinstance(node, ast.ClassDef):
                made = _member(node, "__init__")
                return _NOTHING if made is None else _Runs((_Code(made, function.cell, {}, node),))
            return _Runs((_Code(node, function.cell, self._given(node, call), cls),))
        if self._is_of_a_library(name):
            return _NOTHING
        made_here = [b for b in found if self.code.cell is self.reader.cell and b.kind != "import"]
        if made_here:
            return self._all([b.value for b in made_here], depth) if all(b.value for b in made_here) else None
        value = self._set_earlier(name.id)
        if value is not None:
            return _Follower(self.reader, _Code(value[0], value[1]))._of_value(value[0], depth + 1)
        is_builtin = hasattr(builtins, name.id) and not found and self.reader.notebook.function(name.id) is None
        return _NOTHING if is_builtin and not self._is_imported(name.id) else None

    def _all(self, values: list[ast.expr | None], depth: int) -> _Runs | None:
        runs = [None if value is None else self._of_value(value, depth + 1) for value in values]
        if not runs or any(one is None for one in runs):
            return None
        known = [one for one in runs if one is not None]
        return _Runs(tuple(code for one in known for code in one.code), any(one.infers for one in known))

    def _set_earlier(self, name: str) -> tuple[ast.expr, PythonCell] | None:
        """Give what an earlier cell, or this one for a function of another, last set a name to."""
        piece = next((p for p in made_by(self.reader, name) if name in p.binds), None)
        statement = None if piece is None else piece.statement
        if piece is None or not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            return None
        return (statement.value, piece.cell) if isinstance(statement.targets[0], ast.Name) else None

    def _is_imported(self, name: str) -> bool:
        return bool(self.reader.notebook.names.meaning(name))

    def _is_of_a_library(self, expr: ast.expr) -> bool:
        root: ast.expr = expr
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or not isinstance(self.code.cell.scopes.home(root), ast.Module):
            return False
        meaning = self.reader.notebook.names.meaning(root.id) or self.reader.notebook.origin(expr)
        return meaning.partition(".")[0] in MODULES

    def _given(self, function: ast.AST, call: ast.Call | None, skip: int = 0) -> dict[str, tuple[ast.expr, _Code]]:
        """Give what a call hands to the parameters of a function, by their names."""
        if call is None or not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return {}
        names = [a.arg for a in arguments(function.args)][skip:]
        starred = any(isinstance(a, ast.Starred) for a in call.args)
        found = {} if starred else {name: (given, self.code) for name, given in zip(names, call.args)}
        found.update((k.arg, (k.value, self.code)) for k in call.keywords if k.arg is not None)
        return found

    # -- values ------------------------------------------------------------------------------------------------------

    def _of_value(self, value: ast.expr, depth: int) -> _Runs | None:
        """Tell what runs where what ``value`` gives is called."""
        if depth > _DEEPEST:
            return None
        if not isinstance(value, ast.Call):
            return self._run(value, None, depth + 1)
        origin = self.reader.notebook.origin(value.func)
        if origin in ("tensorflow.function", "functools.partial", "tensorflow.autograph.to_graph"):
            return self._run(value.args[0], None, depth + 1) if value.args else None
        if origin.startswith("keras."):
            is_model = origin.startswith(("keras.models.", "keras.Model", "keras.Sequential", "keras.applications."))
            return _Runs(infers=is_model)
        if origin.startswith("tensorflow."):
            return _NOTHING
        function = self.reader.notebook.function(called_name(value)) if isinstance(value.func, ast.Name) else None
        if function is None:
            return None
        if isinstance(function.node, ast.ClassDef):
            return self._of_instance(function.node, function.cell, ("call", "__call__"))
        inside = _Code(function.node, function.cell, self._given(function.node, value))
        returns = [n.value for n in ast.walk(function.node) if isinstance(n, ast.Return)]
        return _Follower(self.reader, inside)._all(returns, depth + 1)

    def _of_instance(self, cls: ast.ClassDef, cell: PythonCell, names: Iterable[str]) -> _Runs | None:
        """Tell what one of the methods ``names`` of a class of the notebook runs, the first that there is."""
        for owner, its in self._line(cls, cell):
            for name in names:
                found = _member(owner, name)
                if found is not None:
                    return _Runs((_Code(found, its, {}, cls),), infers="call" in names)
        return None

    def _line(self, cls: ast.ClassDef, cell: PythonCell) -> Iterator[tuple[ast.ClassDef, PythonCell]]:
        """Yield a class and those of the notebook that it is derived from."""
        queue, seen = [(cls, cell)], set[ast.ClassDef]()
        while queue:
            one, its = queue.pop(0)
            if one in seen:
                continue
            seen.add(one)
            yield one, its
            for base in one.bases:
                above = self.reader.notebook.function(base.id) if isinstance(base, ast.Name) else None
                if above is not None and isinstance(above.node, ast.ClassDef):
                    queue.append((above.node, above.cell))

    # -- methods -----------------------------------------------------------------------------------------------------

    def _of_method(self, func: ast.Attribute, call: ast.Call | None, depth: int) -> _Runs | None:
        name, reader = func.attr, self.reader
        if self._is_of_a_library(func):
            return _NOTHING
        if reader.facts.model(reader.written(func)) is not None:
            return _Runs(infers=True)
        cls = self._class_of(func.value)
        if cls is not None:
            found = self._of_instance(*cls, (name,))
            if found is not None:
                return found if call is None else self._with_arguments(found, call)
            kept = self._kept(cls, name, depth)
            if kept is not None:
                return kept
        if name in INFERS and (not name.startswith("evaluate") or self._is_keras(func.value, cls)):
            return _Runs(infers=True)
        if name in OF_KERAS and self._is_keras(func.value, cls):
            return _NOTHING
        if name in METHODS and cls is None:
            return _NOTHING
        return _NOTHING if name == "update" and self._collects(func.value) else None

    def _with_arguments(self, runs: _Runs, call: ast.Call) -> _Runs:
        code = (_Code(one.node, one.cell, self._given(one.node, call, 1), one.cls) for one in runs.code)
        return _Runs(tuple(code), runs.infers)

    def _class_of(self, owner: ast.expr) -> tuple[ast.ClassDef, PythonCell] | None:
        """Give the class of the notebook that an object is of."""
        if isinstance(owner, ast.Name) and owner.id == "self" and self.code.cls is not None:
            return self.code.cls, self.code.cell
        value, its = self._made(owner)
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and its is not None:
            function = self.reader.notebook.function(value.func.id)
            if function is not None and isinstance(function.node, ast.ClassDef):
                return function.node, function.cell
        return None

    def _made(self, owner: ast.expr) -> tuple[ast.expr | None, PythonCell | None]:
        """Give the expression that made an object, and its cell."""
        if not isinstance(owner, ast.Name):
            return None, None
        scopes = self.code.cell.scopes
        if owner.id in self.code.given and not isinstance(scopes.home(owner), ast.Module):
            expr, code = self.code.given[owner.id]
            return _Follower(self.reader, code)._made(expr) if code is not self.code else (None, None)
        found = scopes.of(scopes.home(owner), owner.id)
        if found:
            return (found[0].value, self.code.cell) if len(found) == 1 else (None, None)
        value = self._set_earlier(owner.id)
        return (None, None) if value is None else value

    def _is_keras(self, owner: ast.expr, cls: tuple[ast.ClassDef, PythonCell] | None) -> bool:
        """Tell whether an object is surely a model or layer of Keras, or of a class of the notebook."""
        value, _ = self._made(owner)
        made = isinstance(value, ast.Call) and self.reader.notebook.origin(value.func).startswith("keras.")
        return made or cls is not None or self.reader.facts.model(self.reader.written(owner)) is not None

    def _kept(self, cls: tuple[ast.ClassDef, PythonCell], name: str, depth: int) -> _Runs | None:
        """Tell what is run where an object calls what it keeps: ``self.loss(…)``."""
        values = [
            n.value
            for owner, _ in self._line(*cls)
            for n in ast.walk(owner)
            if isinstance(n, ast.Assign)
            for t in n.targets
            if isinstance(t, ast.Attribute) and t.attr == name and ast.unparse(t.value) == "self"
        ]
        inside = _Follower(self.reader, _Code(cls[0], cls[1], {}, cls[0]))
        return inside._all(list(values), depth + 1) if values else None

    def _collects(self, owner: ast.expr) -> bool:
        if not isinstance(owner, ast.Name):
            return False
        scopes = self.code.cell.scopes
        nodes = [b.node for b in scopes.of(scopes.home(owner), owner.id)]
        values = [n.value for n in nodes if isinstance(n, (ast.Assign, ast.NamedExpr))]
        values += [i.context_expr for n in nodes if isinstance(n, ast.With) for i in n.items]
        made = [
            isinstance(v, (ast.Dict, ast.Set)) or (isinstance(v, ast.Call) and called_name(v) in COLLECTS)
            for v in values
        ]
        return bool(made) and all(made) and len(made) == len(nodes)


def _member(cls: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == name), None)
