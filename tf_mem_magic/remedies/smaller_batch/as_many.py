"""Whether code that the cell hands its batch size to takes as many steps as before, however small the batches are."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.means.through import gone_through
from tf_mem_magic.notebook.batch.steps import argument, follows
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.objects import Method, method_of
from tf_mem_magic.notebook.follow.reader import Reader, Setting
from tf_mem_magic.notebook.scopes import arguments
from tf_mem_magic.notebook.sizes_by_use import filled_by
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.uses import KERAS, called_name, is_batch_name, is_tape
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines

_TRAINS = ("train_on_batch", "apply_gradients", "minimize", "GradientTape")


def takes_as_many(ask: Ask, found: BatchFound) -> str:
    """Name the function that trains in loops over numbers alone, none of them made of the batch size; empty: unknown.

    ``gan.train(epochs=4000, batch_size=32)``: its turns are steps, each with a batch drawn anew. What it calls that
    trains is looked at too: a step there may be a pass over the data.
    """
    if found.method != "loop" or found.same_steps:
        return ""
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    setting = Setting(found.value, found.slots, found.names)
    for call in (one for one in ask.cell.calls if reader.covers(one)):
        function, method = _called(reader, call)
        if function is None:
            continue
        training = _training(reader, function, method)
        if not training:
            continue
        made_of_it = _made_of_it(function, _given(reader, call, function, method is not None, setting))
        loops = [loop for one in training for loop in _loops_of_steps(one)]
        steps = any(map(_trains, loops))
        return function.name if steps and all(_is_a_number(reader, loop, made_of_it) for loop in loops) else ""
    return ""


def draws_as_many(ask: Ask, found: BatchFound) -> str:
    """Name the function that draws as many samples as the batch size it is given, for one call of Keras; or empty.

    ``agent.replay(32)``: its ``fit`` takes one step, whatever the size.
    """
    if found.method != "loop" or found.same_steps:
        return ""
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    setting = Setting(found.value, found.slots, found.names)
    for call in (one for one in ask.cell.calls if reader.covers(one)):
        function, method = _called(reader, call)
        plain = reader.notebook.function(call.func.id) if isinstance(call.func, ast.Name) else method
        if function is None or plain is None:
            continue
        given = frozenset(_given(reader, call, function, method is not None, setting))
        for inner in (n for n in walk(function) if isinstance(n, ast.Call) and called_name(n) == "fit"):
            data, size = argument(inner, None, "x", 0), argument(inner, None, "batch_size", KERAS["fit"])
            if data is not None and isinstance(size, ast.Name) and size.id in given:
                return function.name if filled_by(plain.cell.scopes, function, data, size, given) else ""
    return ""


def _loops_of_steps(function: ast.FunctionDef) -> list[ast.For | ast.AsyncFor | ast.While]:
    """List the loops of a function that may take steps: those under a tape are parts of one, words of a sentence."""
    taped = {n for one in walk(function) if is_tape(one) for n in walk(one)}
    return [n for n in walk(function) if isinstance(n, (ast.For, ast.AsyncFor, ast.While)) and n not in taped]


def _trains(loop: ast.AST) -> bool:
    names = (called_name(n) for n in walk(loop) if isinstance(n, ast.Call))
    return any(name in _TRAINS or "train" in name.lower() for name in names)


def _training(reader: Reader, function: ast.FunctionDef, method: Method | None) -> list[ast.FunctionDef]:
    """List a function and those that it calls which train, through one another; none where one of them is not seen."""
    own = {one.name: one for one in method.functions()} if method is not None else {}
    found, todo = [function], [function]
    trains = False
    while todo:
        for call in (n for n in walk(todo.pop()) if isinstance(n, ast.Call)):
            trains = trains or called_name(call) in _TRAINS
            if "train" not in called_name(call).lower() or called_name(call) in _TRAINS:
                continue
            plain = reader.notebook.function(call.func.id) if isinstance(call.func, ast.Name) else None
            inner = own.get(called_name(call)) if plain is None else plain.node
            if not isinstance(inner, ast.FunctionDef):
                return []
            if inner not in found:
                found.append(inner)
                todo.append(inner)
    return found if trains else []


def _called(reader: Reader, call: ast.Call) -> tuple[ast.FunctionDef | None, Method | None]:
    """Give the function of the notebook that a call runs, and the method that it is."""
    if isinstance(call.func, ast.Name):
        function = reader.notebook.function(call.func.id)
        node = None if function is None else function.node
        return (node if isinstance(node, ast.FunctionDef) else None), None
    method = method_of(reader, call)
    return (None if method is None else method.node), method


def _given(reader: Reader, call: ast.Call, function: ast.FunctionDef, skip: bool, setting: Setting) -> Iterator[str]:
    """Name the parameters that get the batch size, or what is made of it."""
    here = function in reader.nodes
    for parameter in arguments(function.args)[skip:]:
        given = calls.bind(call, function, parameter.arg, skip=skip)
        own = here or given is not calls.default_of(function, parameter.arg)  # of another cell, it stays as it is
        if given is not None and own and follows(reader, given, setting):
            yield parameter.arg


def _made_of_it(function: ast.FunctionDef, names: Iterator[str]) -> set[str]:
    """Name all that a function makes of what is named: sizes, numbers of steps, data of that batch."""
    found = set(names)
    sets = [n for n in walk(function) if isinstance(n, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and n.value]
    grown = True
    while grown:
        before = len(found)
        for one in sets:
            if one.value is not None and _reads(one.value, found):
                found |= {_named(n) for n in walk(one) if isinstance(getattr(n, "ctx", None), ast.Store)}
        grown = len(found) > before
    return found


def _reads(expr: ast.expr, names: set[str]) -> bool:
    return any(_named(n) in names or is_batch_name(_named(n)) for n in walk(expr))


def _named(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_a_number(reader: Reader, loop: ast.For | ast.AsyncFor | ast.While, made_of_it: set[str]) -> bool:
    """Tell whether a loop takes a number of turns in which the batch size has no part."""
    source = None if isinstance(loop, ast.While) else gone_through(reader, loop.iter)
    if not isinstance(source, ast.Call) or called_name(source) not in ("range", "trange"):
        return False
    return not any(_reads(given, made_of_it) for given in source.args)
