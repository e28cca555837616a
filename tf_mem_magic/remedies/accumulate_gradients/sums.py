"""What code computes with a mean or a sum over the samples of a batch, where that of its parts is another."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from tf_mem_magic.notebook.scopes import arguments
from tf_mem_magic.notebook.uses import called_name

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_BENDS = frozenset(
    "sqrt rsqrt log log1p log10 exp expm1 pow square abs maximum minimum relu sigmoid tanh softplus clip clip_by_value "
    "reciprocal divide divide_no_nan".split()
)
"""Functions of which the mean of parts is not that of the whole, where they are given a mean."""

_ADDS = frozenset("sum reduce_sum count_nonzero l2_loss".split())
_MEANS = _ADDS | {"mean", "reduce_mean"}
_SPREADS = frozenset("std var reduce_std reduce_variance variance".split())
_DIVIDES = frozenset("divide divide_no_nan reciprocal compute_average_loss".split())
_AXIS = frozenset("axis axes dim reduction_indices".split())
_WEIGHTS = frozenset("trainable_variables trainable_weights weights variables losses get_weights".split())
_A_MASK = re.compile(r"(?i)mask|valid|(?:^|_)pad")
_COUNTS = re.compile(
    r"(?i)batch|sample|example|row|count|total|num|size|len|denom|norm|weight|mask|valid|(?:^|_)[bnm]s?(?:$|_)"
)
"""How names are written that may hold a number of samples, or what stands for it."""
_DEEPEST = 4
_LOSS_CLASS = re.compile(r"^[A-Z]\w*(?:Error|Crossentropy|Divergence|Cosh|Hinge|Poisson|Huber|Similarity|Loss)$")


def _never(name: str) -> bool:
    return False


@dataclass(frozen=True)
class Code:
    """Statements or an expression, as far as they compute with the samples of a batch.

    Attributes
    ----------
    nodes : tuple of ast.AST
        All their nodes.
    gives_a_mean : callable
        Tells by its name whether a function that stands elsewhere gives a mean or a sum over the samples.
    given : frozenset of str
        The names that hold samples; empty: what its innermost functions are given, or anything where it has none.
    """

    nodes: tuple[ast.AST, ...]
    gives_a_mean: Callable[[str], bool] = _never
    given: frozenset[str] = frozenset()

    @property
    def bent(self) -> ast.expr | None:
        """The expression that bends a mean or a sum over the samples; None where there is none."""
        return next((node for node, of in self._bending if not self._are_masks(of)), None)

    @property
    def is_masked(self) -> bool:
        """Whether something is divided by how much a mask lets through: of each part that is a little different."""
        return any(self._are_masks(of) for _, of in self._bending)

    @property
    def added(self) -> ast.Call | None:
        """The sum over all samples that nothing divides by their number; None where there is none."""
        if any(map(self._divides_a_sum, self.nodes)) or any(called_name(c) in _DIVIDES for c in self._calls):
            return None
        sums = (c for c in self._calls if called_name(c) in _ADDS and isinstance(c.func, ast.Attribute))
        return next((c for c in sums if self.is_fed(c) and along_samples(c, self.values)), None)

    def _divides_a_sum(self, node: ast.AST) -> bool:
        """Tell whether a sum may be divided by how many samples there are: a plain number is not that."""
        if isinstance(node, ast.AugAssign):
            return isinstance(node.op, ast.Div) and self._may_count(node.value)
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Div) or not self._may_count(node.right):
            return False
        return isinstance(node.left, ast.Constant) or bool(self._sums_in(node.left))

    def _may_count(self, expr: ast.expr, depth: int = 0) -> bool:
        """Tell whether an expression may be computed of the number of samples, by what it asks and how it is named."""
        for node in ast.walk(expr):
            if isinstance(node, ast.Call) or _is_size(node):
                return True
            if not isinstance(node, (ast.Name, ast.Attribute)):
                continue
            name = node.id if isinstance(node, ast.Name) else node.attr
            value = self.values.get(name) if depth < _DEEPEST else None
            if _COUNTS.search(name) or (value is not None and self._may_count(value, depth + 1)):
                return True
        return False

    @property
    def has_means(self) -> bool:
        """Whether it computes a mean over the samples, or reads losses of weights."""
        means = (c for c in self._calls if called_name(c) in _MEANS - _ADDS and along_samples(c, self.values))
        of_weights = (n for n in self.nodes if isinstance(n, ast.Attribute) and n.attr == "losses")
        return any(self.is_fed(c) for c in means) or any(isinstance(n.ctx, ast.Load) for n in of_weights)

    @property
    def returns_a_mean(self) -> bool:
        """Whether what it returns holds a mean or a sum over the samples."""
        given = (n.value for n in self.nodes if isinstance(n, ast.Return) and n.value is not None)
        return any(self._sums_in(value) for value in given)

    @cached_property
    def called(self) -> frozenset[str]:
        """The names of the functions that it calls plainly."""
        of_weights = parts_of_weights(self.nodes)
        return frozenset(c.func.id for c in self._calls if isinstance(c.func, ast.Name) and c not in of_weights)

    @cached_property
    def _calls(self) -> tuple[ast.Call, ...]:
        return tuple(n for n in self.nodes if isinstance(n, ast.Call))

    @cached_property
    def _bending(self) -> tuple[tuple[ast.expr, list[ast.Call]], ...]:
        """The expressions that bend, and the sums that each bends."""
        found: list[tuple[ast.expr, list[ast.Call]]] = []
        for node in self.nodes:
            if isinstance(node, ast.Call) and called_name(node) in _SPREADS and self._counts(node):
                found.append((node, [node]))
            parts = self._parts(node)
            sums = [one for part in parts for one in self._sums_in(part)]
            if sums and isinstance(node, ast.expr):
                found.append((node, sums))
        return tuple(found)

    def _parts(self, node: ast.AST) -> list[ast.expr]:
        """List what an expression bends."""
        if isinstance(node, ast.Call) and called_name(node) in _BENDS:
            return node.args[-1:] if called_name(node).startswith("divide") else node.args[:2]
        if isinstance(node, ast.Call) and called_name(node) not in _MEANS:
            return [one for one in (*node.args, *(k.value for k in node.keywords)) if self._is_centred(one)]
        if not isinstance(node, ast.BinOp):
            return []
        if isinstance(node.op, ast.Mult):
            sides = [bool(self._sums_in(side)) for side in (node.left, node.right)]
            others = [side for side, sums in zip((node.left, node.right), sides) if not sums]
            return [node.left, node.right] if any(sides) and all(map(self._varies, others)) else []
        return {ast.Div: [node.right], ast.Pow: [node.left]}.get(type(node.op), [])

    def _is_centred(self, expr: ast.expr) -> bool:
        """Tell whether a mean over the samples is taken from each: ``out - tf.reduce_mean(out)``."""
        if not isinstance(expr, ast.BinOp) or not isinstance(expr.op, ast.Sub):
            return False
        return bool(self._sums_in(expr.right)) and not self._sums_in(expr.left) and self._varies(expr.left)

    def _varies(self, expr: ast.expr) -> bool:
        """Tell whether an expression surely differs from sample to sample."""
        return bool(self._fed) and self.is_fed(expr) and not any(_is_size(n) for n in ast.walk(expr))

    def _sums_in(self, expr: ast.expr) -> list[ast.Call]:
        """List the means and sums over the samples that an expression is computed of."""
        found = []
        for node in ast.walk(expr):
            if isinstance(node, ast.Name):
                found += self._sums.get(node.id, [])
            elif isinstance(node, ast.Call) and self._counts(node):
                found.append(node)
        return found

    def _counts(self, call: ast.Call) -> bool:
        made = call.func
        if isinstance(made, ast.Call):
            return bool(_LOSS_CLASS.match(called_name(made)))
        if isinstance(made, ast.Name) and self.gives_a_mean(made.id):
            return True
        if called_name(call) not in _MEANS | _SPREADS or not self.is_fed(call):
            return False
        return along_samples(call, self.values) is not False

    def _are_masks(self, sums: list[ast.Call]) -> bool:
        return all(_adds_a_mask(call) for call in sums)

    @cached_property
    def _assigned(self) -> tuple[tuple[frozenset[str], ast.expr], ...]:
        """The names that are set, and of what, in the order of the nodes."""
        found = []
        for node in self.nodes:
            if isinstance(node, ast.Assign):
                found.append((frozenset().union(*map(_stored, node.targets)), node.value))
            elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
                found.append((_stored(node.target), node.value))
            elif isinstance(node, (ast.For, ast.comprehension)):
                found.append((_stored(node.target), node.iter))
        return tuple(found)

    @cached_property
    def values(self) -> dict[str, ast.expr]:
        """What the names hold that are set once, or are parameters with a default."""
        single = {n for names, _ in self._assigned for n in names if sum(n in one for one, _ in self._assigned) == 1}
        values = {name: value for names, value in self._assigned for name in names & single if len(names) == 1}
        for function in (n for n in self.nodes if isinstance(n, _FUNCTIONS)):
            given = [*function.args.posonlyargs, *function.args.args]
            pairs = [*zip(reversed(given), reversed(function.args.defaults))]
            values |= {argument.arg: value for argument, value in pairs}
        return values

    @cached_property
    def _fed(self) -> frozenset[str]:
        """The names that hold what the innermost functions are given, or what is computed of it; empty: any may."""
        functions = [n for n in self.nodes if isinstance(n, _FUNCTIONS) and getattr(n, "name", "") != "__init__"]
        inner = [f for f in functions if not any(isinstance(n, _FUNCTIONS) for n in _below(f))]
        fed = set(self.given) or {argument.arg for f in inner for argument in arguments(f.args)} - {"self"}
        while fed:
            news = {name for names, value in self._assigned if fed & _loaded(value) for name in names} - fed
            if not news:
                break
            fed |= news
        return frozenset(fed)

    @cached_property
    def _sums(self) -> dict[str, list[ast.Call]]:
        """The names that hold what is computed of means and sums over the samples, and which."""
        known: dict[str, list[ast.Call]] = {}
        self.__dict__["_sums"] = known  # asked for while it is made
        for _ in range(3):  # a name may be computed of one that stands below in this order
            for names, value in self._assigned:
                held = self._sums_in(value)
                known |= {name: held for name in names if held}
        return known

    def is_fed(self, expr: ast.AST) -> bool:
        """Tell whether an expression computes with what the code is given, and not with weights or constants alone."""
        return bool(self._fed & _loaded(expr) if self._fed else _loaded(expr))


OF_WEIGHTS = re.compile(r"(?i)(?<!activity_)(?:regulari[sz]er|regulari[sz]ation)|weight_?decay")
"""Names of what computes a loss of weights: it is the same for each part of a batch, and their mean is it again."""


def parts_of_weights(nodes: Iterable[ast.AST]) -> set[ast.AST]:
    """Collect what code hands on, or sets as a default, to compute a loss of weights: ``kernel_regularizer=l2()``."""
    found: list[ast.expr] = []
    for node in nodes:
        if isinstance(node, ast.keyword) and OF_WEIGHTS.search(node.arg or ""):
            found.append(node.value)
        elif isinstance(node, ast.arguments):
            plain = [*node.posonlyargs, *node.args]
            pairs = [*zip(reversed(plain), reversed(node.defaults)), *zip(node.kwonlyargs, node.kw_defaults)]
            found += [default for one, default in pairs if default is not None and OF_WEIGHTS.search(one.arg)]
    return {inner for one in found for inner in ast.walk(one)}


def code_of(node: ast.AST, gives_a_mean: Callable[[str], bool] = _never) -> Code:
    """Give a function, class or expression as code; what a function is decorated with is no part of it."""
    return Code(tuple(ast.walk(node)), gives_a_mean)


def along_samples(call: ast.Call, values: dict[str, ast.expr]) -> bool | None:
    """Tell whether a mean or sum goes over the samples; None where its axis cannot be told."""
    given = next((k.value for k in call.keywords if k.arg in _AXIS), None)
    return along(_axis_by_position(call) if given is None else given, values)


def axis_of(call: ast.Call, place: int) -> ast.expr | None:
    """Give the axis that a function gets by its name or at a place, counted from what it computes with."""
    given = next((k.value for k in call.keywords if k.arg in _AXIS), None)
    return given if given is not None or len(call.args) <= place else call.args[place]


def along(given: ast.expr | None, values: dict[str, ast.expr]) -> bool | None:
    """Tell whether an axis, or one of several, is that of the samples, or all are meant; None where it is not known."""
    while isinstance(given, ast.Name) and given.id in values:
        found, values = values[given.id], {name: value for name, value in values.items() if name != given.id}
        given = found
    if given is None:
        return True
    if _is_a_range(given):
        return False
    try:
        axis = ast.literal_eval(given)
    except ValueError:
        return None
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    return not all(isinstance(one, int) and (one > 0 or one == -1) for one in axes)


def _axis_by_position(call: ast.Call) -> ast.expr | None:
    if len(call.args) > 1:
        return call.args[1]
    alone = call.args[0] if isinstance(call.func, ast.Attribute) and call.args else None
    number = alone.operand if isinstance(alone, ast.UnaryOp) else alone
    return alone if isinstance(number, ast.Constant) and type(number.value) is int else None


def _is_a_range(axes: ast.expr) -> bool:
    """Tell whether axes are counted from the second on: ``tuple(range(1, rank))``."""
    while isinstance(axes, ast.Call) and called_name(axes) in ("tuple", "list") and len(axes.args) == 1:
        axes = axes.args[0]
    first = axes.args[0] if isinstance(axes, ast.Call) and called_name(axes) == "range" and axes.args else None
    return isinstance(first, ast.Constant) and first.value == 1 and isinstance(axes, ast.Call) and len(axes.args) > 1


def _adds_a_mask(call: ast.Call) -> bool:
    """Tell whether nothing but a mask is added, going by its name."""
    parts = [*call.args[:1], *(k.value for k in call.keywords[:1])][:1]
    if isinstance(call.func, ast.Attribute) and not parts:
        parts = [call.func.value]
    roots = {n.value for part in parts for n in ast.walk(part) if isinstance(n, ast.Attribute)}
    names = [n for part in parts for n in ast.walk(part) if isinstance(n, ast.Name) and n not in roots]
    return bool(names) and all(_A_MASK.search(n.id) for n in names)


def _below(node: ast.AST) -> Iterable[ast.AST]:
    return (n for n in ast.walk(node) if n is not node)


def _stored(target: ast.AST) -> frozenset[str]:
    return frozenset(n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def _loaded(expr: ast.AST) -> frozenset[str]:
    """Name what an expression reads, but the models whose weights it reads, or the losses that these give."""
    held = (n for n in ast.walk(expr) if isinstance(n, ast.Attribute) and n.attr in _WEIGHTS)
    roots = {inner for one in held for inner in ast.walk(one)}
    names = (n for n in ast.walk(expr) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
    return frozenset(n.id for n in names if n not in roots)


def _is_size(node: ast.AST) -> bool:
    """Tell whether a size is asked for: ``tf.shape(x)[0]``, ``x.shape``, ``len(x)``."""
    if isinstance(node, ast.Attribute):
        return node.attr in ("shape", "ndim")
    return isinstance(node, ast.Call) and called_name(node) in ("shape", "size", "len", "int_shape", "get_shape")


def shortened(expr: ast.expr, longest: int = 60) -> str:
    """Write an expression for a sentence, cut after so many characters."""
    written = ast.unparse(expr)
    return written if len(written) <= longest else f"{written[: longest - 1]}…"
