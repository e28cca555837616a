"""Code of earlier cells, read as if this cell had it: the functions that it reaches, taken over where changed.

A notebook's training often lies in a function of an earlier cell, and the cell that fails only calls it. Defining that
function once more in front of the cell makes the same function, so a remedy may be asked about the cell with all such
functions in it; those that its edit leaves alone are taken out again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tf_mem_magic.core.facts import FunctionFacts
from tf_mem_magic.core.proposals import Context, Proposal
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.core.tag import dropped_lines
from tf_mem_magic.notebook.batch.fixed import FIXED_BATCH
from tf_mem_magic.notebook.bindings import assigned, evaluated_names
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython
from tf_mem_magic.notebook.text.ranges import first_statement, line_start
from tf_mem_magic.remedies._engine.combine import moved_context, moved_lines, split_lines

_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A cell with the functions of earlier cells in front: what remedies are asked with, and the blocks put in.

    ``led``: the error went through one of them.
    """

    context: Context
    blocks: tuple[tuple[FunctionFacts, str], ...]
    led: bool


def take_over(context: Context) -> TakenOver | None:
    """Give the cell with the functions of earlier cells that it reaches; None where there are none."""
    cell = read_cell(context.cell.source)
    if not context.recording.facts.functions or isinstance(cell, NotPython):
        return None
    functions = _called_by_name(context, cell)
    frames = [frame for error in context.recording.errors for frame in error.frames]
    led = any(_holds(function, frame) for function in functions for frame in frames)
    bound = {n.id for n in ast.walk(cell.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own = {s.name: s for s in cell.tree.body if isinstance(s, ast.FunctionDef)}
    added = _in_order([f for f in reversed(functions) if f.name not in own and f.name not in bound])
    blocks = tuple((f, "".join(f"{line}{cell.newline}" for line in (*split_lines(f.source), ""))) for f in added)
    at = _front(cell)
    if not added and not led:
        return None
    source = "".join((cell.source[:at], *(block for _, block in blocks), cell.source[at:]))
    if isinstance(read_cell(source), NotPython):
        return None
    return TakenOver(_context(context, cell, source, at, blocks, functions, own), blocks, led)


def put_back(taken: TakenOver, context: Context, proposal: Proposal, in_helpers: bool = False) -> Proposal | str:
    """Give a proposal for the cell with all functions as one for the cell itself, with those that must be new.

    New are functions that the edit changed, those that read what has changed when they are defined, and those that
    ``tf.function`` has traced: a trace keeps what its names held. A reason where they cannot be told apart, where code
    that cannot be seen reads what the edit sets, or where the failing model may not come from the function that is
    changed (``in_helpers``: what the edit changes may lie in any function that the cell runs).
    """
    facts = context.recording.facts
    news = _news(taken, proposal.source)
    if not _reaches_the_model(taken, context, news, in_helpers):
        changed = ", ".join(f"`{f.name}`" for f, _ in taken.blocks if f.name in news)
        return f"it would change {changed or 'a function'} of an earlier cell, and what failed may not come from it"
    kept = _kept(taken, news)
    source = _without(taken, proposal.source, kept)
    choices = [(choice, _without(taken, choice.source, kept)) for choice in proposal.choices]
    besides = sorted(news & set(facts.used_besides))
    if besides:
        return (
            f"code of an earlier cell, which this cell runs, reads `{besides[0]}` too, and would not follow the change"
        )
    if source is None or isinstance(read_cell(source), NotPython):
        return "the functions of earlier cells that it would change cannot be told apart"
    return replace(
        proposal,
        source=source,
        original=context.cell.source,
        choices=tuple(replace(choice, source=changed) for choice, changed in choices if changed is not None),
        undo="\n".join(code for code in (proposal.undo, *(f.source for f in kept)) if code),
        caveats=(*proposal.caveats, *_caveats(kept)),
        taken_over=tuple(f.source for f in kept),
    )


def _caveats(kept: Sequence[FunctionFacts]) -> tuple[str, ...]:
    if not kept:
        return ()
    are, it = ("is", "it") if len(kept) == 1 else ("are", "them")
    listed = ", ".join(f"`{function.name}`" for function in kept)
    return (f"{listed} of an earlier cell {are} defined anew in this cell; Undo sets {it} back.",)


def _front(cell: PythonCell) -> int:
    """Give where the cell's code begins: after its magics, its docstring and ``from __future__``."""
    first = first_statement(cell)
    at = line_start(cell, first)
    if first is cell.tree.body[0]:
        lines = split_lines(cell.source[:at])
        magics = [i for i, line in enumerate(lines) if line.startswith("%%")]
        return cell.starts[magics[-1] + 1] if magics else at
    return at


def _holds(function: FunctionFacts, frame: Frame) -> bool:
    count = len(split_lines(function.source))
    return not frame.in_cell and frame.file == function.file and 0 <= frame.line - function.line < count


def _context(
    context: Context,
    cell: PythonCell,
    source: str,
    at: int,
    blocks: Sequence[tuple[FunctionFacts, str]],
    functions: Iterable[FunctionFacts],
    own: Mapping[str, ast.FunctionDef],
) -> Context:
    old = split_lines(cell.source)
    above = len(split_lines(cell.source[:at])) - 1
    added = sum(len(split_lines(block)) - 1 for _, block in blocks)
    moved = moved_context(context, source, {n: n + added * (n > above) for n in range(1, len(old) + 1)})
    places: dict[tuple[str, int], int] = {}
    titles = list(moved.titles)
    line = above + 1
    for function, block in blocks:
        count, taken = len(split_lines(function.source)), len(split_lines(block)) - 1
        places.update({(function.file, function.line + i): line + i for i in range(count)})
        titles[line - 1 : line - 1 + taken] = [function.name] * taken
        line += taken
    for function in functions:
        if function.name in own:
            first = own[function.name].lineno + added
            there = split_lines(source)[first - 1 : (own[function.name].end_lineno or 0) + added]
            same = moved_lines(split_lines(function.source), there)
            places.update({(function.file, function.line + n - 1): first + m - 1 for n, m in same.items()})
    return _with_frames(replace(moved, titles=tuple(titles)), places)


def _with_frames(context: Context, places: Mapping[tuple[str, int], int]) -> Context:
    """Make the frames of functions that were taken over frames of the cell."""
    source, recording, diagnosis = context.cell.source, context.recording, context.diagnosis
    head = len(split_lines(source[: len(source) - len(source.lstrip())])) - 1
    dropped = dropped_lines(source)

    def here(frame: Frame, counted: int) -> Frame:
        line = None if frame.in_cell else places.get((frame.file, frame.line))
        return frame if line is None else replace(frame, line=line - head - counted, in_cell=True)

    errors = tuple(replace(e, frames=tuple(here(f, dropped) for f in e.frames)) for e in recording.errors)
    if diagnosis is not None:
        line = _innermost(recording.errors, errors)
        diagnosis = replace(
            diagnosis,
            line=diagnosis.line if line is None else line + dropped,
            frame=None if diagnosis.frame is None else here(diagnosis.frame, dropped),
        )
    known = recording.facts
    texts = list(known.earlier_cells)
    for function in known.functions:
        texts = [text.replace(function.source, "") for text in texts]
    besides = known.used_besides
    facts = replace(known, used=besides, read_elsewhere=besides, functions=(), earlier_cells=tuple(texts))
    return replace(context, recording=replace(recording, errors=errors, facts=facts), diagnosis=diagnosis)


def _innermost(before: Sequence[ErrorText], after: Sequence[ErrorText]) -> int | None:
    """Give the innermost line of the cell in the first error that went through a function taken over."""
    for old, new in zip(before, after):
        if old != new:
            return [frame.line for frame in new.frames if frame.in_cell][-1]
    return None


def _called_by_name(context: Context, cell: PythonCell) -> tuple[FunctionFacts, ...]:
    """Leave out functions that led to the error although the code that called them does not name them.

    Something else holds them (a callback, a compiled loss), and would go on with the old ones.
    """
    functions = context.recording.facts.functions
    head = cell.skipped + dropped_lines(context.cell.source)
    trees = {function.name: (ast.parse(function.source), function.line - 1) for function in functions}
    held: set[str] = set()
    for error in context.recording.errors:
        caller: tuple[ast.Module, int] | None = None
        for frame in error.frames:
            function = next((f for f in functions if _holds(f, frame)), None)
            enters = function is not None and frame.function == function.name  # not a comprehension in it
            if function is not None and enters and caller is not None and not _names(*caller, function.name):
                held.add(function.name)
            if frame.in_cell:
                caller = (cell.tree, frame.line + head)
            elif function is not None:
                tree, above = trees[function.name]
                caller = (tree, frame.line - above)
            elif frame.is_user:
                caller = None
    return tuple(function for function in functions if function.name not in held)


def _names(tree: ast.Module, line: int, name: str) -> bool:
    """Tell whether a statement on ``line`` reads ``name``."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or n.lineno)]
    last = max((n.lineno for n in nodes), default=0)
    innermost = [n for n in nodes if n.lineno == last]
    return any(isinstance(n, ast.Name) and n.id == name for statement in innermost for n in ast.walk(statement))


def _news(taken: TakenOver, source: str) -> set[str]:
    """Name what the edit sets anew: numbers in the cell's own lines, and functions that it changes."""
    now, before = assigned(source), assigned(taken.context.cell.source)
    changed = {f.name for f, _ in taken.blocks if _definition(source, f.name) != _plain(f.source)}
    return changed.union(*(now[text] for text in now.keys() - before.keys()))


def _kept(taken: TakenOver, news: set[str]) -> list[FunctionFacts]:
    """List the functions that must be defined anew."""
    kept: list[FunctionFacts] = []
    while True:
        names = news | {f.name for f in kept}
        more = [f for f, _ in taken.blocks if f not in kept and _must_be_new(f, names)]
        if not more:
            return [f for f, _ in taken.blocks if f in kept]
        kept += more


def _must_be_new(function: FunctionFacts, news: set[str]) -> bool:
    if function.name in news or function.staged:
        return True
    return bool(_evaluated(function) & news)


def _evaluated(function: FunctionFacts) -> set[str]:
    definition = ast.parse(function.source).body[0]
    return evaluated_names(definition) if isinstance(definition, ast.FunctionDef) else set()


def _in_order(functions: Sequence[FunctionFacts]) -> list[FunctionFacts]:
    """Put functions in an order in which each follows those that its defaults name."""
    left, ordered = list(functions), list[FunctionFacts]()
    while left:
        waiting = {function.name for function in left}
        free = [f for f in left if not _evaluated(f) & (waiting - {f.name})] or left
        ordered.append(free[0])
        left.remove(free[0])
    return ordered


def _reaches_the_model(taken: TakenOver, context: Context, news: set[str], in_helpers: bool) -> bool:
    """Tell whether what the edit changes in functions surely reaches the model that failed.

    A function on the way to the error does. One that was called before, and has returned, made what failed only where
    the cell calls it once and all models that the cell names are its own; the batch size may be set in any of them,
    unless a model is built for one batch size.
    """
    facts = context.recording.facts
    words = set(_WORD.findall(context.cell.source))
    earlier = [m for m in facts.models if not m.is_new and not m.local and words & set(_WORD.findall(m.name)[:1])]
    if in_helpers:
        return not (earlier and any(FIXED_BATCH.search(block) for _, block in taken.blocks))
    frames = [frame for error in context.recording.errors for frame in error.frames]
    changed = [f for f, _ in taken.blocks if f.name in news]
    returned = [f for f in changed if not any(_holds(f, frame) for frame in frames)]
    loads = [n.id for n in ast.walk(_tree(taken)) if isinstance(n, ast.Name)]
    compiling = [f for f, _ in taken.blocks if ".compile(" in f.source]
    sure = not earlier and len(compiling) <= 1
    return not returned or (sure and all(loads.count(f.name) == 1 for f in returned))


def _tree(taken: TakenOver) -> ast.AST:
    cell = read_cell(taken.context.cell.source)
    return ast.Module([], []) if isinstance(cell, NotPython) else cell.tree


def _definition(source: str, name: str) -> str | None:
    """Give the text of the one function that the cell defines by ``name``, decorators included."""
    cell = read_cell(source)
    body = [] if isinstance(cell, NotPython) else cell.tree.body
    found = [s for s in body if isinstance(s, ast.FunctionDef) and s.name == name]
    if isinstance(cell, NotPython) or len(found) != 1:
        return None
    first = min([found[0].lineno, *(d.lineno for d in found[0].decorator_list)])
    return "\n".join(split_lines(cell.source)[first - 1 : found[0].end_lineno])


def _plain(text: str) -> str:
    return "\n".join(split_lines(text))


def _without(taken: TakenOver, source: str, kept: Sequence[FunctionFacts]) -> str | None:
    """Take out the definitions that are not kept; None where one of them stands there more than once."""
    for function, block in taken.blocks:
        if function not in kept:
            if source.count(block) != 1:
                return None
            source = source.replace(block, "")
    return source
