"""Code that makes datasets and nothing else: what may be run once more to have the same dataset again."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.uses import called_name

_STEPS = frozenset(
    "apply batch bucket_by_sequence_length cache concatenate enumerate filter flat_map group_by_window ignore_errors "
    "interleave map padded_batch prefetch ragged_batch range rebatch repeat scan shard shuffle skip snapshot "
    "sparse_batch take take_while unbatch unique window with_options zip".split()
)
"""Methods of a dataset that give another one: they run nothing."""

_PLAIN = frozenset(
    "len str int float bool list tuple dict sorted range min max sum abs zip round format join split replace lower "
    "astype reshape as_posix keys values items glob Path PosixPath to_numpy tolist print".split()
)
"""Calls that give the same again: of Python, of texts, arrays, paths and tables."""

_MODULES = ("os.path.", "glob.", "pathlib.", "numpy.", "math.")
_CHANGING = ("random", "save", "write", "Variable", "summary", "distribute", "fromfile")
_SPLITS = frozenset({"take", "skip", "shard"})
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.Return, ast.If, ast.Expr, ast.FunctionDef)


def is_made_again(
    node: ast.expr | ast.FunctionDef, names: KerasNames, known: Collection[str], makes_data: Callable[[str], bool]
) -> bool:
    """Whether running an expression, or calling a function, once more does nothing but make the same dataset.

    Parameters
    ----------
    node : ast.expr or ast.FunctionDef
        What is looked at.
    names : KerasNames
        What names mean.
    known : collection of str
        The names of datasets.
    makes_data : callable
        Whether a function of the notebook does nothing else either.
    """
    local = set(known)
    if isinstance(node, ast.FunctionDef):
        if node.decorator_list or not all(isinstance(s, _SIMPLE) for s in _statements(node.body)):
            return False
        bound = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        local |= {*bound, *(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))}
    here = list(_at_once(node.body if isinstance(node, ast.FunctionDef) else [node]))
    if any(isinstance(n, (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr, ast.Global)) for n in here):
        return False
    calls = [n for n in here if isinstance(n, ast.Call)]
    return bool(calls) and all(_is_known(call, names, local, makes_data) for call in calls)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from _statements([*statement.body, *statement.orelse])


def _at_once(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield what runs with the code itself: what functions and lambdas in it do is TensorFlow's to trace."""
    queue = list(nodes)
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, (ast.Lambda, ast.FunctionDef, ast.ClassDef)):
            queue += ast.iter_child_nodes(node)


def _is_known(call: ast.Call, names: KerasNames, local: Collection[str], makes_data: Callable[[str], bool]) -> bool:
    func = call.func
    if isinstance(func, ast.Name):
        origin = names.origin(func) or names.meaning(func.id)
        if origin:
            return _is_harmless(origin)
        return func.id in _PLAIN or makes_data(func.id)
    if not isinstance(func, ast.Attribute):
        return False
    root: ast.AST = func
    while isinstance(root, (ast.Attribute, ast.Subscript, ast.Call)):
        root = root.func if isinstance(root, ast.Call) else root.value
    meant = names.meaning(root.id) if isinstance(root, ast.Name) else ""
    if isinstance(func.value, (ast.Attribute, ast.Name)) and meant:
        rest = ast.unparse(func).partition(".")[2]
        return _is_harmless(names.origin(func) or f"{meant}.{rest}")
    if func.attr in _STEPS:
        is_data = isinstance(root, ast.Name) and (root.id in local or makes_data(root.id))
        return is_data or meant.startswith(("tensorflow", "keras"))
    return func.attr in _PLAIN


def _is_harmless(origin: str) -> bool:
    if any(word in origin for word in _CHANGING):
        return False
    return origin.startswith(("tensorflow.", "keras.utils.", "keras.preprocessing.", *_MODULES)) or origin in _PLAIN


def draws_other_samples(statements: Sequence[ast.stmt], reseeded: bool) -> tuple[bool, str]:
    """Say whether datasets come in another order when they are made once more; and why they may not be.

    That is, as a part of a sentence, where they are split after they are shuffled. ``reseeded``: TensorFlow's own seed
    may be another by now, with which the seed of a shuffle draws otherwise too.
    """
    drawn: set[str] = set()
    shuffles = False
    for statement in statements:
        calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
        for call in calls:
            split = called_name(call) in _SPLITS
            if split and any(_draws(one, reseeded) or _name(one) in drawn for one in _spine(call)):
                return True, "and shuffled before it was split: made once more, the parts would be other samples"
        if any(_draws(call, reseeded) for call in calls) or any(_name(n) in drawn for n in ast.walk(statement)):
            shuffles = True
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            drawn |= {_name(target) for target in targets}
            drawn |= {statement.name} if isinstance(statement, ast.FunctionDef) else set()
            drawn.discard("")
    return shuffles, ""


def _spine(call: ast.Call) -> Iterator[ast.AST]:
    """Yield what a method is called on: the calls before it, and the name at the end."""
    node: ast.AST = call.func
    while isinstance(node, (ast.Attribute, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
        yield node


def _draws(node: ast.AST, reseeded: bool) -> bool:
    """Whether a call shuffles as chance will have it."""
    if not isinstance(node, ast.Call):
        return False
    if not reseeded and any(k.arg == "seed" for k in node.keywords):
        return False
    off = any(k.arg == "shuffle" and isinstance(k.value, ast.Constant) and not k.value.value for k in node.keywords)
    if called_name(node) == "shuffle":
        return reseeded or len(node.args) < 2
    return not off and (called_name(node) == "list_files" or called_name(node).endswith("_dataset_from_directory"))


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""
