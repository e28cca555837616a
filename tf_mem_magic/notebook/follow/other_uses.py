"""What else a name decides beside the batch: where it may be set for all, where only at the call, where not at all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import line_start
from tf_mem_magic.notebook.uses import called_name, is_batch_name, role

_FROZEN = ("frozen=True", "namedtuple", "NamedTuple", "Frozen", "MappingProxyType")


def blocked(reader: Reader, name: str, loads: list[ast.Name], use: ast.expr, value: int) -> Setting | Unknown | None:
    """Where the name also means something else: write the number at ``use``, or refuse; else None."""
    roles = [(load, reader.role(load)) for load in loads if load is not use]
    steps = [load for load, its in roles if its == "coupled" and _is_trained_with(reader, load)]
    drawn = [
        load for load, its in roles if its in ("other", "coupled") and load not in steps and is_drawn(reader, load)
    ]
    others = [load for load, its in roles if its == "other" and load not in drawn]
    if not others and not drawn:
        return None
    if value == 1:
        return Unknown("the batch size is already 1")
    where = reader.cell.aside(*others, *drawn)
    handed = is_batch_name(name) and any(_is_handed(reader, load) for load in others)
    coupled = any(its == "coupled" and load not in drawn for load, its in roles)
    if others and (handed or coupled or isinstance(use, ast.NamedExpr)):
        return Unknown(f"`{name}` also decides something else {where}, so changing it could change the model")
    if not others and (coupled or isinstance(use, ast.NamedExpr)):
        return None
    note = f"`{name}` stays {value}: it is also used for something else {where}."
    return Setting(value, (reader.slot(use, value),), notes=(note,))


def drawn_too(reader: Reader, name: str, loads: list[ast.Name]) -> tuple[str, ...]:
    """Say where a name that is set for all also decides what a figure shows."""
    others = [load for load in loads if reader.role(load) != "site" and not _is_trained_with(reader, load)]
    drawn = [load for load in others if is_drawn(reader, load)]
    return (f"What is drawn with `{name}` in {reader.cell.told(*drawn)} will show less.",) if drawn else ()


_TRAINS = re.compile(r"(?i)train|fit|learn")


def _is_trained_with(reader: Reader, load: ast.expr) -> bool:
    """Tell whether a number is handed to what trains: a figure of its history shows no less."""
    calls = (above for above in reader.scopes.up(load) if isinstance(above, ast.Call))
    return any(_TRAINS.search(called_name(call)) or reader.covers(call) for call in calls)


_DRAWING = re.compile(r"(?i)^(?:plt|ax\w*|fig\w*|sns|pyplot|display)$")
_DRAWS = re.compile(r"(?i)subplot|imshow|figure|plot|grid_?image|image_?grid|make_grid|montage|show|savefig")


def is_drawn(reader: Reader, load: ast.expr, depth: int = 0) -> bool:
    """Tell whether a number only decides what is drawn: in a call that draws, in a loop that does, or by a name."""
    statement = reader.scopes.statement(load)
    if isinstance(statement, (ast.For, ast.AsyncFor)) and load in set(ast.walk(statement.iter)):
        return _draws(statement) and not reader.covers(statement)  # a loop that failed trains, whatever it draws
    if isinstance(statement, ast.Assign) and not _draws(statement):
        targets = [n for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        loads = [n for t in targets for n in reader.scopes.loads.get((reader.scopes.home(t), t.id), [])]
        return depth < _LONGEST and bool(loads) and all(is_drawn(reader, n, depth + 1) for n in loads)
    return isinstance(statement, (ast.Expr, ast.Assign)) and _draws(statement)


_LONGEST = 3
"""Through so many names a number is followed to what it draws."""


def _draws(node: ast.AST) -> bool:
    for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
        root: ast.expr = call.func
        while isinstance(root, (ast.Attribute, ast.Subscript, ast.Call)):
            root = root.func if isinstance(root, ast.Call) else root.value
        if isinstance(root, ast.Name) and _DRAWING.match(root.id):
            return True
        if _DRAWS.search(called_name(call)):
            return True
    return False


def _is_handed(reader: Reader, load: ast.Name) -> bool:
    """Tell whether a batch size is handed to a function: it may build something for that batch size only."""
    call = reader.scopes.parents[load]
    return isinstance(call, ast.Call) and load in call.args and called_name(call)[:1].islower()


def not_known(reader: Reader, text: str) -> Unknown:
    """Say that a value is not known which this cell does not set: an ``import *`` of it may bring it."""
    brings = any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in reader.cell.tree.body)
    origin = "`import *` or an earlier cell" if brings else "an earlier cell"
    return Unknown(f"`{text}` comes from {origin}, and its value is not known")


def earlier(reader: Reader, expr: ast.expr, loads: list[ast.Name], text: str = "") -> Setting | Unknown:
    """Set a value that comes from an earlier cell: by a line before the cell first reads it.

    ``text`` is what it is called outside of functions; empty: what stands there.
    """
    text = text or reader.cell.text(expr)
    value = reader.scalar(text)
    if value is None:
        return not_known(reader, text)
    if isinstance(expr, ast.Name):
        stopped = blocked(reader, expr.id, loads, expr, value)
        if stopped is not None:
            return stopped
        elsewhere = stays_elsewhere(reader, expr.id)
        if elsewhere is not None:
            return elsewhere
    elif reader.notebook.before.has(*_FROZEN):
        return Setting(value, (reader.slot(expr, value),))
    first = min((reader.scopes.top_statement(n) for n in [*loads, expr]), key=lambda s: s.lineno)
    at = line_start(reader.cell, first)
    slot = Slot(value, at, at, f"{text} = ", reader.cell.newline)
    names = drawn_too(reader, text, loads) if isinstance(expr, ast.Name) else ()
    return Setting(value, (slot,), frozenset({text}), notes=names)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def stays_elsewhere(reader: Reader, name: str) -> Unknown | None:
    """Refuse where code of an earlier cell reads ``name`` and would keep its value, or means something else by it."""
    if name not in reader.facts.read_elsewhere:
        return None
    found = list(_read_in_functions(reader, name))
    own = any(isinstance(above, _FUNCTIONS) for load in _loads(reader.cell, name) for above in reader.scopes.up(load))
    if not found and not own:
        return _read_elsewhere(name)
    for cell, load in found:
        if not follows_at_run_time(reader, cell.scopes.top_statement(load)) or cell.scopes.scope_of(load) is cell.tree:
            return _read_elsewhere(name)
        if role(cell.scopes, load) == "other":
            return Unknown(f"a function of an earlier cell reads `{name}` too, for something else than batches")
    return None


def follows_at_run_time(reader: Reader, statement: ast.stmt) -> bool:
    """Tell whether code of an earlier cell reads a name anew when this cell runs.

    A function does that the cell itself calls, and a callback of Keras; one that TensorFlow has traced keeps the value
    that it was traced with, and so do a model's methods, unless this cell makes the model and compiles it.
    """
    called = getattr(statement, "name", "")
    if isinstance(statement, ast.ClassDef) and any(map(_is_callback, statement.bases)):
        return True
    if not called or called not in reader.cell.words:
        return False
    if isinstance(statement, ast.ClassDef):
        return bool(reader.calls_of(called)) and bool(reader.calls_of("compile"))
    if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    return not any(word in ast.unparse(d) for d in statement.decorator_list for word in ("function", "jit"))


def _is_callback(base: ast.expr) -> bool:
    """Tell whether a class is a callback of Keras by its base, as that is always written: Keras calls it in Python."""
    return ast.unparse(base).rpartition(".")[2] in ("Callback", "LambdaCallback")


def _read_in_functions(reader: Reader, name: str) -> Iterator[tuple[PythonCell, ast.Name]]:
    """Yield where functions, methods and lambdas of earlier cells read the notebook's ``name``."""
    for cell in reader.notebook.earlier_with(name):
        for load in _loads(cell, name):
            if any(isinstance(above, _FUNCTIONS) for above in cell.scopes.up(load)):
                yield cell, load


def _loads(cell: PythonCell, name: str) -> list[ast.Name]:
    return cell.scopes.loads.get((cell.tree, name), [])


def _read_elsewhere(name: str) -> Unknown:
    return Unknown(
        f"code of an earlier cell, which this cell runs, reads `{name}` too: make it smaller where it is set, and run "
        "the cells from there on again"
    )
