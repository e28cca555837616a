"""The batch size of a training inside a method of the notebook's own class: a parameter, or an attribute of the object.

``trainer.go(x, y, 64)``, where an earlier cell's ``go`` calls ``self.net.fit(x, y, batch_size=n)``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.notebook.batch.counting_on import number_held
from tf_mem_magic.notebook.batch.steps import STEPS, argument
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.objects import Method, method_of
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot
from tf_mem_magic.notebook.follow.resolve import default_argument, resolve
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.sizes_by_use import filled_by
from tf_mem_magic.notebook.text.cell import walk
from tf_mem_magic.notebook.text.ranges import insert_line, shares_line
from tf_mem_magic.notebook.training import binds_model
from tf_mem_magic.notebook.uses import KERAS, called_name, is_batch_name, role

_IN_THE_WAY = frozenset({*STEPS, "steps", "validation_batch_size", "gradient_accumulation_steps"})
"""Arguments of Keras that would have to change with the batch size, in a text that is not changed here."""

_MARK = "\x00"
_OF_THEIR_OWN = frozenset({"__slots__", "__setattr__", "__getattribute__"})


def behind_a_method(reader: Reader) -> tuple[Setting, BatchSeen] | None:
    """Find where the batch is set that Keras was seen to use in a method which the failing line calls.

    None where there is not exactly one such method, or what it does with its batch size is not certain. What is found
    was seen: the number that stands in the cell, or in the method, is the one that Keras used.
    """
    seen = [one for one in reader.facts.batches if one.source == "arrays" and one.method in KERAS]
    found = [
        (setting, one)
        for call in reader.cell.calls
        if reader.covers(call) and not _starred(call)
        for one in seen[:1]
        if (setting := _set_by(reader, call, one)) is not None and setting.value == one.batch
    ]
    return found[0] if len(found) == 1 else None


def _starred(call: ast.Call) -> bool:
    return any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)


def _set_by(reader: Reader, call: ast.Call, seen: BatchSeen) -> Setting | None:
    """Find where the batch size of the one call of Keras in a method of the notebook is set."""
    method = method_of(reader, call)
    if method is None or method.node.args.vararg is not None or method.own in _bound(method):
        return None
    inside = [c for c in walk(method.node) if isinstance(c, ast.Call) and called_name(c) == seen.method]
    if len(inside) != 1 or _starred(inside[0]) or any(k.arg in _IN_THE_WAY for k in inside[0].keywords):
        return None
    size = argument(inside[0], None, "batch_size", KERAS[seen.method])
    setting = None if size is None else _set_for(reader, call, method, size, seen.batch)
    data = argument(inside[0], None, "x", 0)
    if setting is None or size is None or data is None:
        return setting
    if not filled_by(method.scopes, method.node, data, size, frozenset({ast.unparse(size)})):
        return setting
    note = f"Each call of `{method.node.name}` takes as many steps as before, each with fewer samples."
    return replace(setting, notes=(*setting.notes, note), same_steps=True)


def _set_for(reader: Reader, call: ast.Call, method: Method, size: ast.expr, batch: int) -> Setting | None:
    """Find where what a method gives Keras as its batch size is set."""
    if isinstance(size, ast.Attribute) and isinstance(size.value, ast.Name) and size.value.id == method.own:
        return _of_the_object(reader, call, method, size.attr, batch)
    if isinstance(size, ast.Name) and method.scopes.home(size) is method.node and size.id != method.own:
        return _of_the_call(reader, call, method, size, batch)
    if isinstance(size, ast.Name) and isinstance(method.scopes.home(size), ast.Module):
        return _of_the_notebook(reader, call, method, size.id, batch)
    return None


def _of_the_notebook(reader: Reader, call: ast.Call, method: Method, name: str, batch: int) -> Setting | None:
    """Set a name of an earlier cell anew before the statement that calls the method, which reads it then.

    Nothing else may have been made of its number.
    """
    top, module = reader.scopes.top_statement(call), reader.cell.tree
    touched = reader.scopes.of(module, name) or (module, name) in reader.scopes.loads
    if number_held(reader, name) != batch or touched or shares_line(reader.cell, top):
        return None
    running = {n for function in method.running() for statement in function.body for n in ast.walk(statement)}
    for cell in reader.notebook.cells_with(name):
        for node in cell.nodes:
            if not isinstance(node, ast.Name) or node.id != name or not isinstance(node.ctx, ast.Load):
                continue
            if not (_is_harmless(cell.scopes, node) or (node in running and _is_read_anew(cell.scopes, node))):
                return None
    edit = insert_line(reader.cell, top, f"{name} = {_MARK}")
    before, after = edit.text.split(_MARK)
    return Setting(batch, (Slot(batch, edit.start, edit.end, before, after),), frozenset({name}))


def _bound(method: Method) -> set[str]:
    """Name what the method sets itself."""
    return {n.id for n in walk(method.node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def _of_the_call(reader: Reader, call: ast.Call, method: Method, size: ast.Name, batch: int) -> Setting | None:
    """Find the argument that the cell gives for a parameter; where it gives none, the default is left out."""
    parameter = [b for b in method.scopes.of(method.node, size.id) if b.kind == "param"]
    if not parameter or size.id in _bound(method):
        return None
    if any(not _follows(method, load) for load in method.scopes.loads[method.node, size.id] if load is not size):
        return None
    given = calls.bind(call, method.node, size.id, skip=True)
    if given is not None and given is not calls.default_of(method.node, size.id):
        found = resolve(reader, given)
        return found if isinstance(found, Setting) else None
    by_position = size.id in [one.arg for one in method.node.args.posonlyargs]
    return None if given is None or by_position else default_argument(reader, call, batch, size.id)


def _follows(method: Method, load: ast.Name) -> bool:
    """Tell whether what a method does with a parameter stays right with another batch size."""
    its = role(method.scopes, load)
    return its in ("site", "free") or (its == "coupled" and is_batch_name(load.id))


def _of_the_object(reader: Reader, call: ast.Call, method: Method, attribute: str, batch: int) -> Setting | None:
    """Set an attribute of the object before the statement that calls its method, where it is a plain one.

    Nothing may have been made of the number when the object was.
    """
    assert isinstance(call.func, ast.Attribute)
    assert isinstance(call.func.value, ast.Name)
    name, top = call.func.value.id, reader.scopes.top_statement(call)
    if not _is_plain(method, attribute) or not _is_only_kept(method, attribute):
        return None
    if _is_read_before(reader, name, attribute, top) or binds_model(top, name) or shares_line(reader.cell, top):
        return None
    written = f"{name}.{attribute}"
    edit = insert_line(reader.cell, top, f"{written} = {_MARK}")
    before, after = edit.text.split(_MARK)
    undo = f"{written} = {batch}"
    slot = Slot(batch, edit.start, edit.end, before, after, undo=undo, owner=name)
    return Setting(batch, (slot,))


def _is_plain(method: Method, attribute: str) -> bool:
    """Tell whether an attribute is one that the classes only set, and not while the method runs."""
    members = [member for one in method.classes for member in one.node.body]
    named = {getattr(member, "name", "") for member in members}
    fields = [member for member in members if isinstance(member, (ast.Assign, ast.AnnAssign))]
    named |= {n.id for m in fields for n in walk(m) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    if any(one.node.decorator_list for one in method.classes) or named & {attribute, *_OF_THEIR_OWN}:
        return False
    stored = [n for function in method.functions() for n in _attributes(function, attribute) if _is_set(n)]
    running = method.running()
    return bool(stored) and not any(_is_set(n) for function in running for n in _attributes(function, attribute))


def _is_only_kept(method: Method, attribute: str) -> bool:
    """Tell whether the classes make nothing of an attribute's number that would keep it when that is set anew.

    What the method runs reads the new number. Elsewhere it may only be shown, or handed to Keras as a batch size.
    """
    running = method.running()
    for one in method.classes:
        for function in (f for f in one.node.body if isinstance(f, ast.FunctionDef)):
            reads = function in running and not function.decorator_list
            for node in _attributes(function, attribute):
                if _is_set(node):
                    if not _is_plainly_kept(one.cell.scopes, node, function):
                        return False
                elif not (_is_harmless(one.cell.scopes, node) or (reads and _is_read_anew(one.cell.scopes, node))):
                    return False
    return True


def _is_plainly_kept(scopes: Scopes, node: ast.Attribute, function: ast.FunctionDef) -> bool:
    """Tell whether an attribute is set to a number, or to a parameter of which nothing else is made."""
    statement = scopes.statement(node)
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return False
    value = statement.value
    if not isinstance(value, ast.Name):
        return isinstance(value, ast.Constant)
    loads = scopes.loads.get((function, value.id), [])
    return value in loads and all(load is value or role(scopes, load) == "free" for load in loads)


def _is_harmless(scopes: Scopes, node: ast.expr) -> bool:
    """Tell whether a number is only shown, or handed to Keras as a batch size."""
    above = scopes.parents.get(node)
    call = scopes.parents.get(above) if isinstance(above, ast.keyword) and above.arg == "batch_size" else None
    return role(scopes, node) == "free" or (isinstance(call, ast.Call) and called_name(call) in KERAS)


def _is_read_anew(scopes: Scopes, node: ast.expr) -> bool:
    """Tell whether a batch size is read for what is made at that moment, and nothing of it is kept."""
    statement = scopes.statement(node)
    kept = isinstance(statement, ast.Assign) and not all(isinstance(t, ast.Name) for t in statement.targets)
    return role(scopes, node) in ("site", "coupled") and not kept


def _is_read_before(reader: Reader, name: str, attribute: str, top: ast.stmt) -> bool:
    """Tell whether the notebook made something of the object's number before ``top``."""
    for cell in reader.notebook.cells_with(attribute):
        for node in cell.nodes:
            if not isinstance(node, ast.Attribute) or node.attr != attribute or not isinstance(node.ctx, ast.Load):
                continue
            of_it = isinstance(node.value, ast.Name) and node.value.id == name
            later = cell is reader.cell and node.lineno >= top.lineno
            if of_it and not later and role(cell.scopes, node) != "free":
                return True
    return False


def _attributes(function: ast.FunctionDef, attribute: str) -> Iterator[ast.Attribute]:
    return (n for n in walk(function) if isinstance(n, ast.Attribute) and n.attr == attribute)


def _is_set(node: ast.Attribute) -> bool:
    return not isinstance(node.ctx, ast.Load)
