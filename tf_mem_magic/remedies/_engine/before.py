"""Where a line stands that must run before anything trains: outside of the loops around a statement."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.text.ranges import shares_line
from tf_mem_magic.notebook.training import binds_model
from tf_mem_magic.remedies._engine.question import Ask

LOOPS = (ast.For, ast.AsyncFor, ast.While)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def before_loops(ask: Ask, statement: ast.stmt, model: str) -> ast.stmt:
    """Give ``statement`` or the outermost loop around it in which ``model`` stays the same object.

    A line before a step of a loop would run with every step, and after the steps before it. Functions are not left.
    """
    for node in ask.scopes.up(statement):
        if isinstance(node, _SCOPES) or not isinstance(node, ast.stmt):
            break
        if binds_model(node, model) or shares_line(ask.cell, node):
            break
        if isinstance(node, LOOPS):
            statement = node
    return statement
