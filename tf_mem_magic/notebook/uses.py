"""What a cell does with a name that holds the batch size, and whether that may change together with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Literal

from tf_mem_magic.notebook.scopes import Scopes

Role = Literal["site", "coupled", "free", "other"]
"""``site`` sets a batch size, ``coupled`` must follow it, ``free`` does not mind, ``other`` is something else."""

BATCHERS = {"batch": 0, "padded_batch": 0, "ragged_batch": 0, "rebatch": 0}
"""Dataset methods that take the batch size, and its position."""

KERAS: dict[str, int | None] = {
    "fit": 2,
    "evaluate": 2,
    "predict": 1,
    "fit_generator": None,
    "evaluate_generator": None,
    "predict_generator": None,
}
"""Keras methods that take ``batch_size``, and its position; None: an older method, whose data come in batches."""

ORDER = {
    "fit": tuple(
        "x y batch_size epochs verbose callbacks validation_split validation_data shuffle class_weight sample_weight "
        "initial_epoch steps_per_epoch validation_steps validation_batch_size".split()
    ),
    "evaluate": ("x", "y", "batch_size", "verbose", "sample_weight", "steps"),
    "predict": ("x", "batch_size", "verbose", "steps"),
    "fit_generator": (
        *("generator", "steps_per_epoch", "epochs", "verbose", "callbacks"),
        *("validation_data", "validation_steps"),
    ),
    "evaluate_generator": ("generator", "steps"),
    "predict_generator": ("generator", "steps"),
}
"""The arguments of Keras's methods that are used here, in their order."""

FITS = ("fit", "fit_generator")
"""The methods that train."""

_BATCH_WORDS = frozenset(
    {"bs", "bsz", "batch", "mbs", "minibatch", "global_batch", "train_batch", "val_batch", "test_batch", "mini_batch"}
)
SHAPES = frozenset(
    "ensure_shape set_shape "
    "normal uniform zeros ones randn rand random random_sample truncated_normal fill full empty reshape broadcast_to "
    "tile repeat randint choice sample standard_normal random_normal random_uniform integers permutation "
    "get_initial_state initialize_hidden_state zero_state one_hot_zeros categorical TensorShape".split()
)
_THROUGH = frozenset("ceil floor int float round min max cast constant abs len minimum maximum".split())
_TALK = frozenset("print str repr format info debug warning log display write set_description set_postfix".split())
_DATA = re.compile(r"(?i)data|(?:^|_)ds(?:$|_)|load|gen|batch|iter|pipeline|train|split|slices|chunks|sample")
MODEL = re.compile(r"(?i)model|build|layer|net(?:$|_)|dense|conv|lstm|gru|embed|encoder|decoder|unit|callback|optimi")
_INDEX = re.compile(
    r"(?i)^(?:start|end|stop|begin|to|from_?|until|first|last|lo|hi|low|high|offset|idx|ind|index|indices|i|j|s|e|k)\d*$"
    r"|_(?:start|end|idx|index|begin|indices)$|^(?:start|end|batch)_|steps|half_?batch|(?:^|_)half(?:_|$)|n_?batch|num_?batch|batches|shape|buffer"
    r"|(?:^|_)(?:lr|learning_rate)"
)


def is_batch_name(name: str) -> bool:
    """Say whether a name means a batch size, going by how people name it."""
    plain = name.lower().strip("_").replace("-", "_")
    if plain in _BATCH_WORDS or plain.endswith(("_bs", "_bsz")) or plain.startswith("batch_per"):
        return True
    return any(word in plain for word in ("batch_size", "batchsize", "batch_sz", "batchsz"))


_EITHER = ("n_batch", "nbatch", "batch_n")
_SAMPLES = (*_EITHER, "n_samples", "num_samples", "n_sample", "samples_per_batch")


def may_be_a_size(name: str) -> bool:
    """Say whether a name that often counts batches may mean their size, where a batch is made of so many samples."""
    return name.lower() in _EITHER


def counts_samples(name: str) -> bool:
    """Say whether a name may mean how many samples a batch has, in a function that makes batches."""
    return name.lower() in _SAMPLES


def called_name(call: ast.Call) -> str:
    """Give the last part of what is called: ``fit`` for ``model.fit(...)``."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def is_tape(node: ast.AST) -> bool:
    """Tell whether a statement opens a ``GradientTape`` for what stands under it."""
    given = [item.context_expr for item in node.items] if isinstance(node, (ast.With, ast.AsyncWith)) else []
    return any(called_name(one) == "GradientTape" for one in given if isinstance(one, ast.Call))


_DEEPEST = 4
"""Through so many functions of a cell a size is followed."""

_BAR = re.compile(r"(?i)(?:^|_|\b)(?:p?bar|prog(?:ress)?(?:_?bar)?|tqdm)$")
"""What shows how far a loop is: it moves on by the samples of a batch."""


def role(scopes: Scopes, node: ast.expr, depth: int = 0) -> Role:
    """Say what the expression ``node``, which reads the batch size, is used for; ``depth``: of functions entered."""
    child: ast.AST = node
    for parent in scopes.up(node):
        found = _role(scopes, parent, child, depth)
        if found is not None:
            return found
        child = parent
    return "other"


def _role(scopes: Scopes, parent: ast.AST, child: ast.AST, depth: int) -> Role | None:
    if isinstance(parent, (ast.FormattedValue, ast.Expr, ast.Assert)):
        return "free"
    if isinstance(parent, ast.keyword):
        found, call = _of_keyword(parent.arg or ""), scopes.parents.get(parent)
        own = found == "other" and isinstance(call, ast.Call) and _parameter(scopes, call, 0) is not None
        return _of_parameter(scopes, call, parent.arg or "", depth) if own and isinstance(call, ast.Call) else found
    if isinstance(parent, ast.Call):
        return _of_argument(scopes, parent, child, depth)
    if isinstance(parent, ast.BinOp):
        divides = isinstance(parent.op, (ast.FloorDiv, ast.Div, ast.Mod)) and child is parent.right
        other = parent.left if child is parent.right else parent.right
        repeats = isinstance(parent.op, ast.Mult) and isinstance(other, (ast.List, ast.Tuple))
        return "coupled" if divides or repeats or _rounds(parent, child, other) else None
    if isinstance(parent, ast.Subscript):
        return "coupled" if child is parent.slice else "other"
    if isinstance(parent, (ast.Compare, ast.AugAssign)):
        return "coupled"
    if isinstance(parent, (ast.UnaryOp, ast.Slice, ast.IfExp)):
        return None
    if isinstance(parent, (ast.Tuple, ast.List)):
        return _of_element(scopes, parent, child)
    if isinstance(parent, ast.Dict):
        keys = [k.value for k, v in zip(parent.keys, parent.values) if v is child and isinstance(k, ast.Constant)]
        return "site" if keys and is_batch_name(str(keys[0])) else "other"
    if isinstance(parent, ast.Assign):
        roles = {_of_target(target, child) for target in parent.targets}
        found = roles.pop() if len(roles) == 1 else "other"
        return _of_share(scopes, parent, child, depth) if found == "other" else found
    if isinstance(parent, (ast.AnnAssign, ast.NamedExpr)):
        return _of_target(parent.target, child)
    if isinstance(parent, ast.arguments):
        return _of_default(parent, child)
    return "other"


def _rounds(product: ast.BinOp, child: ast.AST, other: ast.expr) -> bool:
    """Tell whether a number is rounded to whole batches: ``n // size * size``, ``size * int(n / size)``."""
    quotients = (n for n in ast.walk(other) if isinstance(n, ast.BinOp) and isinstance(n.op, (ast.FloorDiv, ast.Div)))
    return isinstance(product.op, ast.Mult) and any(ast.dump(q.right) == ast.dump(child) for q in quotients)


def _of_keyword(name: str) -> Role:
    if is_batch_name(name):
        return "site"
    if name in ("shape", "size", "batch_shape", "batch_input_shape", "step") or "steps" in name:
        return "coupled"
    return "free" if name in ("buffer_size", "desc") else "other"


def _of_argument(scopes: Scopes, call: ast.Call, child: ast.AST, depth: int) -> Role | None:
    if child not in call.args:
        return "other"
    index, name = call.args.index(child), called_name(call)
    if (BATCHERS | KERAS).get(name) == index and isinstance(call.func, ast.Attribute):
        return "site"
    if name == "range" or name in SHAPES:
        return "coupled"
    if name in ("update", "add") and isinstance(call.func, ast.Attribute) and _BAR.search(ast.unparse(call.func.value)):
        return "coupled"
    if name in _THROUGH:
        return None
    if name in _TALK or name in ("shuffle", "prefetch"):
        return "free"
    parameter = _parameter(scopes, call, index)
    if parameter is not None:
        return "site" if is_batch_name(parameter) else _of_parameter(scopes, call, parameter, depth)
    return "site" if _DATA.search(name) and not MODEL.search(name) and not name[:1].isupper() else "other"


def _of_parameter(scopes: Scopes, call: ast.Call, parameter: str, depth: int) -> Role:
    """Say what a function of the cell uses a size for that it is given by another name: ``make_labels(size)``."""
    assert isinstance(call.func, ast.Name)
    found = scopes.of(scopes.home(call.func), call.func.id)
    loads = scopes.loads.get((found[0].node, parameter), []) if isinstance(found[0].node, ast.FunctionDef) else []
    only_read = len(scopes.of(found[0].node, parameter)) == 1
    return of_reads(role(scopes, load, depth + 1) for load in loads) if only_read and depth < _DEEPEST else "other"


def of_reads(roles: Iterable[Role]) -> Role:
    """Say what a parameter is used for, by what its function does wherever it reads it."""
    found = set(roles)
    return "coupled" if found and found <= {"site", "coupled", "free"} else "other"


def _parameter(scopes: Scopes, call: ast.Call, index: int) -> str | None:
    if not isinstance(call.func, ast.Name):
        return None
    found = scopes.of(scopes.home(call.func), call.func.id)
    node = found[0].node if len(found) == 1 and found[0].kind == "def" else None
    if isinstance(node, ast.ClassDef):
        node = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        index += 1
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return None
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
    return names[index] if index < len(names) else ""


def _of_element(scopes: Scopes, parent: ast.Tuple | ast.List, child: ast.AST) -> Role | None:
    index = parent.elts.index(child)  # type: ignore[arg-type]
    above = scopes.parents[parent]
    if isinstance(above, ast.Assign) and isinstance(above.targets[0], (ast.Tuple, ast.List)):
        targets = above.targets[0].elts
        return _of_target(targets[index], child) if index < len(targets) else "other"
    return None if index == 0 else "other"


def _of_target(target: ast.expr, value: ast.AST) -> Role:
    name = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        name = str(target.slice.value)
    if is_batch_name(name):
        return "site"
    copied = isinstance(value, (ast.Name, ast.Attribute, ast.Subscript))
    return "coupled" if _INDEX.search(name) and not copied and "dim" not in name.lower() else "other"


def _of_share(scopes: Scopes, statement: ast.Assign, child: ast.AST, depth: int) -> Role:
    """Say what a size is used for of which a name is given a share: ``half = n_batch // 2``."""
    target = statement.targets[0]
    divided = any(isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Div, ast.FloorDiv)) for n in ast.walk(child))
    if not divided or not isinstance(target, ast.Name) or depth >= _DEEPEST:
        return "other"
    home = scopes.home(target)
    loads = scopes.loads.get((home, target.id), []) if len(scopes.of(home, target.id)) == 1 else []
    return of_reads(role(scopes, load, depth + 1) for load in loads)


def _of_default(parent: ast.arguments, child: ast.AST) -> Role:
    positional = [*parent.posonlyargs, *parent.args]
    pairs = list(zip(positional[len(positional) - len(parent.defaults) :], parent.defaults))
    pairs += [(a, d) for a, d in zip(parent.kwonlyargs, parent.kw_defaults) if d is not None]
    name = next((a.arg for a, default in pairs if default is child), "")
    return "site" if is_batch_name(name) else "other"
