"""Arrays that a cell gives away whole: which expressions surely are known NumPy arrays, and how much they hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tf_mem_magic.core.facts import NamedValue
from tf_mem_magic.core.proposals import Preserves
from tf_mem_magic.notebook.earlier import earlier_cells
from tf_mem_magic.notebook.follow.calls import argument_exprs
from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_argument

MAPPED_NOTE = (
    "The file is read as batches need it. What was read still counts as memory of the process, but the system can "
    "drop it; the file must not change meanwhile."
)
STAYS_NOTE = "The arrays themselves stay in memory."
PACKAGE_NOTE = "The changed cell needs tf_mem_magic."

_NUMBERS = re.compile(r"u?int\d+|float\d+|bool|complex\d+")
_LOADS = ("np.load", "numpy.load")
_MAPS = ("np.memmap", "numpy.memmap", "np.lib.format.open_memmap", "numpy.lib.format.open_memmap")
_ARRAY_METHODS = frozenset({"astype", "reshape", "copy", "transpose", "squeeze"})
_DEEPEST = 5


@dataclass(frozen=True, slots=True)
class Change:
    """Edits of the cell with what they do: a title, what they keep, the reason for them and caveats."""

    title: str
    edits: tuple[CellEdit, ...]
    preserves: Preserves
    why: str
    caveats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A known array: the name that holds it, and its bytes where they count as memory (None: not known)."""

    name: str
    bytes: int | None


def find_arrays(reader: Reader, node: ast.expr, depth: int = 0, derived: bool = False) -> list[Held] | None:
    """Find the known NumPy arrays that ``node`` is made of: names, slices of them, lists, tuples and dicts of these.

    None where any part is something else. With ``derived`` also what is computed from one array and surely is one:
    ``x[chosen]``, ``x.reshape(...)``, ``x / 255``.
    """
    if depth > _DEEPEST:
        return None
    if isinstance(node, (ast.List, ast.Tuple)):
        return _all(reader, node.elts, depth, derived)
    if isinstance(node, ast.Dict):
        named = all(isinstance(key, ast.Constant) for key in node.keys)
        return _all(reader, node.values, depth, derived) if named else None
    inner = _origin(node, derived)
    if not isinstance(inner, ast.Name):
        return None
    if not isinstance(reader.scopes.home(inner), ast.Module):
        return _of_parameter(reader, inner, depth, whole=inner is node)
    value = reader.facts.value(inner.id)
    if value is not None:
        known = _is_array(value) or (inner is node and _holds_arrays(value))
        return [Held(inner.id, value.bytes or value.extent)] if known else None
    return [Held(inner.id, None)] if _is_loaded(reader, inner) else None


def _origin(node: ast.expr, derived: bool) -> ast.expr:
    """Give what an expression is a part of or computed from, where it surely is an array if that is one."""
    while True:
        if isinstance(node, ast.Subscript) and (derived or _is_slice(node.slice)):
            node = node.value
        elif derived and isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
            node = node.left
        elif derived and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr not in _ARRAY_METHODS:
                return node
            node = node.func.value
        else:
            return node


def _is_slice(index: ast.expr) -> bool:
    """Whether an index cuts along the samples without copying them."""
    if isinstance(index, ast.Tuple):
        rest = all(isinstance(one, (ast.Slice, ast.Constant)) for one in index.elts)
        return bool(index.elts) and isinstance(index.elts[0], ast.Slice) and rest
    return isinstance(index, ast.Slice)


def known_bytes(held: Sequence[Held]) -> int | None:
    """Sum the bytes of distinct arrays; None where those of one are not known."""
    sizes = {one.name: one.bytes for one in held}
    return None if None in sizes.values() else sum(size or 0 for size in sizes.values())


def map_files(reader: Reader, held: Sequence[Held]) -> list[CellEdit]:
    """Map the ``.npy`` files that the cell loads whole into these names, where that is sure."""
    loads = [_loading(reader, one.name) for one in held]
    plain = [call for call in loads if call is not None and len(call.args) == 1 and not call.keywords]
    return [insert_argument(reader.cell, call, 'mmap_mode="c"') for call in plain]


def _all(reader: Reader, nodes: Sequence[ast.expr], depth: int, derived: bool) -> list[Held] | None:
    found = [find_arrays(reader, node, depth + 1, derived) for node in nodes]
    whole = [one for one in found if one is not None]
    return [held for one in whole for held in one] if found and len(whole) == len(found) else None


def _of_parameter(reader: Reader, name: ast.Name, depth: int, whole: bool) -> list[Held] | None:
    """Follow a parameter to what all calls of its function pass; a part of it must be a part of one array."""
    found = reader.bindings(name)
    if len(found) != 1 or found[0].kind != "param":
        return None
    passed = argument_exprs(reader, found[0])
    if isinstance(passed, Unknown) or (not whole and not all(isinstance(_origin(p, True), ast.Name) for p in passed)):
        return None
    return _all(reader, passed, depth, derived=True)


def _is_array(value: NamedValue) -> bool:
    return value.kind == "numpy.ndarray" and bool(value.shape) and _are_numbers(value)


def _holds_arrays(value: NamedValue) -> bool:
    """Whether a container holds arrays of numbers and nothing else: Keras makes tensors of texts, a batch does not."""
    return value.kind in ("list of numpy.ndarray", "tuple of numpy.ndarray", "dict of numpy.ndarray") and _are_numbers(
        value
    )


def _are_numbers(value: NamedValue) -> bool:
    return value.dtype is None or all(_NUMBERS.fullmatch(dtype) for dtype in value.dtype.split(", "))


def _is_loaded(reader: Reader, name: ast.Name) -> bool:
    """Whether a name that no fact knows is an array all the same: a mapped file, or one that was to be loaded."""
    if reader.bindings(name):
        return _loading(reader, name.id) is not None
    for cell in reversed(earlier_cells(reader.facts.earlier_cells).binding(name.id)):
        stores = [n for n in cell.nodes if _stores(n, name.id)]
        if not stores:
            continue
        values = [s.value for s in cell.tree.body if isinstance(s, ast.Assign) and s.targets == stores]
        return len(values) == 1 and isinstance(values[0], ast.Call) and _maps(values[0])
    return False


def _maps(call: ast.Call) -> bool:
    mapped = any(k.arg == "mmap_mode" and isinstance(k.value, ast.Constant) and k.value.value for k in call.keywords)
    return ast.unparse(call.func) in _MAPS or (ast.unparse(call.func) in _LOADS and mapped)


def _loading(reader: Reader, name: str) -> ast.Call | None:
    """Give the call by which the cell surely loads one ``.npy`` file into ``name`` and nothing else."""
    stores = [n for n in ast.walk(reader.cell.tree) if _stores(n, name)]
    for statement in reader.cell.tree.body:
        if not isinstance(statement, ast.Assign) or len(stores) != 1 or statement.targets != stores:
            continue
        call = statement.value
        if isinstance(call, ast.Call) and ast.unparse(call.func) in _LOADS and call.args:
            return call if _ending(reader, call.args[0]).endswith(".npy") else None
    return None


def _ending(reader: Reader, path: ast.expr) -> str:
    """Give how the text of a path ends, as far as the cell says that."""
    if isinstance(path, ast.Constant):
        return str(path.value)
    if isinstance(path, ast.JoinedStr) and path.values:
        return _ending(reader, path.values[-1])
    if isinstance(path, ast.BinOp) and isinstance(path.op, (ast.Add, ast.Div)):
        return _ending(reader, path.right)
    if isinstance(path, ast.Call) and path.args and not path.keywords:
        known = ast.unparse(path.func) in ("os.path.join", "Path", "pathlib.Path", "str")
        return _ending(reader, path.args[-1]) if known else ""
    if isinstance(path, ast.Name) and len(reader.bindings(path)) <= 1:
        known_text = reader.facts.scalar(path.id)
        return known_text if isinstance(known_text, str) else ""
    return ""


def _stores(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
