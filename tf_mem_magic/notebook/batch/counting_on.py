"""Code that counts on the batch size by another name than those that are set, or counts batches: it must follow."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tf_mem_magic.notebook.follow.behind import Piece, behind, failing_names, model_names, pieces
from tf_mem_magic.notebook.follow.entries import key_of
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.made_values import made_for_the_batch
from tf_mem_magic.notebook.follow.made_with import Given, computes_with, given_in, only_trains
from tf_mem_magic.notebook.follow.other_uses import follows_at_run_time
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Slot, Unknown, merge
from tf_mem_magic.notebook.follow.resolve import resolve
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.sizes_by_use import lengths_of, sizes_by_use
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.ranges import line_start
from tf_mem_magic.notebook.uses import SHAPES, called_name, is_batch_name, role

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_STEPS = ("steps_per_epoch", "validation_steps", "steps", "validation_batch_size", "batch_size")
_DEFINES = re.compile(r"\bdef\s")
_THERE = "make it smaller where it is set, and run the cells from there on again"


def with_all_that_count_on_it(reader: Reader, setting: Setting, call: ast.Call | None) -> Setting | Unknown:
    """Add to a setting the names by which other code counts on the same batch, or refuse.

    ``call`` is the call of Keras that failed; None: a loop of the cell's own.
    """
    found = _made_with_what_stays(reader, setting, call) or _of_this_cell(reader, setting, call)
    if isinstance(found, Setting):
        found = _made_with_it(reader, found, call) or _values_made_with_it(reader, found, call) or found
    return found if isinstance(found, Unknown) else _of_earlier_cells(reader, found, call)


def _made_with_what_stays(reader: Reader, setting: Setting, call: ast.Call | None) -> Unknown | None:
    """Refuse where the model is made with a batch size that stays as it is: it may take batches of that size only."""
    owner = call.func if call is not None and setting.kept else None
    while isinstance(owner, (ast.Attribute, ast.Subscript)):
        owner = owner.value
    made = (b.value for b in reader.bindings(owner)) if isinstance(owner, ast.Name) else ()
    for node in (n for one in made if isinstance(one, ast.Call) for n in ast.walk(one)):
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and reader.written(node) in setting.kept:
            told = f"`{owner.id}` is made with it in {reader.cell.told(node)}"  # type: ignore[union-attr]
            return Unknown(f"`{reader.written(node)}` decides how many samples there are, and {told}: {_THERE}")
    return None


def _of_this_cell(reader: Reader, setting: Setting, call: ast.Call | None) -> Setting | Unknown:
    for node in _named(reader, setting, call):
        written = reader.written(node)
        if written in setting.names or reader.role(node) == "free":
            continue
        coupled = reader.role(node) in ("site", "coupled")
        one = resolve(reader, node) if coupled else Unknown("it is used for something else")
        if _stays(reader, setting, node, one):
            if _is_beside(reader, node, call):
                continue  # it says how many samples the call is given
            return _counts_too(reader, written, node, setting)
        joined = merge([setting, one]) if isinstance(one, Setting) else one
        if isinstance(joined, Unknown):
            return _counts_too(reader, written, node, setting)
        setting = joined
    for own in _own_sizes(reader):
        one = resolve(reader, own)
        if isinstance(one, Setting) and one.value != setting.value:
            continue
        if _stays(reader, setting, own, one):
            if _is_beside(reader, own, call):
                continue
            return _counts_too(reader, reader.written(own), own, setting)
        joined = merge([setting, one]) if isinstance(one, Setting) else one
        if isinstance(joined, Unknown):
            return _counts_too(reader, reader.written(own), own, setting)
        setting = joined
    for length in lengths_of(reader.scopes, reader.cell.tree, _by_use(reader, setting)):
        if evaluate(reader, length) == setting.value:
            return _counts_too(reader, length.id, length, setting)
    return setting


def _stays(reader: Reader, setting: Setting, node: ast.expr, held: Setting | Unknown) -> bool:
    """Tell whether a name is one that stays as it is, or gets its number from one."""
    names = held.names if isinstance(held, Setting) else frozenset()
    return bool(setting.kept & {reader.written(node), *names})


def _is_beside(reader: Reader, node: ast.expr, call: ast.Call | None) -> bool:
    """Tell whether a name is read in the function in which Keras is called."""
    inside = next((above for above in reader.scopes.up(call) if isinstance(above, _FUNCTIONS)), None) if call else None
    return inside is not None and inside in reader.scopes.up(node)


def _counts_too(reader: Reader, written: str, node: ast.expr, setting: Setting) -> Unknown:
    return Unknown(f"`{written}` in {reader.cell.told(node)} also counts on batches of {setting.value}: {_THERE}")


def _by_use(reader: Reader, setting: Setting) -> frozenset[str]:
    """Name what batches data and would stay as it is where a dataset is split again."""
    return sizes_by_use(reader.notebook) - setting.names if setting.datasets else frozenset()


def _named(reader: Reader, setting: Setting, call: ast.Call | None) -> Iterator[ast.expr]:
    """Yield what the cell reads by a name that means a batch size, and that may count on this one.

    Where a dataset of an earlier cell is split again, all of them; where the batch itself is set, those in functions
    and classes that make something of that size.
    """
    told = {n for k in (call.keywords if call else ()) if k.arg in _STEPS for n in ast.walk(k.value)}
    for node in reader.nodes:
        if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) or not isinstance(node.ctx, ast.Load):
            continue
        its = key_of(node)
        name = node.id if isinstance(node, ast.Name) else its[1] if its else ""
        if node in told or not is_batch_name(name) or _is_called(reader.scopes, node):
            continue
        value = evaluate(reader, node) if isinstance(node, ast.Name) else reader.scalar(reader.cell.text(node))
        if value is None:
            continue
        if _is_for_later(reader, node):
            continue
        if setting.datasets or (value == setting.value and reader.role(node) == "coupled" and _shapes(reader, node)):
            yield node


_NUMBERS = frozenset("int float len round abs max min sum ceil floor ceil_div cardinality numpy item".split())
"""Calls that give numbers: a loss divided by the batch size is computed of the batches of this cell."""


def _is_for_later(reader: Reader, node: ast.expr) -> bool:
    """Tell whether a number only sets names that the cell does not read: later cells do, with the old batches."""
    statement = reader.scopes.statement(node)
    if not isinstance(statement, ast.Assign) or statement not in reader.cell.tree.body:
        return False  # what a loop or function computes belongs to it
    plain = all(isinstance(target, ast.Name) for target in statement.targets) and all(
        called_name(n) in _NUMBERS for n in ast.walk(statement.value) if isinstance(n, ast.Call)
    )
    names = {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return plain and not any(reader.scopes.loads.get((reader.cell.tree, name)) for name in names)


def _is_called(scopes: Scopes, node: ast.expr) -> bool:
    """Tell whether a name is that of a function: ``movies.batch(128)``."""
    above = scopes.parents.get(node)
    return isinstance(above, ast.Call) and above.func is node


def _own_sizes(reader: Reader) -> Iterator[ast.Attribute]:
    """Yield where a class of this cell that is no generator of data makes something of the size of its batch."""
    for node in reader.nodes:
        if isinstance(node, ast.Attribute) and _is_own_size(reader.scopes, node):
            yield node


def _is_own_size(scopes: Scopes, node: ast.Attribute) -> bool:
    own = isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name) and node.value.id == "self"
    if not own or not is_batch_name(node.attr) or role(scopes, node) != "coupled" or not _makes(scopes, node):
        return False
    cls = next((above for above in scopes.up(node) if isinstance(above, ast.ClassDef)), None)
    return cls is not None and not any(getattr(n, "name", "") in ("__getitem__", "__iter__") for n in cls.body)


def _makes(scopes: Scopes, node: ast.expr) -> bool:
    """Tell whether a number is a shape, or a length in one, of what a call makes."""
    above = list(itertools.islice(scopes.up(node), 3))
    in_call = next((n for n in above if isinstance(n, ast.Call)), None)
    return in_call is not None and called_name(in_call) in SHAPES


def _shapes(reader: Reader, node: ast.expr) -> bool:
    """Tell whether ``node`` stands in a function or method and gives a shape or a length there, not steps."""
    if not any(isinstance(above, _FUNCTIONS) for above in reader.scopes.up(node)):
        return False
    statement = reader.scopes.statement(node)
    divides = any(isinstance(n, ast.BinOp) and n.right is node for n in ast.walk(statement))
    return not divides and not isinstance(statement, (ast.For, ast.While, ast.If))


def _made_with_it(reader: Reader, setting: Setting, call: ast.Call | None) -> Unknown | None:
    """Refuse where a part of the model was made with this batch size, computes with that, and would not follow."""
    if not reader.notebook.matches(_DEFINES, "def"):
        return None
    behind_it = behind(reader, model_names(reader, call), but={d.name for d in reader.facts.datasets})
    made = {name: p for p in behind_it for name in [getattr(p.statement, "name", "")] if name}
    called = {name for name, p in made.items() if isinstance(p.statement, _FUNCTIONS)}
    for piece in behind_it if made else ():
        here = piece.cell is reader.cell
        if not here and follows_at_run_time(reader, piece.statement):
            continue
        for given in piece.cell.once(given_in).get(piece.statement, ()):
            follows = here and (given.name in setting.names or _is_set_there(reader, setting, given.expr))
            if follows or not _is_this_size(reader, setting, given):
                continue
            maker = computes_with(given, made)
            if maker and not only_trains(piece, given, made.get(maker)):
                written = given.name or str(given.number)
                where = reader.cell.told(given.expr) if here else "an earlier cell"
                does = "calls" if maker in called and called_name(given.call) == maker else "makes"
                return Unknown(f"{where} {does} `{maker}` for batches of {setting.value} (`{written}`): {_THERE}")
    return None


def _values_made_with_it(reader: Reader, setting: Setting, call: ast.Call | None) -> Unknown | None:
    """Refuse where code computes a batch with a value that an earlier cell made for batches of this size."""
    for name, given in made_for_the_batch(reader, call):
        if _is_this_size(reader, setting, given):
            written = given.name or str(given.number)
            return Unknown(f"an earlier cell makes `{name}` for batches of {setting.value} (`{written}`): {_THERE}")
    return None


def _is_set_there(reader: Reader, setting: Setting, expr: ast.expr) -> bool:
    return any(slot.start <= reader.cell.start(expr) < max(slot.end, slot.start + 1) for slot in setting.slots)


def _is_this_size(reader: Reader, setting: Setting, given: Given) -> bool:
    value = given.number if given.number is not None else number_held(reader, given.name)
    return value == setting.value or (value is None and given.name in setting.names)


def _of_earlier_cells(reader: Reader, setting: Setting, call: ast.Call | None) -> Setting | Unknown:
    facts = reader.facts
    if not reader.notebook.before.has("def ", "lambda"):
        return setting
    data = {d.name for d in facts.datasets} | {v.name for v in facts.values}
    for piece in behind(reader, failing_names(reader, call), but=data):
        if piece.cell is reader.cell:
            continue
        own = piece.cell.once(_first_own_sizes).get(piece.statement)
        if own is not None:
            return _elsewhere(f"self.{own.attr}", setting.value)
        length = next(lengths_of(piece.cell.scopes, piece.statement, _by_use(reader, setting)), None)
        if length is not None and number_held(reader, length.id) in (None, setting.value):
            return _elsewhere(length.id, setting.value)
        for node, name, is_default in piece.cell.once(_batch_names).get(piece.statement, ()):
            if isinstance(node, ast.Attribute) and reader.notebook.origin(node):
                continue  # a library's: ``keras.losses.Reduction.SUM_OVER_BATCH_SIZE``
            value = number_held(reader, name)
            if name in setting.names or (value is not None and value != setting.value):
                continue
            if not setting.datasets and not _is_shape(piece, node):
                continue
            unread = not is_default and name not in facts.read_elsewhere and isinstance(node, ast.Name)
            if unread and facts.tensorflow is not None and not facts.functions:
                continue
            if is_default or value is None or not isinstance(node, ast.Name):
                return _elsewhere(name, setting.value)
            if not follows_at_run_time(reader, piece.statement):
                return _elsewhere(name, setting.value)
            setting = _set_as_well(reader, setting, name, call)
    return setting


def counted_on_behind(reader: Reader, setting: Setting, roots: Iterable[str]) -> str:
    """Name what the edit sets by which code behind names makes something of its batch's size; empty: nothing does."""
    data = {d.name for d in reader.facts.datasets} | {v.name for v in reader.facts.values}
    for piece in behind(reader, roots, but=data):
        for node, name, _ in piece.cell.once(_batch_names).get(piece.statement, ()):
            if name in setting.names and role(piece.cell.scopes, node) == "coupled" and _is_shape(piece, node):
                return name
    return ""


def number_held(reader: Reader, name: str) -> int | None:
    """Return the number that a name, or an entry of a class, surely holds; None where that is not known."""
    known = reader.scalar(name)
    root, _, key = name.partition(".")
    if known is not None or "." in key:
        return known
    for cell in reversed(reader.notebook.earlier_with(root)):
        for piece in reversed(cell.once(pieces)):
            if root not in piece.defines:
                continue
            statement = piece.statement
            if isinstance(statement, ast.ClassDef) and key:
                fields = [
                    n.value for n in statement.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == key
                ]
                return _constant(fields[0]) if len(fields) == 1 else None
            plain = isinstance(statement, ast.Assign) and not key and ast.unparse(statement.targets[0]) == root
            return _constant(statement.value) if plain and isinstance(statement, ast.Assign) else None
    return None


def _constant(expr: ast.expr) -> int | None:
    return expr.value if isinstance(expr, ast.Constant) and type(expr.value) is int else None


def _first_own_sizes(cell: PythonCell) -> dict[ast.stmt, ast.Attribute]:
    """Give the statements of a cell that define a class which makes something of its batch's size, and where first."""
    found: dict[ast.stmt, ast.Attribute] = {}
    if "self" in cell.words:
        for statement in cell.tree.body:
            sizes = (n for n in ast.walk(statement) if isinstance(n, ast.Attribute) and _is_own_size(cell.scopes, n))
            found.update((statement, size) for size in itertools.islice(sizes, 1))
    return found


def _batch_names(cell: PythonCell) -> dict[ast.stmt, list[tuple[ast.expr, str, bool]]]:
    """List for each statement the batch sizes of the notebook that its functions read: node, name, whether a default.

    In a body the name is read when the function runs; a default was read when the function was defined.
    """
    found: dict[ast.stmt, list[tuple[ast.expr, str, bool]]] = {}
    if any(map(is_batch_name, cell.words)):
        for statement in cell.tree.body:
            found[statement] = list(_batch_names_in(cell.scopes, statement))
    return found


def _batch_names_in(scopes: Scopes, statement: ast.stmt) -> Iterator[tuple[ast.expr, str, bool]]:
    for node in ast.walk(statement):
        if not isinstance(node, (ast.Name, ast.Attribute)) or not isinstance(node.ctx, ast.Load):
            continue
        if not is_batch_name(node.id if isinstance(node, ast.Name) else node.attr) or _is_called(scopes, node):
            continue
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or not isinstance(scopes.home(root), ast.Module):
            continue
        function = next((above for above in scopes.up(node) if isinstance(above, _FUNCTIONS)), None)
        if function is not None and root.id != "self":
            yield node, ast.unparse(node), isinstance(scopes.scope_of(node), ast.Module)


def _is_shape(piece: Piece, node: ast.expr) -> bool:
    above = list(piece.cell.scopes.up(node))
    inside = any(isinstance(n, (ast.Tuple, ast.List, ast.Call)) for n in above[:3])
    return inside and not any(isinstance(n, ast.keyword) and n.arg in _STEPS for n in above[:3])


def _elsewhere(name: str, value: int) -> Unknown:
    return Unknown(f"a function of an earlier cell uses `{name}`, which would stay {value}: {_THERE}")


def _set_as_well(reader: Reader, setting: Setting, name: str, call: ast.Call | None) -> Setting:
    tops: Iterable[ast.stmt] = [s for s in reader.cell.tree.body if reader.covers(s)]
    first = min(tops, key=lambda s: s.lineno, default=reader.cell.tree.body[0])
    if call is not None and not reader.covers(first):
        first = reader.scopes.top_statement(call)
    at = line_start(reader.cell, first)
    slot = Slot(setting.value, at, at, f"{name} = ", reader.cell.newline)
    return replace(setting, slots=(*setting.slots, slot), names=setting.names | {name})
