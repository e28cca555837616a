"""What each turn of a loop does beside its update: at each smaller batch it would do it too, with other weights."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.counts import counters_of
from tf_mem_magic.notebook.batch.means.comprehensions import COMPREHENSIONS
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.scopes import Scopes, arguments, position
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.accumulate_gradients.carried import carried
from tf_mem_magic.remedies.accumulate_gradients.sums import shortened

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_RATES = ("learning_rate", "lr")
_SETS = frozenset("assign assign_sub set_weights load_weights".split())
_NUMBERS = frozenset("min max float int cast constant minimum maximum exp cos sin sqrt clip clip_by_value abs".split())


def check_turns(reader: Reader, applied: ast.Call, taken: ast.Call, reached: Sequence[ast.AST]) -> None:
    """Refuse where a turn of the loop does more than one plain update by its batch.

    ``reached`` are the statements that failed and the functions of the cell that they call; ``applied`` hands the
    gradients that ``taken`` gives to the optimizer.
    """
    sites = list(_sites(reader, applied, reached))
    if not any(_loop_of(reader, site) for site in sites):
        sites = list(_sites(reader, applied, [reader.cell.tree]))
    loops = {loop for site in sites for loop in [_loop_of(reader, site)] if loop is not None}
    if len(loops) > 1 or (loops and len(sites) > 1):
        where = reader.cell.told(*sites)
        raise RefusedError(f"the weights are updated in {where}, and which of them make one update is not known")
    if not loops:
        _check_nodes(reader, [node for one in reached if isinstance(one, _FUNCTIONS) for node in ast.walk(one)])
        return
    (loop,), (site,) = loops, sites
    if _repeats(reader, loop, site):
        raise RefusedError(f"the loop in {reader.cell.told(loop)} updates the weights more than once by a batch")
    for at in (site, applied):
        test = _condition(reader, at, loop)
        if test is not None:
            raise RefusedError(
                f"not each batch makes an update: {reader.cell.told(test)} decides by `{shortened(test)}`"
            )
    _check_nodes(reader, _of_a_turn(reader, loop))
    read = next(moved(reader, taken, site, loop), None)
    if read is not None:
        raise RefusedError(f"the loss reads `{read}`, which changes from turn to turn, and there would be more turns")


def moved_by_steps(reader: Reader) -> str:
    """Name what the loss of the cell's one loop reads that is another in each turn; empty where there is none."""
    taken = [c for c in reader.calls_of("gradient") if isinstance(c.func, ast.Attribute)]
    sites = list(_sites(reader, taken[0], [reader.cell.tree])) if len(taken) == 1 else []
    loop = _loop_of(reader, sites[0]) if len(sites) == 1 else None
    return "" if loop is None else next(moved(reader, taken[0], sites[0], loop), "")


def moved(reader: Reader, taken: ast.Call, site: ast.Call, loop: ast.For | ast.AsyncFor | ast.While) -> Iterator[str]:
    """Yield what is read where the gradients are computed, and is another in each turn beside the batch."""
    yield from _read_by_step(reader, taken, site, loop)
    yield from carried(reader, taken, site, loop, [loop, *_of_a_turn(reader, loop)])


def _check_nodes(reader: Reader, nodes: Sequence[ast.AST]) -> None:
    """Refuse where what runs in each turn sets the rate or weights."""
    for node in nodes:
        if sets_rate(node):
            raise RefusedError("the loop sets the learning rate itself")
        if isinstance(node, ast.Call) and _sets_weights(node):
            raise RefusedError(
                f"each turn calls `{shortened(node.func)}` in {reader.cell.told(node)}, which parts of a batch would "
                "do once each"
            )


def _of_a_turn(reader: Reader, loop: ast.For | ast.AsyncFor | ast.While) -> list[ast.AST]:
    """List what runs in each turn: the loop's nodes, and those of the cell's functions that it calls."""
    own = {one.name: one for one in reader.nodes if isinstance(one, _FUNCTIONS)}
    found = [node for statement in loop.body for node in ast.walk(statement)]
    for node in found:
        if isinstance(node, ast.Name) and node.id in own:
            found += ast.walk(own.pop(node.id))
    return found


def _sites(reader: Reader, applied: ast.Call, reached: Sequence[ast.AST]) -> Iterator[ast.Call]:
    """Yield where the update stands: itself, or the calls of the function that makes it, in loops of the cell."""
    queue, seen = [applied], {applied}
    within = {node for one in reached for node in ast.walk(one)}
    while queue:
        call = queue.pop()
        function = next((up for up in reader.scopes.up(call) if isinstance(up, _FUNCTIONS)), None)
        if function is None or _loop_of(reader, call) is not None:
            yield call
            continue
        handed = [c for c in reader.calls_of("run", "experimental_run_v2") if _is_handed(c, function.name)]
        for other in (*reader.calls_of(function.name), *handed):
            if other in within and other not in seen:
                seen.add(other)
                queue.append(other)


def _is_handed(call: ast.Call, name: str) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id == name


def _loop_of(reader: Reader, node: ast.AST) -> ast.For | ast.AsyncFor | ast.While | None:
    """Give the innermost loop around a node in its own function."""
    for up in reader.scopes.up(node):
        if isinstance(up, _LOOPS):
            return up
        if isinstance(up, (*_FUNCTIONS, *COMPREHENSIONS, ast.Lambda)):
            return None
    return None


def _repeats(reader: Reader, loop: ast.stmt, site: ast.Call) -> bool:
    """Tell whether the innermost loop draws no batch: what the update computes with is set outside it."""
    outer = _loop_of(reader, loop)
    if outer is None or isinstance(loop, ast.While):
        return False
    assert isinstance(loop, (ast.For, ast.AsyncFor))
    drawn = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
    counts = isinstance(loop.iter, ast.Call) and called_name(loop.iter) in ("range", "trange")
    if not counts:
        return False
    inside = [n for statement in loop.body for n in ast.walk(statement)]
    drawn |= {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    given = [n for a in (*site.args, *(k.value for k in site.keywords)) for n in ast.walk(a)]
    names = {n.id for n in given if isinstance(n, ast.Name)}
    return bool(names) and not names & drawn and not any(isinstance(n, ast.Call) for n in given)


def _condition(reader: Reader, node: ast.AST, loop: ast.stmt) -> ast.expr | None:
    """Find a test by what a turn has, or counts, that decides whether it updates."""
    tests: list[ast.expr] = []
    for up in reader.scopes.up(node):
        if isinstance(up, ast.If):
            tests.append(up.test)
        if isinstance(up, _LOOPS):
            inside = (one for statement in up.body for one in ast.walk(statement) if isinstance(one, ast.If))
            leaves = (one for one in inside if any(isinstance(n, ast.Continue) for n in one.body))
            tests += [one.test for one in leaves if position(one) < position(node)]
        if up is loop or isinstance(up, _FUNCTIONS):
            break
    return next((test for test in tests if not _is_plain(test)), None)


def _is_plain(test: ast.expr) -> bool:
    """Tell whether a test is of a flag, and not of what a turn has: ``training``, ``mode == 'train'``."""
    test = test.operand if isinstance(test, ast.UnaryOp) else test
    if isinstance(test, ast.Compare):
        constants = [isinstance(n, ast.Constant) and not isinstance(n.value, (int, float)) for n in test.comparators]
        return all(constants) and isinstance(test.left, (ast.Name, ast.Attribute))
    return isinstance(test, (ast.Name, ast.Attribute, ast.Constant))


def sets_rate(node: ast.AST) -> bool:
    """Tell whether code sets the rate of an optimizer, in whichever way."""
    if isinstance(node, ast.Attribute) and node.attr in _RATES:
        return not isinstance(node.ctx, ast.Load)
    if not isinstance(node, ast.Call):
        return False
    if called_name(node) in ("setattr", "set_value"):
        return any(
            (isinstance(a, ast.Constant) and a.value in _RATES) or (isinstance(a, ast.Attribute) and a.attr in _RATES)
            for a in node.args[:2]
        )
    held = node.func.value if isinstance(node.func, ast.Attribute) else None
    return called_name(node).startswith("assign") and isinstance(held, ast.Attribute) and held.attr in _RATES


def _sets_weights(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr == "apply":  # a moving average of TensorFlow
        return any(word in ast.unparse(call.func.value).lower() for word in ("ema", "average"))
    return call.func.attr in _SETS


def _changing(scopes: Scopes, loop: ast.stmt) -> set[str]:
    """Name the numbers that each turn changes: its counter, what it adds to, and what is computed of these."""
    assert isinstance(loop, _LOOPS)
    found = counters_of(scopes, loop)
    inside = [n for statement in loop.body for n in ast.walk(statement)]
    for node in inside:
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    begun = (t for n in inside if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name))
    found -= {t.id for t in begun}
    for node in inside:
        if not isinstance(node, ast.Assign) or not _is_number(node.value):
            continue
        if any(isinstance(n, ast.Name) and n.id in found for n in ast.walk(node.value)):
            found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return found


def _is_number(value: ast.expr) -> bool:
    computed = isinstance(value, ast.BinOp) or (isinstance(value, ast.Call) and called_name(value) in _NUMBERS)
    return computed and not any(isinstance(n, ast.Subscript) for n in ast.walk(value))


def _read_by_step(reader: Reader, taken: ast.Call, site: ast.Call, loop: ast.stmt) -> Iterator[str]:
    """Yield what of the changing numbers is read where the gradients are computed, also as a parameter."""
    changing = _changing(reader.scopes, loop)
    function = next((up for up in reader.scopes.up(taken) if isinstance(up, _FUNCTIONS)), None)
    handed = set[str]()
    if function is not None and called_name(site) == function.name:
        given = [*zip((a.arg for a in arguments(function.args)), site.args), *((k.arg, k.value) for k in site.keywords)]
        handed = {name for name, value in given if name and isinstance(value, ast.Name) and value.id in changing}
    scope, outside = reader.scopes.scope_of(taken), reader.scopes.scope_of(loop)
    blocks = (n for n in ast.walk(scope) if isinstance(n, ast.With))
    taped = (b for b in blocks if any("GradientTape" in ast.unparse(item.context_expr) for item in b.items))
    for node in (n for block in taped for statement in block.body for n in ast.walk(statement)):
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        names = changing if reader.scopes.home(node) is outside else handed
        if node.id in names and not any(
            isinstance(up, (ast.Subscript, ast.JoinedStr)) for up in reader.scopes.up(node)
        ):
            yield node.id
