"""Whether a function of a cell would do the same as a TensorFlow graph: Python runs once, when it is traced."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping

from tf_mem_magic.notebook.uses import called_name

Functions = Mapping[str, ast.FunctionDef]
_DEEPEST = 6

_VALUES = frozenset({"numpy", "item", "tolist", "to_py", "eval"})
_PYTHON = frozenset({"print", "float", "int", "bool", "input", "open", "next", "iter", "exec", "setattr", "display"})
_MUTATES = frozenset(
    "append extend insert update pop popitem add remove clear setdefault write writelines set_postfix set_description "
    "info debug warning error log put send set_value fit evaluate predict train_on_batch".split()
)
_MODULES = frozenset({"np", "numpy", "random", "time", "os", "sys", "plt", "gc", "logging", "wandb", "pd", "datetime"})
_MAKES = frozenset({"GradientTape", "TensorSpec", "TensorShape", "IndexedSlices"})


def untraceable(
    function: ast.FunctionDef,
    functions: Functions,
    changing: frozenset[str],
    held: frozenset[str] = frozenset(),
    depth: int = 0,
) -> str:
    """Say why the function, or one that it calls, would not do the same as a graph; empty: nothing was found.

    ``functions`` are those of the notebook by name, ``changing`` the names, and attributes as ``.beta``, whose
    value changes in loops or by callbacks; ``held`` name objects that are called, whatever their first letter.
    """
    own = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}
    for node in ast.walk(function):
        reason = "" if isinstance(node, ast.Call) and _is_of(node, held - own) else _effect(node)
        if reason:
            return f"`{function.name}` {reason}"
        read = node.id if isinstance(node, ast.Name) else f".{node.attr}" if isinstance(node, ast.Attribute) else ""
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load) and read in changing - own:
            told = ast.unparse(node)
            return f"`{function.name}` reads `{told}`, which changes: a graph would keep its first value"
    for name in sorted({called_name(n) for n in ast.walk(function) if isinstance(n, ast.Call)}):
        called = functions.get(name)
        if called is not None and called is not function and depth < _DEEPEST:
            reason = untraceable(called, functions, changing, held, depth + 1)
            if reason:
                return reason
    return ""


def held_objects(trees: Iterable[ast.Module]) -> frozenset[str]:
    """Name what the notebook sets to an object of a class, and to nothing else: ``SCC = losses.MeanSquaredError()``."""
    made, others, kept = set[str](), set[str](), set[int]()
    nodes = [n for tree in trees for n in ast.walk(tree)]
    for node in nodes:
        if isinstance(node, ast.Assign) and _is_made(node.value):
            targets = [t for t in node.targets if isinstance(t, ast.Name)]
            made |= {t.id for t in targets}
            kept |= {id(t) for t in targets}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            others |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            others.add(node.name)
    stores = (n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and id(n) not in kept)
    return frozenset(made - others - {n.id for n in stores})


def _is_made(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and called_name(value)[:1].isupper()


def _is_of(call: ast.Call, held: frozenset[str]) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in held


def counts_samples(
    function: ast.FunctionDef, functions: Functions, of_batches: frozenset[str] | None = None, depth: int = 0
) -> str:
    """Say where a function that Keras calls takes the size of its batch as a Python number; empty: nowhere.

    Run eagerly, ``y_true.shape[0]`` is a number; in a graph of Keras it is most often None. ``of_batches`` are the
    parameters that hold a batch; None: all of them do.
    """
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    own = {a.arg for a in given if a.arg not in ("self", "training", "mask")}
    batches = own if of_batches is None else set(of_batches)
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_batch(node.value, batches):
            batches |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    tests = {id(n) for test in ast.walk(function) if _asks_for_none(test) for n in ast.walk(test)}
    for node in ast.walk(function):
        if id(node) not in tests and _is_size(node, batches):
            return f"`{function.name}` takes `{ast.unparse(node)}` as a number, which a graph may not know"
        if isinstance(node, ast.Assign) and _unpacks_size(node, function, batches):
            shape = ast.unparse(node.value)
            return f"`{function.name}` takes the first of `{shape}` as a number, which a graph may not know"
    for call in (n for n in ast.walk(function) if isinstance(n, ast.Call)):
        called = functions.get(called_name(call))
        if called is None or called is function or depth >= _DEEPEST or not isinstance(call.func, ast.Name):
            continue
        names = [a.arg for a in (*called.args.posonlyargs, *called.args.args)]
        handed = {name for name, value in zip(names, call.args) if _is_batch(value, batches)}
        handed |= {k.arg for k in call.keywords if k.arg and _is_batch(k.value, batches)}
        reason = counts_samples(called, functions, frozenset(handed), depth + 1) if handed else ""
        if reason:
            return reason
    return ""


def _is_batch(value: ast.expr, batches: Collection[str]) -> bool:
    """Tell a batch, or a part of what holds batches (``data[0]``), from what is computed of one."""
    while isinstance(value, ast.Subscript):
        value = value.value
    return isinstance(value, ast.Name) and value.id in batches


def _is_size(node: ast.AST, batches: Collection[str]) -> bool:
    if isinstance(node, ast.Call) and called_name(node) == "len" and len(node.args) == 1:
        return isinstance(node.args[0], ast.Name) and node.args[0].id in batches
    if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
        return False
    return isinstance(node.slice, ast.Constant) and node.slice.value == 0 and _is_shape(node.value, batches)


def _is_shape(value: ast.expr, batches: Collection[str]) -> bool:
    """Tell the shape of a batch as Python knows it: ``x.shape``, ``x.get_shape()``, ``x.shape.as_list()``."""
    while isinstance(value, ast.Call) and called_name(value) in ("as_list", "get_shape") and not value.args:
        value = value.func.value if isinstance(value.func, ast.Attribute) else value.func
        if isinstance(value, ast.Name):
            return value.id in batches
    shape = isinstance(value, ast.Attribute) and value.attr == "shape"
    return shape and isinstance(value.value, ast.Name) and value.value.id in batches  # type: ignore[attr-defined]


def _unpacks_size(node: ast.Assign, function: ast.FunctionDef, batches: Collection[str]) -> bool:
    """Tell ``batch, height, width = x.shape`` where the batch is read afterwards."""
    if not _is_shape(node.value, batches):
        return False
    firsts = {t.elts[0].id for t in node.targets if isinstance(t, ast.Tuple) and isinstance(t.elts[0], ast.Name)}
    return any(isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id in firsts for n in ast.walk(function))


def _asks_for_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and any(isinstance(op, (ast.Is, ast.IsNot)) for op in node.ops)


def _effect(node: ast.AST) -> str:
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return f"changes the outer name `{node.names[0]}`"
    if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await, ast.Try, ast.With)):
        return _block(node)
    if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
        return f"sets `{ast.unparse(node)}`, which a graph would do once"
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _MODULES:
        return f"uses `{node.id}`, whose results a graph would keep from its first call"
    return _of_call(node) if isinstance(node, ast.Call) else ""


def _block(node: ast.AST) -> str:
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        tapes = all(isinstance(c, ast.Call) and called_name(c) in ("GradientTape", "name_scope") for c in calls)
        return "" if tapes else f"enters `{ast.unparse(calls[0])}`"
    return "catches errors, which a graph raises elsewhere" if isinstance(node, ast.Try) else "is a generator"


def _of_call(call: ast.Call) -> str:
    name = called_name(call)
    method = isinstance(call.func, ast.Attribute)
    if method and name in _VALUES:
        return f"calls `.{name}()`, which a graph's tensors do not have"
    if not method and name in _PYTHON:
        return f"calls `{name}`, which runs once in a graph, when it is traced"
    if method and name in _MUTATES and not ast.unparse(call.func).startswith(("tf.", "keras.", "tensorflow.")):
        return f"calls `{ast.unparse(call.func)}`, which runs once in a graph, when it is traced"
    if name[:1].isupper() and name not in _MAKES:
        return f"makes a new `{name}` at each call"
    return ""
