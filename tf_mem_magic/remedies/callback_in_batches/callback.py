"""Which callback of the notebook ran out, and in which call of a model."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.core.recording import Frame
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.diagnose.places import HOOK, in_comprehension
from tf_mem_magic.notebook.direct_call import only_infers, why_whole
from tf_mem_magic.notebook.text.cell import PythonCell, walk
from tf_mem_magic.remedies._engine.question import Ask

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_LOOKED_AT = 3
"""Functions that the cell calls, and these call, in which the callback may be made."""


@dataclass(frozen=True, slots=True)
class CallbackCall:
    """The call of a model, the class of the callback that makes it, and the cell where this stands."""

    cell: PythonCell
    owner: ast.ClassDef
    call: ast.Call


def find_callback(ask: Ask) -> CallbackCall:
    """Find the one call of a model that ran out in a callback of the notebook; refused where it is not certain."""
    frames = _in_hook(ask)
    known = False
    for frame in frames:
        methods = {(cell.source, method.lineno): (cell, owner, method) for cell, owner, method in _methods(ask, frame)}
        if len(methods) != 1:
            continue
        known = True
        ((cell, owner, method),) = methods.values()
        line = _line(cell, frame)
        inside = [n for n in walk(method) if isinstance(n, ast.Call) and _covers(n, line)]
        calls = [call for call in inside if _calls_model(ask, cell, method, call)]
        if len(calls) == 1:
            return _certain(CallbackCall(cell, owner, calls[0]), method)
    hook = frames[0].function
    if not known:
        raise RefusedError(f"the callback whose `{hook}` ran out was not found in the notebook's classes")
    raise RefusedError(f"the line of `{hook}` that ran out calls no model on data, or more than one")


def _certain(found: CallbackCall, method: ast.FunctionDef) -> CallbackCall:
    """Refuse a call that cannot be made for some of the samples."""
    if found.owner.decorator_list or method.decorator_list:
        raise RefusedError(f"a decorator may change what `{method.name}` of `{found.owner.name}` does")
    if not only_infers(found.call):
        raise RefusedError("the model is called as in training there, or with more than data")
    if reason := why_whole(found.cell.scopes, found.call, method):
        raise RefusedError(reason)
    return found


def _in_hook(ask: Ask) -> list[Frame]:
    """List the frames of the user's own code from the hook of a callback on, outermost first."""
    for error in reversed(ask.recording.errors):
        users = [frame for frame in error.frames if frame.is_user and not in_comprehension(frame)]
        hooks = [n for n, frame in enumerate(users) if HOOK.fullmatch(frame.function)]
        if hooks:
            return users[hooks[-1] :]
    raise RefusedError("it is not known which callback ran out")


def _line(cell: PythonCell, frame: Frame) -> int:
    """Give the line of a cell's tree that a frame tells."""
    return cell.line_of(frame.line + dropped_lines(cell.source)) or 0


def _covers(node: ast.expr | ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _methods(ask: Ask, frame: Frame) -> Iterator[tuple[PythonCell, ast.ClassDef, ast.FunctionDef]]:
    """Yield the methods in which a frame may lie, of classes that still are what their names mean."""
    cells = (ask.cell,) if frame.in_cell else ask.notebook.earlier_with(frame.function)
    for cell in cells:
        for owner in (s for s in cell.tree.body if isinstance(s, ast.ClassDef)):
            last = ask.notebook.function(owner.name)
            if last is None or (last.cell.source, last.node.lineno) != (cell.source, owner.lineno):
                continue
            for method in owner.body:
                named = isinstance(method, ast.FunctionDef) and method.name == frame.function and method.args.args
                if isinstance(method, ast.FunctionDef) and named and _covers(method, _line(cell, frame)):
                    yield cell, owner, method


def _calls_model(ask: Ask, cell: PythonCell, method: ast.FunctionDef, call: ast.Call) -> bool:
    """Whether a call is one of ``self.model``, or of a model of the notebook by its name."""
    own = f"{method.args.args[0].arg}.model"
    if ast.unparse(call.func) == own:
        return True
    func = call.func
    shared = isinstance(func, ast.Name) and cell.scopes.home(func) is cell.tree
    return isinstance(func, ast.Name) and shared and ask.facts.model(func.id) is not None


def makes(ask: Ask, name: str) -> bool:
    """Tell whether the cell makes an object of the class, at once or in a function that it calls."""
    ahead = _called_at_once(ask.cell.tree)
    seen: set[str] = set()
    for _ in range(_LOOKED_AT):
        if name in ahead:
            return True
        functions = [ask.notebook.function(one) for one in ahead - seen]
        seen |= ahead
        bodies = [f.node for f in functions if f is not None and isinstance(f.node, ast.FunctionDef)]
        ahead = {one for body in bodies for one in _called_at_once(body)}
    return name in ahead


def _called_at_once(body: ast.Module | ast.FunctionDef) -> set[str]:
    """Give the plain names that the statements of a cell or function call, outside of functions inside."""
    found: set[str] = set()
    todo: list[ast.AST] = [*body.body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        if not isinstance(node, _FUNCTIONS):
            todo += ast.iter_child_nodes(node)
    return found
