"""Other trainings in the cell: those of the same model accumulate too, and those of another do not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.batch.search import find_in_call
from tf_mem_magic.notebook.follow.calls import argument_exprs
from tf_mem_magic.notebook.follow.may_train import infers
from tf_mem_magic.notebook.follow.reader import Reader, Unknown
from tf_mem_magic.notebook.optimizers import optimizer_given
from tf_mem_magic.notebook.scopes import position
from tf_mem_magic.notebook.text.ranges import CellEdit
from tf_mem_magic.notebook.uses import FITS, called_name
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.accumulate_gradients.gradient_loop import find_gradient_loop, runs
from tf_mem_magic.remedies.accumulate_gradients.owners import owners_of
from tf_mem_magic.remedies.smaller_batch.asked import failing_lines
from tf_mem_magic.remedies.smaller_batch.later_fits import is_on, root_of

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_TRAIN = (*FITS, "train_on_batch")
_MAY_TRAIN = re.compile(r"(?i)train|optimi|(?:^|_)fit|step(?!s)|backprop|learn|update(?!_state)")
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def check_other_trainings(ask: Ask, found: BatchFound, edits: Iterable[CellEdit]) -> None:
    """Refuse where the cell trains the model once more, by batches that the edit does not make smaller.

    So where it trains another model by the batches that become smaller: that one would update at each of them.
    ``edits`` let the optimizer accumulate: what has run before that updates at each batch.

    Raises
    ------
    RefusedError
        If such a training is there, and no ``compile`` stands between the two.
    """
    call = found.call
    reader = Reader(ask.cell, ask.facts, failing_lines(ask))
    begin = min((edit.start for edit in edits), default=0)
    if call is None:
        _check_beside_loop(ask, reader, found, begin)
        return
    for other in _same_model(reader, call):
        if ask.cell.end(other) <= begin and not _in_one_loop(reader, other, call):
            continue
        its = find_in_call(reader, other) if called_name(other) in FITS else None
        if isinstance(its, BatchFound) and its.value == found.value and set(its.slots) <= set(found.slots):
            continue
        raise RefusedError(
            f"`{_written(other)}` trains in {ask.cell.told(other)} too, with batches that would stay as they are: "
            "accumulated, they would make larger ones"
        )
    for other in _of_other_models(reader, call):
        if _shares(reader, found, other):
            raise _would_not(ask, other)
    for function, other in _called_besides(reader, call):
        with reader.entering(function, other):
            its = find_in_call(reader, call)
        if not isinstance(its, BatchFound) or its.value != found.value or not set(its.slots) <= set(found.slots):
            raise RefusedError(
                f"`{function.name}` is called in {ask.cell.told(other)} too, with batches that would stay as they are: "
                "accumulated, they would make larger ones"
            )


def _called_besides(reader: Reader, call: ast.Call) -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    """Yield the other calls of the functions in which ``call`` stands: the error did not go through them."""
    for function in reader.scopes.up(call):
        if isinstance(function, ast.FunctionDef):
            for other in reader.calls_of(function.name):
                if reader.lines and not reader.covers(other) and function not in set(reader.scopes.up(other)):
                    yield function, other


def serves_only(reader: Reader, made: ast.AST, call: ast.Call) -> bool:
    """Tell whether an optimizer that the cell makes trains nothing but what ``call`` trains.

    One that a function makes is another one each time, for whoever calls it: a second model, a tuner.
    """
    around = set(reader.scopes.up(call))
    owners = [one for one in reader.scopes.up(made) if isinstance(one, _DEFINED) and one not in around]
    names = [one.name for one in owners if not isinstance(reader.scopes.parents.get(one), ast.ClassDef)]
    return all(_is_called_once(reader, name, call) for name in names)


def _is_called_once(reader: Reader, name: str, call: ast.Call) -> bool:
    loads = [n for n in reader.nodes if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]
    above = reader.scopes.parents.get(loads[0]) if len(loads) == 1 else None
    if not isinstance(above, ast.Call) or above.func is not loads[0]:
        return False
    repeated = (*_LOOPS, ast.ListComp, ast.GeneratorExp, ast.DictComp)
    around = set(reader.scopes.up(call))
    return all(loop in around for loop in reader.scopes.up(above) if isinstance(loop, repeated))


def _would_not(ask: Ask, other: ast.Call) -> RefusedError:
    return RefusedError(
        f"`{_written(other)}` trains in {ask.cell.told(other)} by the same batches, and would not accumulate: it would "
        "be updated more often, each time by fewer samples"
    )


def _check_beside_loop(ask: Ask, reader: Reader, found: BatchFound, begin: int) -> None:
    """Refuse where something else trains by the batches of the loop that failed, and would not accumulate.

    So where its optimizer, which accumulates from ``begin`` on, trains by other batches too.
    """
    loop = find_gradient_loop(reader, ask.names, found.value)
    own = owners_of(reader, loop.call)
    changed = _follow_the_batch(ask, found)
    for other in reader.calls_of(*_TRAIN, "apply_gradients", "minimize"):
        if other is loop.call or not _written(other):
            continue
        tops = [s for s in ask.cell.tree.body if not isinstance(s, _DEFINED) and runs(s, other, ask.cell.tree)]
        shares = any(isinstance(n, ast.Name) and n.id in changed for top in tops for n in ast.walk(top))
        its = owners_of(reader, other)
        if not own & its:
            if shares:
                raise _would_not(ask, other)
        elif ask.cell.end(other) > begin and not _draws(reader, other, changed, found):
            raise RefusedError(
                f"`{min(own & its)}` trains in {ask.cell.told(other)} too, with batches that would stay as they are: "
                "accumulated, they would make larger ones"
            )
    for other, name in _handed_to_others(reader, own):
        raise RefusedError(
            f"`{reader.written(other.func)}` of an earlier cell may train with `{name}` in {ask.cell.told(other)} too, "
            "by batches that would stay as they are"
        )
    for other in _may_train_beside(reader):
        raise RefusedError(
            f"`{reader.written(other.func)}` in {ask.cell.told(other)} may train by the same batches too, and what it "
            "does is not known: it would not accumulate"
        )


def _handed_to_others(reader: Reader, own: set[str]) -> Iterator[tuple[ast.Call, str]]:
    """Yield the calls of an earlier cell's functions that get the loop's optimizer, and may train with it."""
    for call in (n for n in reader.nodes if isinstance(n, ast.Call) and not reader.covers(n)):
        given = {reader.written(one) for one in (*call.args, *(k.value for k in call.keywords))} & own
        function = reader.notebook.function(called_name(call)) if given else None
        if function is not None and function.is_earlier and _TRAINS.search(function.cell.text(function.node)):
            yield call, min(given)


_TRAINS = re.compile(r"apply_gradients|minimize|\bfit\w*\(|\bcompile\(|train_on_batch")


def _draws(reader: Reader, call: ast.Call, changed: set[str], found: BatchFound) -> bool:
    """Tell whether a call stands in a loop over what the edit makes smaller, or in the one that failed."""
    scope = reader.scopes.scope_of(call)
    loops = [n for n in reader.scopes.up(call) if isinstance(n, _LOOPS) and reader.scopes.scope_of(n) is scope]
    if not loops or reader.covers(loops[0]):
        return bool(loops)
    inside = [n for loop in loops for n in ast.walk(loop)]
    first, last = reader.cell.start(loops[-1]), reader.cell.end(loops[-1])
    return any(isinstance(n, ast.Name) and n.id in changed for n in inside) or any(
        first <= slot.start < last for slot in found.slots
    )


def _may_train_beside(reader: Reader) -> Iterator[ast.Call]:
    """Yield the calls beside the training, in its loop, that get the batch or a model and may train by their name."""
    own = {n.name for n in reader.nodes if isinstance(n, ast.FunctionDef) and reader.covers(n)}
    loops = [n for n in reader.nodes if isinstance(n, (ast.For, ast.AsyncFor))]
    loops = [n for n in loops if reader.covers(n)] or [n for n in loops if _calls_any(n, own)]
    loop = max(loops, key=lambda n: n.lineno, default=None)
    if loop is None:
        return
    batch = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
    for call in (n for n in ast.walk(loop) if isinstance(n, ast.Call) and not reader.covers(n)):
        given = [one.id for one in (*call.args, *(k.value for k in call.keywords)) if isinstance(one, ast.Name)]
        if called_name(call) in own:
            continue
        fed = any(name in batch or reader.facts.model(name) is not None for name in given)
        if fed and _MAY_TRAIN.search(called_name(call)) and infers(reader, [call]) is None:
            yield call


def _calls_any(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(n, ast.Call) and called_name(n) in names for n in ast.walk(node))


def _follow_the_batch(ask: Ask, found: BatchFound) -> set[str]:
    """Name what the edit sets, and what is made of that: the size, datasets of it, functions that make them."""
    names = set(found.names)
    for statement in ask.cell.tree.body:
        first, last = ask.cell.start(statement), ask.cell.end(statement)
        sets = any(first <= slot.start < last for slot in found.slots)
        reads = any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(statement))
        if (sets or reads) and isinstance(statement, _DEFINED):
            names.add(statement.name)
        elif (sets or reads) and isinstance(statement, (ast.Assign, ast.AnnAssign)):
            names |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


def _of_other_models(reader: Reader, call: ast.Call) -> Iterator[ast.Call]:
    """Yield the calls that train another model than ``call``, in functions that the cell calls too.

    What a function calls by its own name may be any: it is what callers give it.
    """
    home = reader.scopes.scope_of(call)
    for other in reader.calls_of(*_TRAIN):
        if other is call or is_on(reader, other, call) or not isinstance(other.func, ast.Attribute):
            continue
        scope = reader.scopes.scope_of(other)
        called = isinstance(scope, ast.FunctionDef) and bool(reader.calls_of(scope.name))
        if scope is home or (called and not _given(reader, other) & _given(reader, call)):
            yield other


def _given(reader: Reader, call: ast.Call) -> set[str]:
    """Write what a method is called on as the callers of its function call it; a name of its own as it is."""
    root = root_of(call)
    chosen = reader.reaching(root) if isinstance(root, ast.Name) else None
    if chosen is None or chosen.kind != "param":
        return {_written(call)}
    exprs = argument_exprs(reader, chosen)
    return set() if isinstance(exprs, Unknown) else {reader.written(one) for one in exprs} | {_written(call)}


def _shares(reader: Reader, found: BatchFound, other: ast.Call) -> bool:
    """Tell whether a call computes on batches whose size the edit sets."""
    its = find_in_call(reader, other) if called_name(other) in FITS else None
    if isinstance(its, BatchFound):
        return bool(set(its.slots) & set(found.slots))
    return any(isinstance(n, ast.Name) and n.id in found.names for n in ast.walk(other))


def _written(call: ast.Call) -> str:
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _same_model(reader: Reader, call: ast.Call) -> Iterator[ast.Call]:
    """Yield the other calls that train what ``call`` trains, with the optimizer that it has there."""
    for other in reader.calls_of(*_TRAIN):
        if other is call or not is_on(reader, other, call):
            continue
        first, last = sorted((position(call), position(other)))
        if keeps_its_optimizer(reader, call, first, last):
            yield other


def keeps_its_optimizer(reader: Reader, call: ast.Call, first: tuple[int, int], last: tuple[int, int]) -> bool:
    """Tell whether a model may have the same optimizer at two places: no ``compile`` between them gives it another."""
    between = (c for c in reader.calls_of("compile") if first < position(c) < last and is_on(reader, c, call))
    return all(_may_keep_its_optimizer(reader, one, first) for one in between)


def _may_keep_its_optimizer(reader: Reader, compiled: ast.Call, since: tuple[int, int]) -> bool:
    """Tell whether ``compile`` may give a model the optimizer that it had at a place before: a name holds it."""
    given = optimizer_given(compiled)
    if not isinstance(given, ast.Name):
        return False
    return not any(since < position(one.node) < position(compiled) for one in reader.bindings(given))


def _in_one_loop(reader: Reader, one: ast.Call, other: ast.Call) -> bool:
    loops = [{n for n in reader.scopes.up(call) if isinstance(n, _LOOPS)} for call in (one, other)]
    return bool(loops[0] & loops[1])
