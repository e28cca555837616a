"""What the failing call was given: the arrays and tensors that the failing line reads, with their shapes."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections import ChainMap
from collections.abc import Iterable
from types import FrameType

from tf_mem_magic.core.facts import NamedValue
from tf_mem_magic.facts.scalars import read_expressions
from tf_mem_magic.facts.values import describe

_MOST = 32
_LONGEST_FILE = 20_000
"""Lines; a longer file is not parsed for one of them."""


def find_inputs(frames: Iterable[tuple[FrameType, int]]) -> tuple[NamedValue, ...]:
    """Describe the arrays and tensors that the failing lines read; ``frames`` are the user's own with their lines.

    The innermost comes first. A function's own names are told by the names they have there. No code is run.
    """
    found: dict[str, NamedValue] = {}
    for frame, line in frames:
        parts = _parts(frame.f_code.co_filename, line)
        # A cell's or a module's own names are its globals.
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
        names = ChainMap(frame.f_locals, frame.f_globals) if is_function else frame.f_globals
        for text, value in (read for part in parts for read in read_expressions(part, names)):
            described = describe(text, value)
            if described is not None and len(found) < _MOST:
                found.setdefault(text, described)
    return tuple(found.values())


def _parts(file: str, line: int) -> list[ast.AST]:
    """Give the code of the smallest statement that holds a line; empty where the text is not known."""
    lines = linecache.getlines(file)
    if not 0 < line <= len(lines) <= _LONGEST_FILE:
        return []
    try:
        tree: ast.AST = ast.parse("".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = None
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            found = node
    return _head(found) if found is not None else []


def _head(statement: ast.stmt) -> list[ast.AST]:
    """Give what runs in a statement's own line: of a compound one not its body."""
    return [
        part
        for name, value in ast.iter_fields(statement)
        if name not in ("body", "orelse", "finalbody", "handlers", "cases")
        for part in (value if isinstance(value, list) else [value])
        if isinstance(part, ast.AST)
    ]
