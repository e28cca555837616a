"""Code that an imported module holds, read as if it were the cell: it is never written, but a change can be shown."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePath

from tf_mem_magic.core.facts import ModuleFacts
from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.core.recording import Cell, ErrorText, Frame
from tf_mem_magic.notebook.text.cell import parse


def in_modules(context: Context) -> Iterator[tuple[ModuleFacts, Context]]:
    """Yield the user's modules that led to the error, each with what is known of it as if it were the cell.

    What names of the notebook hold is left out: a module's names are others.
    """
    recording, diagnosis = context.recording, context.diagnosis
    for module in recording.facts.modules:
        errors = tuple(_inside(error, module) for error in recording.errors)
        inner = [[frame for frame in error.frames if frame.in_cell] for error in errors]
        frames = [frame for found in inner for frame in found]
        if not frames or diagnosis is None or not _is_what_ran(module, frames):
            continue
        # Blank lines at the top do not count in a cell.
        head = len(module.source[: len(module.source) - len(module.source.lstrip())].splitlines())
        cell = Cell(module.source, tagged=False)
        errors = tuple(
            replace(e, frames=tuple(replace(f, line=f.line - head) if f.in_cell else f for f in e.frames))
            for e in errors
        )
        known = recording.facts
        facts = replace(
            known,
            models=tuple(model for model in known.models if model.local),
            datasets=(),
            values=(),
            scalars=(),
            earlier_cells=(),
            used=(),
            repeatable=(),
            functions=(),
            used_besides=(),
            read_elsewhere=(),
            modules=(),
        )
        frame = None if diagnosis.frame is None else _here(diagnosis.frame, module)
        line = next(found for found in inner if found)[-1].line - head
        asked = replace(diagnosis, line=line, frame=frame if frame is None else replace(frame, line=frame.line - head))
        yield module, Context(cell, replace(recording, cell=cell, errors=errors, facts=facts), asked)


def as_patch(context: Context, module: ModuleFacts, proposal: Proposal, declined: Declined) -> Declined:
    """Give a decline for the cell with the change to the module, to copy."""
    frames = [frame for error in context.recording.errors[:1] for frame in error.frames if frame.file == module.file]
    told = f":{frames[-1].line} in `{frames[-1].function}`" if frames else ""
    name = PurePath(module.file.replace("\\", "/")).name
    lines = difflib.unified_diff(
        module.source.splitlines(), proposal.source.splitlines(), name, f"{name}, changed", lineterm="", n=2
    )
    reason = (
        f"the code that failed is {module.file}{told}, which is not written here; “{proposal.title}” would be this "
        "change to it, and importing it anew takes a restart"
    )
    return replace(declined, reason=reason, patch="\n".join(lines))


def _is_what_ran(module: ModuleFacts, frames: Iterable[Frame]) -> bool:
    """Tell whether the file is still the code that ran: each line lies in the function that the traceback names."""
    tree = parse(module.source)
    if tree is None:
        return False
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    last = len(module.source.splitlines())
    return all(
        any(f.name == frame.function and f.lineno <= frame.line <= (f.end_lineno or 0) for f in functions)
        or (frame.function.startswith("<") and frame.line <= last)
        for frame in frames
    )


def _inside(error: ErrorText, module: ModuleFacts) -> ErrorText:
    return replace(error, frames=tuple(_here(frame, module) for frame in error.frames))


def _here(frame: Frame, module: ModuleFacts) -> Frame:
    return replace(frame, in_cell=frame.file == module.file)
