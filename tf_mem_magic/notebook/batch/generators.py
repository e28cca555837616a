"""Generators and helpers of earlier cells: whether an attribute, or an argument, is enough to make batches smaller."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.behind import made_by, pieces
from tf_mem_magic.notebook.follow.made_with import parameter_of
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.follow.resolve import default_argument
from tf_mem_magic.notebook.follow.shares import resolve_the_whole, whole_of
from tf_mem_magic.notebook.scopes import Scopes
from tf_mem_magic.notebook.text.cell import PythonCell, walk
from tf_mem_magic.notebook.uses import called_name, counts_samples, is_batch_name

_KERAS = frozenset({"flow", "flow_from_directory", "flow_from_dataframe"})
"""Makers of Keras's own iterators, which read their attribute ``batch_size`` for each batch and for their length."""

_IMAGES = "ImageDataGenerator"

_STEP = re.compile(r"(?i)train|step|fit|learn|run|loss|predict|evaluate|plot|show")
_MAKES = re.compile(r"(?i)batch|sample|generat|data|load")
_DEEPEST = 4


def is_step_name(name: str) -> bool:
    """Tell whether a function is named like a step of training rather than like what gives data."""
    return bool(_STEP.search(name))


def batch_parameter(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """Name the one parameter that says how many samples a batch has; None where that is not plain."""
    args = function.args
    names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    plain = [name for name in names if is_batch_name(name) and name.lower() not in ("batch",)]
    if len(plain) == 1:
        return plain[0]
    counts = [name for name in names if counts_samples(name)] if _MAKES.search(function.name) else []
    return counts[0] if len(counts) == 1 and not plain else None


def parameter_with_batch(
    reader: Reader, call: ast.Call, function: ast.FunctionDef | ast.AsyncFunctionDef
) -> str | None:
    """Name the parameter that says how many samples a batch has; else the one that a call hands a batch size to.

    A share of one counts: ``real_samples(data, half_batch)``, ``draw(n_batch // 2)``.
    """
    own = batch_parameter(function)
    if own is not None:
        return own
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    given = [*zip(names, call.args), *((k.arg, k.value) for k in call.keywords if k.arg)]
    found = {name for name, value in given if whole_of(reader, value) is not None}
    return found.pop() if len(found) == 1 else None


def reads_its_batch_anew(reader: Reader, name: str) -> bool:
    """Tell whether a generator of an earlier cell gives smaller batches, and more of them, once its attribute is set.

    So do Keras's own iterators, and classes of the notebook that only keep ``batch_size`` when they are made and read
    it for each batch and for their length.
    """
    found = assigned_once(reader, name)
    if found is None:
        return False
    made = found[1].value
    if not isinstance(made, ast.Call):
        return False
    if isinstance(made.func, ast.Attribute):
        return called_name(made) in _KERAS and is_of_keras(reader, made)
    function = reader.notebook.function(called_name(made)) if isinstance(made.func, ast.Name) else None
    node = None if function is None else function.node
    if isinstance(node, ast.FunctionDef):
        return _gives_kerass_own(node)
    return isinstance(node, ast.ClassDef) and _only_keeps_it(node)


def _gives_kerass_own(function: ast.FunctionDef) -> bool:
    """Tell whether a function gives back an iterator that Keras reads from files, as it was made."""
    given = [n.value for n in walk(function) if isinstance(n, ast.Return)]
    if len(given) != 1 or function.decorator_list:
        return False
    made = given[0]
    if isinstance(made, ast.Name):
        own = [n for n in walk(function) if isinstance(n, ast.Name) and n.id == made.id]
        set_to = [n.value for n in walk(function) if isinstance(n, ast.Assign) and all(t in own for t in n.targets)]
        made = set_to[0] if len(own) == 2 and set_to else None  # it is set, and given back
    return isinstance(made, ast.Call) and called_name(made) in _KERAS - {"flow"}


def is_of_keras(reader: Reader, made: ast.Call) -> bool:
    """Tell whether ``x.flow(…)`` is Keras's own: makers of graphs, or of text, have such a method and batch otherwise.

    Where the notebook has ``x``, but not the call that made it, it is Keras's if Keras's maker is named at all.
    """
    if called_name(made) != "flow" or not isinstance(made.func, ast.Attribute):
        return True
    owner = made.func.value
    makers: list[ast.expr | None] = [owner]
    if isinstance(owner, ast.Name):
        earlier = (getattr(piece.statement, "value", None) for piece in made_by(reader, owner.id))
        makers = [binding.value for binding in reader.bindings(owner)] or list(earlier)
    known = [maker for maker in makers if isinstance(maker, ast.Call)]
    if known:
        return all(_makes_images(reader, call) for call in known)
    return not makers or reader.notebook.mentions(_IMAGES)


def _makes_images(reader: Reader, call: ast.Call) -> bool:
    earlier = reader.notebook.function(called_name(call)) if isinstance(call.func, ast.Name) else None
    known = calls.defined(reader, call.func) or (None if earlier is None else earlier.node)
    return called_name(call) == _IMAGES or (known is not None and _IMAGES in ast.unparse(known))


def assigned_once(reader: Reader, name: str) -> tuple[PythonCell, ast.Assign] | None:
    """Give the statement ``name = …`` of an earlier cell that made what a name holds, and its cell.

    None where there is no such statement, or another one of that cell or a later one sets or changes it too.
    """
    made = [piece for piece in made_by(reader, name) if piece.cell is not reader.cell]
    statement = made[0].statement if len(made) == 1 else None
    if not isinstance(statement, ast.Assign) or sum(name in p.defines for p in made[0].cell.once(pieces)) > 1:
        return None
    plain = len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
    return (made[0].cell, statement) if plain else None


def _only_keeps_it(cls: ast.ClassDef) -> bool:
    methods = {n.name: n for n in cls.body if isinstance(n, ast.FunctionDef)}
    made, length, item = (methods.get(name) for name in ("__init__", "__len__", "__getitem__"))
    if made is None or length is None or item is None:
        return False
    stores = [n for n in ast.walk(cls) if _is_own(n) and not isinstance(n.ctx, ast.Load)]  # type: ignore[attr-defined]
    reads = {name for name, one in methods.items() if any(_is_own(n) and _loads(n) for n in ast.walk(one))}
    parameters = [n for n in ast.walk(made) if isinstance(n, ast.Name) and n.id == "batch_size" and _loads(n)]
    kept = len(stores) == 1 and len(parameters) == 1 and stores[0] in set(ast.walk(made))
    # What was computed once from the batch size, when it was made or when an epoch ended, would stay.
    return kept and {"__len__", "__getitem__"} <= reads and not reads & {"__init__", "on_epoch_end"}


def _is_own(node: ast.AST) -> bool:
    owner = node.value if isinstance(node, ast.Attribute) and node.attr == "batch_size" else None
    return isinstance(owner, ast.Name) and owner.id == "self"


def _loads(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Load)


def earlier_helper(reader: Reader, call: ast.Call) -> Setting | Unknown | None:
    """Read the batch size that a function of an earlier cell is given, or takes by its default."""
    if not isinstance(call.func, ast.Name) or reader.bindings(call.func):
        return None
    name = call.func.id
    function = reader.notebook.function(name)
    node = None if function is None else function.node
    is_class = isinstance(node, ast.ClassDef)
    if isinstance(node, ast.ClassDef):
        node = calls.constructor(node)
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return None
    parameter = parameter_with_batch(reader, call, node)
    if parameter is None:
        return None
    given = calls.bind(call, node, parameter, skip=is_class)
    default = calls.default_of(node, parameter)
    if given is None:
        return Unknown(f"`{name}` gets its batch size in a way that cannot be followed")
    if given is not default:
        return resolve_the_whole(reader, given)
    if not isinstance(default, ast.Constant) or type(default.value) is not int:
        return Unknown(f"`{name}` takes a batch size that an earlier cell sets")
    return default_argument(reader, call, default.value, parameter)


def unused_by(reader: Reader, call: ast.Call) -> Unknown | None:
    """Refuse where a function or class of the notebook gets the batch size of ``call`` and does not use it.

    It may be the one that is called, or one that this hands the size on to: its batches are of a size of its own, and
    would stay so beside those that follow.
    """
    node, _ = _defined(reader, call)
    parameter = None if node is None else parameter_with_batch(reader, call, node)
    name = "" if parameter is None else _unused(reader, call, parameter, 0)
    return (
        Unknown(f"`{name}` gets the batch size and does not use it: its batches would stay as they are")
        if name
        else None
    )


def _unused(reader: Reader, call: ast.Call, parameter: str, depth: int) -> str:
    node, scopes = _defined(reader, call)
    if node is None or scopes is None or depth > _DEEPEST:
        return ""
    args = node.args
    if parameter not in [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]:
        return ""
    loads = scopes.loads.get((node, parameter), [])
    if not loads and not any(isinstance(n, ast.Name) and n.id in ("locals", "vars") for n in ast.walk(node)):
        return called_name(call)
    for load in (*loads, *(kept for one in loads for kept in _kept_as(scopes, one))):
        above = scopes.parents[load]
        above = scopes.parents[above] if isinstance(above, ast.keyword) else above
        if isinstance(above, ast.Call):
            function = reader.notebook.function(called_name(above)) if isinstance(above.func, ast.Name) else None
            given = None if function is None else parameter_of(function.node, above, load)
            found = "" if given is None else _unused(reader, above, given, depth + 1)
            if found:
                return found
    return ""


def _defined(reader: Reader, call: ast.Call) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef | None, Scopes | None]:
    """Give the function, or the constructor of the class, that a call by name runs, and the scopes of its cell."""
    function = reader.notebook.function(called_name(call)) if isinstance(call.func, ast.Name) else None
    if function is None:
        return None, None
    node = calls.constructor(function.node) if isinstance(function.node, ast.ClassDef) else function.node
    return node, function.cell.scopes


def _kept_as(scopes: Scopes, load: ast.expr) -> list[ast.expr]:
    """List where a class reads the attribute of its own in which it keeps what ``load`` reads."""
    statement = scopes.parents[load]
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    cls = next((n for n in scopes.up(load) if isinstance(n, ast.ClassDef)), None)
    if not isinstance(target, ast.Attribute) or cls is None:
        return []
    written = ast.unparse(target)
    return [n for n in ast.walk(cls) if isinstance(n, ast.Attribute) and _loads(n) and ast.unparse(n) == written]


def draws_a_batch(reader: Reader, call: ast.Call) -> bool:
    """Tell whether a call is of a function of the notebook that gives a batch of so many samples."""
    if not isinstance(call.func, ast.Name):
        return False
    function = reader.notebook.function(call.func.id)
    node = None if function is None else function.node
    if (
        not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or parameter_with_batch(reader, call, node) is None
    ):
        return False
    return not is_step_name(node.name) and any(isinstance(n, ast.Return) and n.value for n in ast.walk(node))
