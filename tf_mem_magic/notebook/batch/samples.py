"""How many samples data surely have, going by how the cell writes them and by what is known of names."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.notebook.batch.datasets import trace
from tf_mem_magic.notebook.follow import calls
from tf_mem_magic.notebook.follow.behind import made_by
from tf_mem_magic.notebook.follow.evaluate import evaluate
from tf_mem_magic.notebook.follow.reader import Reader, Setting, Unknown
from tf_mem_magic.notebook.scopes import Binding
from tf_mem_magic.notebook.uses import called_name

_SAME = frozenset("astype numpy copy to_numpy cast preprocess_input float identity normalize normalise".split())
"""Calls that change each sample and keep their number; as a method they are about their owner."""

_TABLE_ROWS = {"head": 5, "tail": 5, "sample": 1}
"""Methods of tables that give so many rows where no number is given (pandas)."""

_ENCODES = re.compile(
    r"(?i)vectori[sz]|tokeni[sz]|encod|embed|preprocess|texts_to|pad_sequences|lookup|rescal|normali[sz]|layer$|augment"
)
"""Names of what makes one row of each text of a list, or of each sample."""

_OF_LIST = frozenset({"array", "asarray", "constant", "convert_to_tensor", "stack", "tensor"})
_JOINED = frozenset({"vstack", "row_stack", "concatenate", "concat"})
_FILLED = {"zeros": 0, "ones": 0, "empty": 0, "full": 0, "fill": 0, "random": 0, "random_sample": 0}
"""Makers of arrays, with the position of the shape."""

_DRAWN = {"normal": (0, 2), "uniform": (0, 2), "randint": (2, 2), "truncated_normal": (0, 2), "integers": (2, 2)}
"""Makers of random arrays: where the shape stands in TensorFlow and Keras, and where in NumPy."""

_MOST_BINDINGS = 100
"""A name that is bound more often is not followed."""

_NUMPY = ("np.random", "numpy.random", "rng", "random_state")


def count_samples(reader: Reader, expr: ast.expr) -> int | None:
    """Count the samples that ``expr`` surely has along its first axis; None where that is not known."""
    return reader.once("samples", expr, None, lambda: _count(reader, expr))


def _count(reader: Reader, expr: ast.expr) -> int | None:
    if isinstance(expr, ast.Name):
        return _of_name(reader, expr)
    if isinstance(expr, ast.Subscript):
        return _of_subscript(reader, expr)
    if isinstance(expr, ast.Call):
        return _of_call(reader, expr)
    if isinstance(expr, ast.BinOp):
        return _of_operation(reader, expr)
    if isinstance(expr, (ast.List, ast.Tuple)) and expr.elts:
        if all(isinstance(one, ast.Constant) for one in expr.elts):
            return len(expr.elts)  # numbers or texts, not inputs
        return count_samples(reader, expr.elts[0])
    if isinstance(expr, ast.Dict) and expr.values:
        return count_samples(reader, expr.values[0])
    if isinstance(expr, ast.Attribute) and expr.attr in ("values", "iloc", "loc"):
        return count_samples(reader, expr.value)
    return None


_OF_ALL = re.compile(r"(?i)mean|avg|std|var|scale|max|min|norm|eps|rate|factor|shift|sigma")
"""Names of what is the same for all samples."""


def _of_operation(reader: Reader, expr: ast.BinOp) -> int | None:
    """Count the samples of an operation on two arrays: one sample with many others makes many."""
    sides = (expr.left, expr.right)
    counts = [count_samples(reader, side) for side in sides]
    known = [count for count in counts if count is not None]
    if len(known) == 2 or max(known, default=1) > 1:
        return max(known)
    if not known:
        return None
    other = sides[counts.index(None)]
    names = [n.id for n in ast.walk(other) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    plain = evaluate(reader, other) is not None or (bool(names) and all(map(_OF_ALL.search, names)))
    return 1 if plain else None


def _of_name(reader: Reader, name: ast.Name) -> int | None:
    found = [b for b in reader.bindings(name) if not isinstance(b.node, ast.AugAssign)]  # ``x /= 255`` keeps them
    known = next((v.shape for v in reader.facts.values if v.name == name.id and v.shape), None)
    if not found:
        return known[0] if known else None
    chosen = reader.scopes.reaching(name, found) if len(found) < _MOST_BINDINGS else None
    loops = [b for b in found if b.kind == "loop"]
    if chosen is None and len(loops) == len(found) == 1:
        return _of_element(reader, loops[0])
    if chosen is not None and chosen.kind == "loop":
        return _of_element(reader, chosen)
    if chosen is not None and chosen.kind == "param":
        given = calls.argument_exprs(reader, chosen)
        counts = set() if isinstance(given, Unknown) else {count_samples(reader, one) for one in given}
        return counts.pop() if len(counts) == 1 else None
    if chosen is not None and chosen.value is not None:
        return count_samples(reader, chosen.value)
    if chosen is not None and isinstance(chosen.node, ast.Assign) and called_name_of(chosen.node.value) == "next":
        return _batch_of(reader, chosen.node.value)
    if chosen is None and len(found) > 1:
        return _of_each(reader, name, found)
    only = len(found) == 1 and isinstance(found[0].scope, ast.Module)
    return known[0] if known and only else None


def _of_each(reader: Reader, name: ast.Name, found: list[Binding]) -> int | None:
    """Count the samples of a name that a loop makes longer along another axis: what it begins with."""
    if len(found) > _MOST_BINDINGS:
        return None
    counts: set[int | None] = set()
    for binding in found:
        if binding.kind != "assign" or binding.value is None:
            return None
        if not _makes_longer(reader, binding.value, name.id):
            counts.add(count_samples(reader, binding.value))
    return counts.pop() if len(counts) == 1 else None


def _makes_longer(reader: Reader, value: ast.expr, name: str) -> bool:
    """Tell whether a value is ``concatenate([X, y], axis=1)``: the samples of ``X``, each longer."""
    if called_name_of(value) not in ("concatenate", "concat", "append", "hstack") or not isinstance(value, ast.Call):
        return False
    axis = next((k.value for k in value.keywords if k.arg == "axis"), value.args[-1] if len(value.args) > 1 else None)
    number = None if axis is None else evaluate(reader, axis)
    same = any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(value))
    return same and number is not None and number != 0


def called_name_of(expr: ast.expr) -> str:
    """Return the last part of what is called; empty where ``expr`` is no call."""
    return called_name(expr) if isinstance(expr, ast.Call) else ""


def _of_element(reader: Reader, binding: Binding) -> int | None:
    """Count the samples of what a loop over a dataset takes from it: a batch."""
    loop = binding.node
    if not isinstance(loop, (ast.For, ast.AsyncFor)):
        return None
    target, source = loop.target, loop.iter
    if called_name_of(source) in ("enumerate", "tqdm") and isinstance(source, ast.Call) and source.args:
        counter = target.elts[0] if isinstance(target, ast.Tuple) and called_name(source) == "enumerate" else None
        if isinstance(counter, ast.Name) and counter.id == binding.name:
            return None
        source = source.args[0]
    return _batch_of(reader, source)


def _batch_of(reader: Reader, data: ast.expr) -> int | None:
    if called_name_of(data) in ("range", "trange", "zip"):
        return None
    traced = trace(reader, data)
    return traced.value if isinstance(traced, Setting) and not traced.per_replica else None


def _of_subscript(reader: Reader, expr: ast.Subscript) -> int | None:
    index = expr.slice
    if isinstance(index, ast.Tuple) and index.elts:
        index = index.elts[0]
    if isinstance(index, ast.Constant) and index.value is None:
        return 1
    if isinstance(index, (ast.Attribute, ast.Name)) and reader.written(index).rpartition(".")[2] == "newaxis":
        return 1
    whole = count_samples(reader, expr.value)
    if isinstance(index, ast.Constant) and isinstance(index.value, str):
        return whole  # a column of a table, or one of the arrays of a dict
    if isinstance(index, ast.List):
        numbers = [one.value if isinstance(one, ast.Constant) else None for one in index.elts]
        if any(isinstance(one, str) for one in numbers):
            return whole
        return len(numbers) if numbers and all(type(one) is int for one in numbers) else None
    if isinstance(index, ast.Slice) and _is_of_inputs(reader, expr.value):
        return None
    if isinstance(index, ast.Slice):
        length = _length(reader, index, whole)
        known = [n for n in (length, whole) if n is not None]
        return min(known, default=None) if length is not None or _keeps(index) else None
    return count_samples(reader, index) if isinstance(index, ast.Name) else None


def _is_of_inputs(reader: Reader, expr: ast.expr) -> bool:
    """Tell whether a list holds one array for each input of a model, so that a slice of it leaves out inputs."""
    if not isinstance(expr, ast.Name):
        return False
    known = next((v for v in reader.facts.values if v.name == expr.id), None)
    if known is not None and not reader.bindings(expr) and (known.shape or known.kind in ("list", "tuple")):
        return not known.shape
    chosen = reader.reaching(expr)
    made = next((p.statement for p in made_by(reader, expr.id) if expr.id in p.binds), None)
    value = chosen.value if chosen is not None else made.value if isinstance(made, ast.Assign) else None
    if isinstance(value, (ast.List, ast.Tuple)):
        return any(not isinstance(one, ast.Constant) for one in value.elts)
    return isinstance(value, ast.ListComp)


def _keeps(index: ast.Slice) -> bool:
    return index.lower is None and index.upper is None and index.step is None


def _length(reader: Reader, index: ast.Slice, whole: int | None) -> int | None:
    """Give how long a slice is at most: ``[:n]``, ``[a:b]``, ``[i:i + n]``."""
    if index.step is not None or index.upper is None:
        return whole if _keeps(index) else None
    upper = index.upper
    if index.lower is None:
        end = evaluate(reader, upper)
        return int(end) if end is not None and end >= 0 else None
    if isinstance(upper, ast.BinOp) and isinstance(upper.op, ast.Add):
        for same, more in ((upper.left, upper.right), (upper.right, upper.left)):
            if reader.written(same) == reader.written(index.lower):
                length = evaluate(reader, more)
                return int(length) if length is not None and length >= 0 else None
    start, end = evaluate(reader, index.lower), evaluate(reader, upper)
    return int(end - start) if start is not None and end is not None and 0 <= start <= end else None


def _of_call(reader: Reader, call: ast.Call) -> int | None:
    name = called_name(call)
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    own = _of_own_function(reader, call)
    if own is not None:
        return own
    if name == "expand_dims" and call.args:
        axis = next((k.value for k in call.keywords if k.arg == "axis"), call.args[1] if len(call.args) > 1 else None)
        return 1 if axis is not None and evaluate(reader, axis) == 0 else None
    if name in _TABLE_ROWS and owner is not None:
        given = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "n"), None)
        if given is None:
            return None if call.keywords else _TABLE_ROWS[name]
        return _whole(evaluate(reader, given))
    if name == "pad_sequences" and call.args and isinstance(call.args[0], ast.List):
        starred = any(isinstance(one, ast.Starred) for one in call.args[0].elts)
        return None if starred else len(call.args[0].elts)  # each one a text
    if name in ("dict", "list", "DataFrame", "pad_sequences") and call.args:
        return count_samples(reader, call.args[0])
    if _ENCODES.search(name) and len(call.args) == 1:
        return _count_texts(reader, call.args[0]) or count_samples(reader, call.args[0])
    if name == "reshape":
        return _first_of(reader, _shape(call, method=True))
    if name in _OF_LIST and call.args:
        lengths = _lengths(reader, call.args[0])
        return (lengths.pop() if len(lengths) == 1 else None) if lengths else count_samples(reader, call.args[0])
    if name in _JOINED and call.args:
        return _of_joined(reader, call)
    if name in ("randn", "rand") and call.args:
        return _whole(evaluate(reader, call.args[0]))
    if name in _FILLED or name in _DRAWN:
        return _first_of(reader, _shape(call))
    if name in _SAME:
        method = owner is not None and (not call.args or (name in ("astype", "cast") and owner is not None))
        is_module = isinstance(owner, ast.Name) and owner.id in ("tf", "np", "K", "ops")
        given = call.args[0] if call.args and (is_module or owner is None or not method) else owner
        return None if given is None else count_samples(reader, given)
    return None


def _of_own_function(reader: Reader, call: ast.Call) -> int | None:
    """Count the samples of the one thing that a function of the cell gives back."""
    function = calls.defined(reader, call.func)
    if not isinstance(function, ast.FunctionDef):
        return None
    inside = [n for n in ast.walk(function) if reader.scopes.scope_of(n) is function]
    given = [n.value for n in inside if isinstance(n, ast.Return)]
    if len(given) != 1 or given[0] is None or isinstance(given[0], ast.Tuple):
        return None
    with reader.entering(function, call):
        return count_samples(reader, given[0])


def _of_joined(reader: Reader, call: ast.Call) -> int | None:
    """Count single samples that are put together one below another: ``np.vstack([one])``."""
    axis = next((k.value for k in call.keywords if k.arg == "axis"), call.args[1] if len(call.args) > 1 else None)
    parts = call.args[0].elts if isinstance(call.args[0], (ast.List, ast.Tuple)) else []
    below = axis is None or evaluate(reader, axis) == 0
    return len(parts) if below and {count_samples(reader, part) for part in parts} == {1} else None


def _count_texts(reader: Reader, expr: ast.expr) -> int | None:
    """Count the texts of a list that stands there, or that a name surely holds."""
    lengths = _lengths(reader, expr) - {0}
    return lengths.pop() if len(lengths) == 1 else None


def _lengths(reader: Reader, expr: ast.expr) -> set[int]:
    """Give how long a list is that stands there, or that a name or a parameter holds; empty where it is no list.

    Empty too where the list grows, and for one with starred parts.
    """
    if isinstance(expr, (ast.List, ast.Tuple)):
        return set() if any(isinstance(one, ast.Starred) for one in expr.elts) else {len(expr.elts)}
    chosen = reader.reaching(expr) if isinstance(expr, ast.Name) else None
    if chosen is None or chosen.kind not in ("assign", "param") or _grows(reader, expr):
        return set()
    given = [chosen.value] if chosen.kind == "assign" else calls.argument_exprs(reader, chosen)
    lists = [] if isinstance(given, Unknown) else [one for one in given if isinstance(one, ast.List)]
    return {len(one.elts) for one in lists}


_LENGTHENS = frozenset("append extend insert pop remove clear appendleft popleft".split())


def _grows(reader: Reader, name: ast.expr) -> bool:
    """Tell whether the cell changes how long the list is that a name holds."""
    if not isinstance(name, ast.Name):
        return True
    for load in reader.scopes.loads.get((reader.scopes.home(name), name.id), []):
        above = reader.scopes.parents.get(load)
        if isinstance(above, ast.Attribute) and above.attr in _LENGTHENS:
            return True
        if isinstance(above, ast.Delete) or (isinstance(above, ast.Subscript) and not isinstance(above.ctx, ast.Load)):
            return True
    return any(isinstance(b.node, ast.AugAssign) for b in reader.bindings(name))


def _shape(call: ast.Call, method: bool = False) -> ast.expr | None:
    """Give the argument that is the shape of what a call makes, or its first length where they stand one by one."""
    given = next((k.value for k in call.keywords if k.arg in ("shape", "size", "newshape")), None)
    if given is not None:
        return given
    name = called_name(call)
    owner = ast.unparse(call.func.value) if isinstance(call.func, (ast.Attribute)) else ""
    if method:
        at = 1 if owner in ("np", "numpy", "tf", "tensorflow", "K", "ops", "keras.ops") else 0
    else:
        numpy = owner.startswith(_NUMPY)
        at = _DRAWN[name][int(numpy)] if name in _DRAWN else _FILLED[name]
    return call.args[at] if at < len(call.args) else None


def _first_of(reader: Reader, shape: ast.expr | None) -> int | None:
    while isinstance(shape, ast.BinOp) and isinstance(shape.op, ast.Add):
        shape = shape.left  # (1,) + x.shape
    if isinstance(shape, (ast.List, ast.Tuple)):
        shape = shape.elts[0] if shape.elts else None
    return None if shape is None else _whole(evaluate(reader, shape))


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None and value >= 0 and value == int(value) else None
