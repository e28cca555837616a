"""What a run that failed had already changed: said before the cell runs again."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.outcome import Change
from tf_mem_magic.notebook.earlier import earlier_cells
from tf_mem_magic.notebook.read_first import assigned_names, read_first_names
from tf_mem_magic.notebook.rerun.effects import dotted, effects_of
from tf_mem_magic.notebook.text.cell import parse, walk

__all__ = ["assigned_names", "find_changes"]

_CHANGERS = {"append", "extend", "insert", "pop", "popitem", "popleft", "appendleft", "remove", "clear", "update"}
_CHANGERS |= {"sort", "reverse", "setdefault", "discard", "add", "assign_add", "assign_sub"}
_MODULES = {"os", "sys", "np", "numpy", "pd", "tf", "tensorflow", "keras", "plt", "random", "shutil", "torch", "jax"}
_SHUFFLERS = {"np.random.shuffle", "numpy.random.shuffle", "random.shuffle"}


def find_changes(source: str, facts: Facts, reached: int | None = None) -> tuple[Change, ...]:
    """List what the run of ``source`` left behind and a rerun would meet, as sentences for the user.

    Parameters
    ----------
    source : str
        The cell as it ran.
    facts : Facts
        Read after the run: the models with their steps.
    reached : int, optional
        The line of the cell that failed (the first being 1): what stands below it did not run.
    """
    return (
        *_steps(facts),
        *_read_once(source, facts, reached),
        *_rebound(source, reached),
        *_in_place(source, facts, reached),
        *_files(source, reached),
    )


def _steps(facts: Facts) -> Iterator[Change]:
    for model in facts.models:
        if model.steps_before is None or model.steps <= model.steps_before:
            continue
        taken = model.steps - model.steps_before
        count = "1 training step" if taken == 1 else f"{taken} training steps"
        did = f"took {count} in it"
        if taken == 1 and facts.steps_done == 0:
            # The optimizer counts a step as it begins, and updates each weight as soon as its gradient is there.
            did = "began a training step in it, which may have changed some weights"
        elif facts.steps_done is None and facts.epochs_done is None:
            # Where a loop of one's own failed nothing tells whether that was in the step that is counted last.
            did += ", which may not have ended" if taken == 1 else ", the last of which may not have ended"
        text = f"`{model.name}` existed before this cell and {did}: a rerun goes on from there."
        yield Change("steps", model.name, text)


def _read_once(source: str, facts: Facts, reached: int | None) -> Iterator[Change]:
    """Find generators of earlier cells that the run may have drawn from."""
    read = {name for statement in _executed(parse(source), reached) for name in _names_in(statement)}
    for data in facts.datasets:
        if data.kind == "generator" and not data.is_new and data.name in read:
            text = f"`{data.name}` is a generator, which can be read only once: a rerun gets what is left of it."
            yield Change("read-once", data.name, f"{text} Run the cell that makes it first.")


def _rebound(source: str, reached: int | None) -> Iterator[Change]:
    """Find names that the cell computes from their own earlier value: ``x = x / 255``, ``n += 1``."""
    tree = parse(source)
    earlier = read_first_names(source)
    for statement in _executed(tree, reached):
        if reached is not None and statement.lineno <= reached and not _ended_before(statement, reached):
            continue
        for name in _computed_from_itself(statement):
            if name in earlier:
                earlier = earlier - {name}
                text = f"`{name}` was set anew from its own value: a rerun does that to the changed value."
                yield Change("reassigned", name, text)


def _in_place(source: str, facts: Facts, reached: int | None) -> Iterator[Change]:
    """Find earlier names whose value the cell changes in place: ``lst.append(...)``, ``x[:] /= 255``."""
    tree = parse(source)
    rebound = {name for s in _executed(tree, None) for name in _computed_from_itself(s)}
    earlier = read_first_names(source) - rebound - _MODULES
    surely: dict[str, bool] = {}
    rounds = _in_rounds(tree, reached)
    for statement in _executed(tree, reached):
        done = reached is None or (statement.end_lineno or statement.lineno) < reached
        if not done and statement not in rounds:
            continue  # it failed before it changed anything, or was not reached
        for name in _changed_in_place(statement):
            if name in earlier and not _is_imported(name, facts.earlier_cells):
                surely[name] = surely.get(name, False) or done
    for name, was in surely.items():
        text = f"`{name}` {'was' if was else 'may have been'} changed in place: a rerun changes it once more."
        yield Change("reassigned", name, text)


def _in_rounds(tree: ast.Module | None, reached: int | None) -> frozenset[ast.AST]:
    """Give what an earlier round of a loop that failed may have executed: all that stands in such loops."""
    found: set[ast.AST] = set()
    if tree is None or reached is None:
        return frozenset()
    for node in walk(tree):
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)) and node not in found:
            found |= set(walk(node)) if node.lineno < reached <= (node.end_lineno or 0) else set()
    return frozenset(found)


def _files(source: str, reached: int | None) -> Iterator[Change]:
    said: set[str] = set()
    for effect in effects_of(source):
        if effect.kind not in ("writes", "deletes") or (reached is not None and effect.line > reached):
            continue
        name = effect.name or "a file"
        if name in said:
            continue
        said.add(name)
        shown = name if " " in name else f"`{name}`"
        verb = "deleted" if effect.kind == "deletes" else "written"
        yield Change("file", name, f"The cell may have {verb} {shown}; a rerun may do so again.")


def _is_imported(name: str, cells: tuple[str, ...]) -> bool:
    nodes = (node for cell in earlier_cells(cells).importing(name) for node in cell.nodes)
    imports = (node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))
    return any((alias.asname or alias.name).partition(".")[0] == name for one in imports for alias in one.names)


def _executed(tree: ast.Module | None, reached: int | None) -> Iterator[ast.stmt]:
    """Yield the statements that running the cell executes, inside ``if``, loops and ``with`` too, but no functions.

    A statement of a loop that goes round may stand below the failing line and have run all the same.
    """
    for top in tree.body if tree is not None else ():
        if reached is not None and top.lineno > reached:
            return
        yield from _inside(top)


def _inside(statement: ast.stmt) -> Iterator[ast.stmt]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return
    yield statement
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(statement, field, ()):
            if isinstance(child, ast.stmt):
                yield from _inside(child)
            else:
                for inner in child.body:
                    yield from _inside(inner)


def _ended_before(statement: ast.stmt, line: int) -> bool:
    return (statement.end_lineno or statement.lineno) < line


def _computed_from_itself(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
    elif isinstance(statement, ast.Assign):
        read = _names_in(statement.value)
        for target in statement.targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name) and n.id in read and _stores(n))


def _changed_in_place(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, (ast.Subscript, ast.Attribute)):
        yield _root(statement.target)
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, (ast.Subscript, ast.Attribute)) and _root(target) in _names_in(statement.value):
                yield _root(target)
    elif isinstance(statement, ast.Delete):
        yield from (_root(t) for t in statement.targets if isinstance(t, ast.Subscript))
    if not isinstance(statement, (ast.Expr, ast.Assign)) or not isinstance(statement.value, ast.Call):
        return
    call = statement.value
    if isinstance(call.func, ast.Attribute) and call.func.attr in _CHANGERS:
        discards = isinstance(statement, ast.Expr) or call.func.attr in ("pop", "popitem", "popleft", "setdefault")
        if discards:
            yield _root(call.func)
    if any(k.arg == "inplace" and isinstance(k.value, ast.Constant) and k.value.value is True for k in call.keywords):
        yield _root(call.func)
    if dotted(call.func) in _SHUFFLERS and call.args:
        yield _root(call.args[0])


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _stores(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)
