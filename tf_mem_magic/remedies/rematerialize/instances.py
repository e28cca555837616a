"""The layers that each instance of a block has in the model that failed, by the names that operations carry."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from tf_mem_magic.core.step import StepFacts
from tf_mem_magic.memory.roles import scopes_in
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.rematerialize.blocks import Block
from tf_mem_magic.remedies.rematerialize.structure import Structure

_STRAIGHT = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return)


class _UnclearError(Exception):
    """Which layers a function adds does not follow from its text."""


def instances(block: Block, structure: Structure, step: StepFacts | None) -> tuple[tuple[str, ...], ...]:
    """List the layers of each instance of a block, in the order in which the model runs them; empty: not known.

    Those of a class are told by their class. Those of a function are told by their order: they stand one after another
    as the function applies them, which its text must tell without a condition or loop.
    """
    if step is None or len(step.classes) != len(step.layers):
        return ()
    layers = [(name, kind) for name, kind in zip(step.layers, step.classes) if kind != "InputLayer"]
    found: tuple[tuple[str, ...], ...] = ()
    if isinstance(block.definition, ast.ClassDef):
        found = tuple((name,) for name, kind in layers if kind == block.name)
    else:
        try:
            pattern = list(_applied(block.definition, structure, ()))
        except _UnclearError:
            return ()
        found = _runs(layers, pattern) if pattern else ()
    # Other models of the notebook may have such blocks, too: those count whose operations the step runs.
    ran = {layer for one in step.steps[:1] for layer in scopes_in(one, step.layers).values()}
    return tuple(group for group in found if not ran.isdisjoint(group))


def _runs(layers: Sequence[tuple[str, str]], pattern: list[str]) -> tuple[tuple[str, ...], ...]:
    """Find where classes of layers follow one another as in the pattern."""
    found, at = [], 0
    while at + len(pattern) <= len(layers):
        run = layers[at : at + len(pattern)]
        if [kind for _, kind in run] == pattern:
            found.append(tuple(name for name, _ in run))
            at += len(pattern)
        else:
            at += 1
    return tuple(found)


def _applied(function: ast.FunctionDef, structure: Structure, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the classes of the layers that a function applies, in order."""
    if function.name in above:
        raise _UnclearError
    for statement in function.body:
        if not isinstance(statement, _STRAIGHT):
            raise _UnclearError
        if statement.value is not None:
            yield from _of_value(statement.value, structure, (*above, function.name))


def _of_value(node: ast.expr, structure: Structure, above: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, (ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)):
        raise _UnclearError
    if isinstance(node, ast.Call):
        yield from _of_call(node, structure, above)
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _of_value(child, structure, above)


def _of_call(call: ast.Call, structure: Structure, above: tuple[str, ...]) -> Iterator[str]:
    made = call.func if isinstance(call.func, ast.Call) else None
    if made is None and structure.names.is_layer(call):
        raise _UnclearError  # a layer that is made here, and applied elsewhere
    for value in (*call.args, *(keyword.value for keyword in call.keywords)):
        yield from _of_value(value, structure, above)
    if made is not None:
        if not structure.names.is_layer(made):
            raise _UnclearError
        yield called_name(made)
    elif isinstance(call.func, ast.Name) and (inner := structure.function_of(call.func.id)) is not None:
        yield from _applied(inner, structure, above)
    elif structure.names.origin(call.func) == f"keras.layers.{called_name(call)}":
        yield called_name(call).capitalize()  # keras.layers.add is an Add
