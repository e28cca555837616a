"""The batch size of a training inside a method of the notebook's own class: a parameter, or an attribute of the object.

``trainer.go(x, y, 64)``, where an earlier cell's ``go`` calls ``self.net.fit(x, y, batch_size=n)``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.notebook.batch.datasets import default_argument
from tf_mem_magic.notebook.batch.steps import STEPS
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.text.cell import PythonCell, walk
from tf_mem_magic.notebook.text.ranges import insert_line, shares_line
from tf_mem_magic.notebook.uses import KERAS, called_name

_IN_THE_WAY = frozenset({*STEPS, "steps", "validation_batch_size", "gradient_accumulation_steps"})
"""Arguments of Keras that would have to change with the batch size, in a text that is not changed here."""

_MARK = "\x00"


def behind_a_method(reader: Reader) -> tuple[Setting, BatchSeen] | None:
    """Find where the batch is set that Keras was seen to use in a method which the failing line calls.

    None where there is not exactly one such method, or what it does with its batch size is not certain. What is found
    was seen: the number that stands in the cell, or in the method, is the one that Keras used.
    """
    seen = [one for one in reader.facts.batches if one.source == "arrays" and one.method in KERAS]
    calls = [call for call in reader.cell.calls if _is_on_a_name(call) and reader.lines & _lines(call)]
    found = [
        (setting, one)
        for call in calls
        for one in seen[:1]
        if (setting := _set_by(reader, call, one)) is not None and setting.value == one.batch
    ]
    return found[0] if len(found) == 1 else None


def _is_on_a_name(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) and not _starred(call)


def _starred(call: ast.Call) -> bool:
    return any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)


def _lines(call: ast.Call) -> set[int]:
    return set(range(call.lineno, (call.end_lineno or call.lineno) + 1))


def _set_by(reader: Reader, call: ast.Call, seen: BatchSeen) -> Setting | None:
    """Find where the batch size of the one call of Keras in a method of the notebook is set."""
    methods = list(_methods(reader, called_name(call)))
    if len(methods) != 1:
        return None
    owner, method = methods[0]
    inside = [c for c in walk(method) if isinstance(c, ast.Call) and called_name(c) == seen.method]
    if len(inside) != 1 or _starred(inside[0]) or any(k.arg in _IN_THE_WAY for k in inside[0].keywords):
        return None
    size = _batch_size(inside[0], seen.method)
    names = [argument.arg for argument in (*method.args.posonlyargs, *method.args.args)]
    if not names or method.args.vararg is not None or _binds(method, names[0]):
        return None
    if isinstance(size, ast.Attribute) and isinstance(size.value, ast.Name) and size.value.id == names[0]:
        return _of_the_object(reader, call, owner, method, size.attr, seen.batch)
    every = [*names[1:], *(argument.arg for argument in method.args.kwonlyargs)]
    if not isinstance(size, ast.Name) or size.id not in every or _binds(method, size.id):
        return None
    return _of_the_call(reader, call, method, names, size.id, seen.batch)


def _methods(reader: Reader, name: str) -> Iterator[tuple[ast.ClassDef, ast.FunctionDef]]:
    """Yield the methods of that name in the classes of the notebook."""
    cells: tuple[PythonCell, ...] = reader.notebook.cells_with(name)
    for cell in cells:
        for owner in (node for node in cell.nodes if isinstance(node, ast.ClassDef)):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list:
                    yield owner, node


def _batch_size(call: ast.Call, method: str) -> ast.expr | None:
    place = KERAS[method]
    named = next((k.value for k in call.keywords if k.arg == "batch_size"), None)
    return named if named is not None else call.args[place] if place is not None and len(call.args) > place else None


def _binds(method: ast.FunctionDef, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name and not isinstance(n.ctx, ast.Load) for n in walk(method))


def _of_the_call(
    reader: Reader, call: ast.Call, method: ast.FunctionDef, names: list[str], name: str, batch: int
) -> Setting | None:
    """Find the argument that the cell gives for a parameter; where it gives none, the default is left out."""
    given = next((k.value for k in call.keywords if k.arg == name), None)
    place = names.index(name) - 1 if name in names else len(call.args)
    if given is None and place < len(call.args):
        given = call.args[place]
    if given is not None:
        found = resolve(reader, given)
        return found if isinstance(found, Setting) else None
    default = _default(method, name)
    known = isinstance(default, ast.Constant) and default.value == batch
    return default_argument(reader, call, batch, name) if known else None


def _default(method: ast.FunctionDef, name: str) -> ast.expr | None:
    arguments = method.args
    plain = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(plain[len(plain) - len(arguments.defaults) :], arguments.defaults)]
    pairs += [(one, value) for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults) if value is not None]
    return next((value for one, value in pairs if one.arg == name), None)


def _of_the_object(
    reader: Reader, call: ast.Call, owner: ast.ClassDef, method: ast.FunctionDef, attribute: str, batch: int
) -> Setting | None:
    """Set an attribute of the object before the statement that calls its method, where it is a plain one."""
    assert isinstance(call.func, ast.Attribute)
    assert isinstance(call.func.value, ast.Name)
    stored = [n for n in walk(owner) if isinstance(n, ast.Attribute) and n.attr == attribute and _is_set(n)]
    made_otherwise = any(isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == attribute for n in owner.body)
    if owner.decorator_list or made_otherwise or not stored or any(n in walk(method) for n in stored):
        return None
    top = next((s for s in reader.cell.tree.body if s.lineno <= call.lineno <= (s.end_lineno or s.lineno)), None)
    if top is None or shares_line(reader.cell, top) or any(_makes(s, call.func.value.id) for s in [top]):
        return None
    written = f"{call.func.value.id}.{attribute}"
    edit = insert_line(reader.cell, top, f"{written} = {_MARK}")
    before, after = edit.text.split(_MARK)
    undo = f"{written} = {batch}"
    return Setting(batch, (Slot(batch, edit.start, edit.end, before, after, undo=undo),))


def _is_set(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store)


def _makes(statement: ast.stmt, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for n in walk(statement))
