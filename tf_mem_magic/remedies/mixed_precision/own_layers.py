"""Layers that the notebook writes itself: whether their code mixes float32 tensors with 16-bit inputs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.notebook.model import Notebook
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.uses import called_name

_MAKES_FLOATS = frozenset(
    "normal uniform truncated_normal random_normal random_uniform stateless_normal stateless_uniform gamma ones zeros "
    "eye fill full linspace one_hot constant convert_to_tensor random_bernoulli to_float Variable".split()
)
"""What gives float32 tensors where it is not told a type."""

_GIVES_A_TYPE = {"cast": 1, "range": 3, "arange": 3, "sequence_mask": 2, "saturate_cast": 1}
"""What gives float32 tensors where it is told so, and the place of the type among its arguments."""

_TYPE_PLACE = {"ones": 1, "zeros": 1, "constant": 1, "convert_to_tensor": 1, "Variable": 99, "normal": 3, "uniform": 3}
_FLOAT32 = re.compile(r"\bfloat(?:32|64)\b|\bfloatx\b")
_TABLE = re.compile(r"(?i)adj|matri|mask|table|encoding|graph|kernel|laplac|coord|anchor|mean$|std$|var(?:iance)?$")
_MULTIPLIES = frozenset({"matmul", "einsum", "tensordot", "sparse_dense_matmul", "dot", "batch_dot", "gather"})
_COMBINES = frozenset(
    "multiply add subtract divide truediv maximum minimum where pow add_n concat stack conv1d conv2d conv3d bias_add "
    "squared_difference scalar_mul divide_no_nan multiply_no_nan".split()
)
"""Functions of TensorFlow that refuse to mix types as its operators do; those of ``keras.ops`` do mix them."""

_NO_FLOATS = frozenset(
    "cast saturate_cast shape size rank argmax argmin argsort equal not_equal greater greater_equal less "
    "less_equal".split()
)
"""What gives no floats, or others than it gets."""

_COUNTS = frozenset({"shape", "size", "rank"})
"""What TensorFlow gives as whole numbers: it lets them meet whole numbers only."""

_TAKES_A_SHAPE = frozenset({"reshape", "tile", "broadcast_to"})
_ONLY_32_BITS = re.compile(r"i?r?fft(?:[23]d?|nd)?|i?stft|i?dct|i?mdct|complex")
"""Fourier transforms and complex numbers, which TensorFlow makes of float32 and float64 only."""

_MOST_FUNCTIONS = 60
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def why_not_in_16_bits(notebook: Notebook, model: ModelFacts) -> str:
    """Say which layer of the notebook's own does not go with 16-bit inputs, or cannot be looked at; empty: none."""
    for name in model.own_layers:
        found = notebook.function(name)
        if found is None or not isinstance(found.node, ast.ClassDef):
            if name == model.name or name.startswith("Lambda"):
                continue
            return f"the code of `{name}`, which Keras did not write, is not in the notebook: it may need 32 bits"
        if reason := _of_class(notebook, found.node):
            return reason
    if "Lambda" in model.layers:
        return _of_lambdas(notebook)
    return ""


def _of_class(notebook: Notebook, node: ast.ClassDef) -> str:
    names = notebook.names
    tables, layers = set[str](), set[str]()
    methods: dict[str, Definition] = {}
    for one in _with_bases(notebook, node):
        for statement in one.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                methods.setdefault(statement.name, statement)
        _attributes(notebook, one, tables, layers)
    for function in _followed(notebook, _forward(methods)):
        if told := _needs_32_bits(names, function):
            return f"`{node.name}` computes `{told}`, which TensorFlow cannot do in 16 bits"
        if told := _in_function(names, function, tables, layers):
            return f"`{node.name}` {told}"
    return ""


def _forward(methods: Mapping[str, Definition]) -> list[Definition]:
    """List the methods that run in a forward pass: ``call``, and what it calls on ``self``."""
    found: dict[str, Definition] = {}
    queue = ["call"]
    while queue:
        name = queue.pop()
        if name in methods and name not in found:
            found[name] = methods[name]
            queue += [n.attr for n in ast.walk(methods[name]) if isinstance(n, ast.Attribute)]
    return list(found.values())


def _of_lambdas(notebook: Notebook) -> str:
    for cell in notebook.cells_with("Lambda"):
        names = notebook.names
        for call in cell.calls:
            given = next(iter([*call.args[:1], *(k.value for k in call.keywords if k.arg == "function")]), None)
            if called_name(call) != "Lambda" or given is None:
                continue
            starts: list[Definition] = [given] if isinstance(given, ast.Lambda) else []
            if isinstance(given, ast.Name):
                found = notebook.function(given.id)
                starts += [found.node] if found is not None and not isinstance(found.node, ast.ClassDef) else []
            for function in _followed(notebook, starts):
                if told := _needs_32_bits(names, function):
                    return f"a Lambda layer computes `{told}`, which TensorFlow cannot do in 16 bits"
                kept = any(isinstance(n, ast.ClassDef) and call in ast.walk(n) for n in cell.nodes)
                told = _in_function(names, function, set(), set(), ends=function in starts and not kept)
                if told:
                    return f"a Lambda layer {told}"
    return ""


def _with_bases(notebook: Notebook, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
    seen, queue = set[str](), [node]
    while queue:
        one = queue.pop(0)
        if one.name in seen:
            continue
        seen.add(one.name)
        yield one
        for base in one.bases:
            found = notebook.function(base.id) if isinstance(base, ast.Name) else None
            if found is not None and isinstance(found.node, ast.ClassDef):
                queue.append(found.node)


def _attributes(notebook: Notebook, node: ast.ClassDef, tables: set[str], layers: set[str]) -> None:
    """Sort what a class keeps in attributes: ``tables`` of numbers as tensors or arrays, and ``layers``."""
    for statement in ast.walk(node):
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            if not (isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"):
                continue
            value = statement.value
            if _makes_table(notebook, value) or _is_param_table(target.attr, value):
                tables.add(target.attr)
            elif isinstance(value, ast.Call) and (notebook.names.builds(value) or called_name(value)[:1].isupper()):
                layers.add(target.attr)


def _makes_table(notebook: Notebook, value: ast.expr) -> bool:
    """Whether an expression makes a tensor or array of floats, also by a function of the notebook."""
    if _is_of_floats(notebook.names, value):
        return True
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name)) or notebook.names.builds(value):
        return False
    found = notebook.function(value.func.id)
    if found is None or isinstance(found.node, ast.ClassDef):
        return False
    return any(isinstance(n, ast.Call) and _is_float_maker(notebook.names, n) for n in ast.walk(found.node))


def _is_of_floats(names: KerasNames, value: ast.expr) -> bool:
    """Whether an expression is a float32 tensor, made here or computed of one that is."""
    if _is_float_maker(names, value):
        return True
    if isinstance(value, ast.BinOp):
        return _is_of_floats(names, value.left) or _is_of_floats(names, value.right)
    if isinstance(value, (ast.Subscript, ast.UnaryOp)):
        return _is_of_floats(names, value.value if isinstance(value, ast.Subscript) else value.operand)
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute) or names.builds(value):
        return False
    computed = _is_of_tensorflow(names, value) and called_name(value) not in _NO_FLOATS
    return computed and any(_is_of_floats(names, given) for given in value.args)


def _is_param_table(attribute: str, value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and _TABLE.search(attribute) is not None


def _followed(notebook: Notebook, starts: Iterable[Definition]) -> Iterator[Definition]:
    """Yield functions and those of the notebook that they call by name."""
    queue, seen = list(starts), set[str]()
    while queue and len(seen) < _MOST_FUNCTIONS:
        function = queue.pop(0)
        yield function
        for call in (n for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)):
            assert isinstance(call.func, ast.Name)
            if call.func.id in seen:
                continue
            seen.add(call.func.id)
            found = notebook.function(call.func.id)
            if found is not None and not isinstance(found.node, ast.ClassDef):
                queue.append(found.node)


def _in_function(
    names: KerasNames, function: Definition, tables: set[str], layers: set[str], *, ends: bool = False
) -> str:
    """Say which code in ``function`` makes a float32 tensor that may go into arithmetic; empty: there is none.

    Where the function ``ends`` a layer, what it only gives back is no mixture: the next layer casts it.
    """
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(function):
        is_table = isinstance(node, ast.Attribute) and node.attr in tables and ast.unparse(node.value) == "self"
        if _counts(names, parents, node) or (ends and _given_back(function, parents, node)):
            continue
        if is_table and _in_arithmetic(names, parents, node) and not _into_layer(parents, node, layers):
            return _said(ast.unparse(node), mixed=True)
        if not isinstance(node, ast.Call) or not _is_float_maker(names, node) or _into_layer(parents, node, layers):
            continue
        mixed = _in_arithmetic(names, parents, node) or _kept_for_arithmetic(names, function, parents, node)
        if mixed or not _by_keras(names, node):
            text = ast.unparse(node)
            return _said(text if len(text) <= 60 else f"{ast.unparse(node.func)}(…)", mixed=mixed)
    return ""


def _said(text: str, *, mixed: bool) -> str:
    if mixed:
        return f"mixes in float32 tensors (`{text}`), and TensorFlow refuses to mix them with 16 bits"
    return f"makes float32 tensors (`{text}`), which TensorFlow may refuse to mix with 16 bits"


def _needs_32_bits(names: KerasNames, function: Definition) -> str:
    """Give the call in ``function`` that TensorFlow has for 32 bits and more only; empty: there is none."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and _ONLY_32_BITS.fullmatch(called_name(node)) and _is_of_tensorflow(names, node):
            return f"{ast.unparse(node.func)}(…)"
    return ""


def _is_of_tensorflow(names: KerasNames, call: ast.Call) -> bool:
    root = ast.unparse(call.func).partition(".")[0]
    return names.meaning(root).partition(".")[0] in ("tensorflow", "keras")


def _is_float_maker(names: KerasNames, node: ast.expr) -> bool:
    """Whether an expression is a call of TensorFlow or Keras that gives float32 tensors."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Attribute, ast.Name)):
        return False
    if not _is_of_tensorflow(names, node):  # an array of NumPy becomes what it meets
        return False
    if names.origin(node.func).startswith(("keras.layers", "keras.initializers", "keras.models")):
        return False
    name = called_name(node)
    if name not in _MAKES_FLOATS and name not in _GIVES_A_TYPE:
        return False
    told = [k.value for k in node.keywords if k.arg == "dtype"]
    place = _GIVES_A_TYPE.get(name, _TYPE_PLACE.get(name, 99))
    told += node.args[place : place + 1]
    if told:
        return _FLOAT32.search(ast.unparse(told[0])) is not None
    if name in ("constant", "convert_to_tensor", "full", "fill", "Variable"):
        return not (node.args and all(_is_whole(inner) for inner in ast.walk(node.args[-1])))
    return name in _MAKES_FLOATS


def _is_whole(node: ast.AST) -> bool:
    """Whether a part of an expression does not make it a float: whole numbers, text and what holds them."""
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, float)
    return not isinstance(node, (ast.Call, ast.Name, ast.Attribute))


def _by_keras(names: KerasNames, node: ast.Call) -> bool:
    """Whether Keras's own operation makes it: its others accept mixed types, Python's operators do not."""
    return names.origin(node.func).startswith(("keras.ops", "keras.random"))


def _in_arithmetic(names: KerasNames, parents: dict[ast.AST, ast.AST], node: ast.AST) -> bool:
    parent = parents.get(node)
    while isinstance(parent, (ast.Subscript, ast.UnaryOp, ast.Attribute)) and not isinstance(node, ast.keyword):
        node, parent = parent, parents.get(parent)
    if isinstance(parent, (ast.BinOp, ast.AugAssign)):
        return True
    while isinstance(parent, (ast.List, ast.Tuple)):
        node, parent = parent, parents.get(parent)
    if not isinstance(parent, ast.Call) or node not in parent.args:
        return False
    combined = called_name(parent) in _COMBINES and _is_of_tensorflow(names, parent) and not _by_keras(names, parent)
    return combined or called_name(parent) in _MULTIPLIES


def _counts(names: KerasNames, parents: dict[ast.AST, ast.AST], node: ast.AST) -> bool:
    """Whether a value is of whole numbers because of where it goes: beside ``tf.shape(x)``, or as a shape."""
    if not isinstance(node, (ast.Call, ast.Attribute)):
        return False
    parent = parents.get(node)
    while isinstance(parent, (ast.BinOp, ast.UnaryOp, ast.List, ast.Tuple)):
        node, parent = parent, parents.get(parent)
    if isinstance(parent, ast.keyword):
        return parent.arg == "shape"
    beside: list[ast.AST] = [node]
    if isinstance(parent, ast.Call) and _is_of_tensorflow(names, parent) and not _by_keras(names, parent):
        if called_name(parent) in _TAKES_A_SHAPE and node in parent.args[1:2]:
            return True
        beside += parent.args[:1] if called_name(parent) in ("concat", "stack") and node in parent.args[:1] else []
    return any(_is_count(names, one) for value in beside for one in _parts(value))


def _parts(value: ast.AST) -> Iterator[ast.AST]:
    """Yield what an expression is computed or put together of."""
    if isinstance(value, ast.BinOp):
        yield from (*_parts(value.left), *_parts(value.right))
    elif isinstance(value, (ast.List, ast.Tuple)):
        yield from (part for one in value.elts for part in _parts(one))
    elif isinstance(value, (ast.Subscript, ast.UnaryOp)):
        yield from _parts(value.value if isinstance(value, ast.Subscript) else value.operand)
    else:
        yield value


def _is_count(names: KerasNames, value: ast.AST) -> bool:
    """Whether an expression is a call of TensorFlow's own that counts."""
    if not isinstance(value, ast.Call) or called_name(value) not in _COUNTS or _by_keras(names, value):
        return False
    return names.meaning(ast.unparse(value.func).partition(".")[0]).partition(".")[0] == "tensorflow"


def _given_back(function: Definition, parents: dict[ast.AST, ast.AST], node: ast.AST) -> bool:
    """Whether a function only gives a value back, as it is or reckoned with plain numbers."""
    plain = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    parent = parents.get(node)
    while isinstance(parent, ast.BinOp):
        if not all(isinstance(n, plain) for n in ast.walk(parent.right if node is parent.left else parent.left)):
            return False
        node, parent = parent, parents.get(parent)
    return parent is function or isinstance(parent, ast.Return)


def _kept_for_arithmetic(
    names: KerasNames, function: Definition, parents: dict[ast.AST, ast.AST], node: ast.AST
) -> bool:
    """Whether a name that is given the value goes into arithmetic in the same function."""
    parent = parents.get(node)
    if not isinstance(parent, ast.Assign):
        return False
    kept = {target.id for target in parent.targets if isinstance(target, ast.Name)}
    return any(
        isinstance(n, ast.Name) and n.id in kept and _in_arithmetic(names, parents, n) for n in ast.walk(function)
    )


def _into_layer(parents: dict[ast.AST, ast.AST], node: ast.AST, layers: set[str]) -> bool:
    """Whether a value is only handed to a layer, which casts it."""
    parent = parents.get(node)
    return (
        isinstance(parent, ast.Call)
        and node is not parent.func
        and isinstance(parent.func, ast.Attribute)
        and ast.unparse(parent.func.value) == "self"
        and parent.func.attr in layers
    )
