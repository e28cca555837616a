"""Code of earlier cells, read as if this cell had it: the functions that led to the error, taken over where changed.

A notebook's training often lies in a function of an earlier cell, and the cell that fails only calls it. Defining that
function once more in front of the cell makes the same function, so a remedy may be asked about the cell with all such
functions in it; those that its edit leaves alone are taken out again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tf_mem_magic.cells.assigned import assigned
from tf_mem_magic.cells.mask import NotPython
from tf_mem_magic.cells.source import PythonCell, first_statement, line_start, read_cell
from tf_mem_magic.core.combine import moved_context, moved_lines, split_lines
from tf_mem_magic.core.facts import FunctionFacts
from tf_mem_magic.core.proposals import Context, Proposal
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.core.tag import dropped_lines

_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A cell with the functions of earlier cells in front: what remedies are asked with, and the blocks put in."""

    context: Context
    blocks: tuple[tuple[FunctionFacts, str], ...]


def take_over(context: Context) -> TakenOver | None:
    """Give the cell with the functions of earlier cells that it reaches; None where none of them led to the error."""
    functions = context.recording.facts.functions
    frames = [frame for error in context.recording.errors for frame in error.frames]
    if not any(_holds(function, frame) for function in functions for frame in frames):
        return None
    cell = read_cell(context.cell.source)
    if isinstance(cell, NotPython):
        return None
    bound = {n.id for n in ast.walk(cell.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own = {s.name: s for s in cell.tree.body if isinstance(s, ast.FunctionDef)}
    added = [f for f in reversed(functions) if f.name not in own and f.name not in bound]
    blocks = tuple((f, "".join(f"{line}{cell.newline}" for line in (*split_lines(f.source), ""))) for f in added)
    at = _front(cell)
    source = "".join((cell.source[:at], *(block for _, block in blocks), cell.source[at:]))
    if isinstance(read_cell(source), NotPython):
        return None
    return TakenOver(_context(context, cell, source, at, blocks, functions, own), blocks)


def put_back(taken: TakenOver, context: Context, proposal: Proposal) -> Proposal | None:
    """Give a proposal for the cell with all functions as one for the cell itself, with those that must be new.

    New are functions that the edit changed, and those that ``tf.function`` has traced with what changed. None where
    they cannot be told apart.
    """
    kept = _kept(taken, proposal.source)
    source = _without(taken, proposal.source, kept)
    choices = [(choice, _without(taken, choice.source, kept)) for choice in proposal.choices]
    if source is None or isinstance(read_cell(source), NotPython):
        return None
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
    line = above + 1
    for function, block in blocks:
        count = len(split_lines(function.source))
        places.update({(function.file, function.line + i): line + i for i in range(count)})
        line += len(split_lines(block)) - 1
    for function in functions:
        if function.name in own:
            first = own[function.name].lineno + added
            there = split_lines(source)[first - 1 : (own[function.name].end_lineno or 0) + added]
            same = moved_lines(split_lines(function.source), there)
            places.update({(function.file, function.line + n - 1): first + m - 1 for n, m in same.items()})
    return _with_frames(moved, places)


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
    facts = replace(recording.facts, used=recording.facts.used_besides, functions=())
    return replace(context, recording=replace(recording, errors=errors, facts=facts), diagnosis=diagnosis)


def _innermost(before: Sequence[ErrorText], after: Sequence[ErrorText]) -> int | None:
    """Give the innermost line of the cell in the first error that went through a function taken over."""
    for old, new in zip(before, after):
        if old != new:
            return [frame.line for frame in new.frames if frame.in_cell][-1]
    return None


def _kept(taken: TakenOver, source: str) -> list[FunctionFacts]:
    """List the functions that must be defined anew: changed ones, and traced ones that reach what has changed."""
    changed = [f for f, block in taken.blocks if block not in source]
    now, before = assigned(source), assigned(taken.context.cell.source)
    news = {f.name for f in changed}.union(*(now[text] for text in now.keys() - before.keys()))
    words = {f.name: set(_WORD.findall(f.source)) for f, _ in taken.blocks}
    kept = []
    for function, _ in taken.blocks:
        reach, queue = set[str](), [function.name]
        while queue:
            for word in words[queue.pop()] - reach:
                reach.add(word)
                queue += [word] if word in words else []
        if function in changed or (function.staged and reach & news):
            kept.append(function)
    return kept


def _without(taken: TakenOver, source: str, kept: Sequence[FunctionFacts]) -> str | None:
    """Take out the definitions that are not kept; None where one of them stands there more than once."""
    for function, block in taken.blocks:
        if function not in kept:
            if source.count(block) != 1:
                return None
            source = source.replace(block, "")
    return source
