"""A training loop of one's own: the one place where it takes gradients and applies them."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.follow.behind import behind, failing_names
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.origins import KerasNames
from tf_mem_magic.notebook.uses import called_name
from tf_mem_magic.remedies.accumulate_gradients.means import Means
from tf_mem_magic.remedies.accumulate_gradients.turns import check_turns


@dataclass(frozen=True, slots=True)
class GradientLoop:
    """The ``apply_gradients`` call of a loop, the name of its optimizer, and the top-level statement that trains."""

    call: ast.Call
    optimizer: ast.Name
    top: ast.stmt


def find_gradient_loop(reader: Reader, names: KerasNames, batch: int) -> GradientLoop:
    """Find the loop that failed, where its gradients reach one optimizer unchanged, from a mean over ``batch`` samples.

    Raises
    ------
    RefusedError
        If the cell has no such loop, with the reason.
    """
    tree = reader.cell.tree
    nodes = [node for part in _running(reader) for node in ast.walk(part)]
    calls = [n for n in nodes if isinstance(n, ast.Call)]
    tapes = [c for c in calls if called_name(c) == "GradientTape"]
    applied = [c for c in calls if called_name(c) == "apply_gradients"]
    taken = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "gradient"]
    if len(tapes) != 1 or len(applied) != 1 or len(taken) != 1:
        raise RefusedError(_why_not_one(reader, taken, applied))
    func = applied[0].func
    if not isinstance(func, ast.Attribute) or not isinstance(func.value, ast.Name):
        raise RefusedError("the loop's optimizer is not a plain name")
    if reader.scopes.scope_of(applied[0]) is not reader.scopes.scope_of(taken[0]):
        where = reader.cell.told(taken[0])
        raise RefusedError(
            f"the gradients of {where} reach the optimizer through another function, and are not followed"
        )
    if applied[0].args and _is_taken(reader, applied[0].args[0], taken[0]):
        what = "gradients that are not zipped with their weights"
        raise RefusedError(f"`{func.value.id}` is handed {what}: it is no optimizer of Keras")
    if not _unchanged(reader, applied[0], taken[0]):
        raise RefusedError(
            "the gradients are changed between the tape and the optimizer, which must see the whole batch"
        )
    if not Means(reader, names, batch).gives(taken[0].args[0] if taken[0].args else None):
        raise RefusedError("it is not certain that the loop's loss is a mean over the batch")
    if any(isinstance(n, (ast.Name, ast.Attribute)) and "accum" in _last_part(n) for n in reader.nodes):
        raise RefusedError("the loop seems to accumulate gradients already")
    check_turns(reader, applied[0], taken[0], _running(reader))
    tops = [s for s in tree.body if not isinstance(s, _DEFINITIONS) and runs(s, applied[0], tree)]
    if len(tops) > 1:
        raise RefusedError(f"{reader.cell.told(*tops)} run the same training step, each by batches of its own")
    if not tops:
        raise RefusedError("the statement that runs the loop was not found in the cell")
    return GradientLoop(applied[0], func.value, tops[0])


def _why_not_one(reader: Reader, taken: list[ast.Call], applied: list[ast.Call]) -> str:
    """Say what the failing code has instead of one update from the gradients of one tape."""
    if len(applied) > 1:
        where = reader.cell.told(*applied)
        return f"the weights are updated in {where}, and which of them make one update is not known"
    of_inputs = [call for call in taken if not _of_weights_of(call)]
    if len(applied) == 1 and len(taken) > 1 and of_inputs:
        return (
            f"the loss is computed of gradients too (in {reader.cell.told(of_inputs[0])}), as a penalty: whether parts "
            "of a batch average to the whole is not known"
        )
    return "the cell has no training loop with one GradientTape and one apply_gradients"


def _of_weights_of(taken: ast.Call) -> bool:
    """Tell whether a tape is asked for the gradients of weights: ``model.trainable_variables``, or a list of them."""
    given = [*taken.args[1:2], *(k.value for k in taken.keywords if k.arg == "sources")]
    words = {n.attr if isinstance(n, ast.Attribute) else n.id for one in given for n in ast.walk(one)
             if isinstance(n, (ast.Attribute, ast.Name))}  # fmt: skip
    return any(word.endswith(("variables", "weights", "params", "vars")) for word in words)


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _last_part(node: ast.Name | ast.Attribute) -> str:
    return (node.id if isinstance(node, ast.Name) else node.attr).lower()


def _running(reader: Reader) -> list[ast.stmt]:
    """List the statements that failed and the cell's functions that they reach; without a known line, the cell's."""
    body = reader.cell.tree.body
    functions = {s.name: s for s in body if isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef))}
    found = [s for s in body if reader.covers(s)]
    if not found:
        return list(body)
    queue = list(found)
    while queue:
        called = _calls(queue.pop())
        news = [functions[name] for name in sorted(called & functions.keys()) if functions[name] not in found]
        found += news
        queue += news
    return found


def traced_before(reader: Reader) -> bool:
    """Tell whether the failing statements run a ``tf.function`` of an earlier cell that trains, as it was traced.

    It holds the training itself, or calls a function that this cell defines anew.
    """
    own = {s.name for s in reader.cell.tree.body if isinstance(s, _DEFINITIONS)}
    for piece in behind(reader, failing_names(reader)):
        if piece.cell is reader.cell or not _is_staged(piece.statement):
            continue
        if piece.words & own or any(called_name(c) in _TRAINS for c in _all_calls(piece.statement)):
            return True
    return False


_TRAINS = ("apply_gradients", "GradientTape")


def _is_staged(statement: ast.stmt) -> bool:
    decorators = getattr(statement, "decorator_list", [])
    return any("function" in ast.unparse(d) for d in decorators) or any(
        ast.unparse(call.func).endswith("tf.function") for call in _all_calls(statement)
    )


def _all_calls(node: ast.AST) -> list[ast.Call]:
    return [n for n in ast.walk(node) if isinstance(n, ast.Call)]


def _unchanged(reader: Reader, applied: ast.Call, taken: ast.Call) -> bool:
    """Whether ``apply_gradients(zip(gradients, ...))`` gets exactly what the tape gave."""
    named_so = next((k.value for k in applied.keywords if k.arg == "grads_and_vars"), None)
    zipped = applied.args[0] if applied.args else named_so
    if isinstance(zipped, ast.Name):
        named = reader.reaching(zipped)
        zipped = named.value if named is not None else None
    if not isinstance(zipped, ast.Call) or called_name(zipped) != "zip" or not zipped.args:
        return False
    return _is_taken(reader, zipped.args[0], taken)


def _is_taken(reader: Reader, given: ast.expr, taken: ast.Call) -> bool:
    """Whether ``given`` is what the tape gave, also by its name."""
    if isinstance(given, ast.Name):
        found = reader.reaching(given)
        return found is not None and found.value is taken and not _is_set_in_place(reader, given)
    return given is taken


def _is_set_in_place(reader: Reader, name: ast.Name) -> bool:
    """Tell whether entries of a list are set, or others put in: ``grads[0] = …``, ``grads.append(…)``."""
    home = reader.scopes.home(name)
    for node in reader.nodes:
        if not isinstance(node, ast.Name) or node.id != name.id or reader.scopes.home(node) is not home:
            continue
        above = reader.scopes.parents.get(node)
        if isinstance(above, ast.Subscript) and not isinstance(above.ctx, ast.Load):
            return True
        if isinstance(above, ast.Attribute) and above.attr in ("append", "extend", "insert", "pop", "reverse"):
            return True
    return False


def runs(statement: ast.stmt, applied: ast.Call, tree: ast.Module) -> bool:
    """Whether running the loop reaches ``applied``, itself or through functions of the cell."""
    holders = {applied}
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    wanted: set[str] = set()
    for _ in functions:
        wanted |= {f.name for f in functions if holders & set(ast.walk(f)) or _calls(f) & wanted}
    return applied in set(ast.walk(statement)) or bool(_calls(statement) & wanted)


def _calls(node: ast.AST) -> set[str]:
    return {called_name(n) for n in ast.walk(node) if isinstance(n, ast.Call)}
