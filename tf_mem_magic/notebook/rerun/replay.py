"""Which earlier cells to run again after a restart, and what to know about each before it does."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from tf_mem_magic.notebook.rerun.effects import Effect, effects_of, function_effects, only_defines
from tf_mem_magic.notebook.text.cell import PythonCell, read_cell
from tf_mem_magic.notebook.text.mask import NotPython

LONG_SECONDS = 10.0
"""Training that took less is replayed without a word."""

_FLAGS = {
    "mounts": "mounts a drive",
    "installs": "installs packages",
    "deletes": "deletes files",
    "asks": "asks for input",
    "trains": "long training",
    "exits": "restarts or exits",
    "writes": "writes files",
    "shell": "shell command",
}
_RESUMES = re.compile(r"^[ \t]*%tfmem[ \t]+resume\b", re.MULTILINE)
_NOT_UNASKED = {"mounts", "installs", "deletes", "asks", "trains", "exits"}


@dataclass(frozen=True, slots=True)
class EarlierCell:
    """A cell that a restart may replay: one that ran in this kernel.

    ``count`` is its execution count (None: not known), ``seconds`` its last duration (None: not seen).
    ``ran_as`` is the source with which it last ran; ``failed``: that run ended in an error.
    """

    cell_id: str
    source: str
    count: int | None = None
    seconds: float | None = None
    ran_as: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """An earlier cell with its verdict: ``ticked`` to run again unless the person says otherwise, and ``flags``."""

    cell: EarlierCell
    ticked: bool
    flags: tuple[str, ...] = ()


def telling_line(source: str) -> str:
    """Give the line of a cell that tells most about it: its first that is no magic, comment, text or import."""
    read = read_cell(source)
    if isinstance(read, PythonCell):
        starts = (read.start(statement) for statement in _working(read.tree.body))
        found = (source[source.rfind("\n", 0, at) + 1 :].split("\n", 1)[0].strip() for at in starts)
        told = next((line for line in found if line and not line.startswith("%")), "")
        if told:
            return told
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    untagged = [line for line in lines if not line.startswith(("%%", "#"))]
    work = [line for line in untagged if not line.startswith(("%", "import ", "from "))]
    return next(iter([*(work if isinstance(read, NotPython) else ()), *untagged, *lines]), "(empty)")


def _working(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """List the statements that are no imports or texts, those inside a ``try`` too."""
    for statement in statements:
        if isinstance(statement, ast.Try):
            yield from _working(statement.body)
        elif not isinstance(statement, (ast.Import, ast.ImportFrom)) and not (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            yield statement


def choose_replay(cells: Iterable[EarlierCell]) -> tuple[Replay, ...]:
    """Decide for each cell whether a restart replays it; in the order in which they last ran.

    Cells that ran are ticked, except those that failed, and what should not happen unasked: mounting, installing,
    deleting, asking, long training, ending the kernel, going on with another plan, and cells that are nothing but a
    shell command (what it did to the disk is still there). Cells of imports and definitions are always ticked, unless
    they failed.
    """
    ordered = sorted(cells, key=lambda c: c.count or 0)
    functions: dict[str, tuple[Effect, ...]] = {}
    chosen: list[Replay] = []
    for cell in ordered:
        functions.update(function_effects(cell.source, functions))
        chosen.append(_judge(cell, effects_of(cell.source, functions)))
    return tuple(chosen)


def _judge(cell: EarlierCell, effects: tuple[Effect, ...]) -> Replay:
    kinds = {effect.kind for effect in effects}
    if cell.seconds is not None and cell.seconds < LONG_SECONDS:
        kinds.discard("trains")
    flags = [text for kind, text in _FLAGS.items() if kind in kinds]
    if cell.ran_as.strip() != cell.source.strip():
        flags.append("edited since it ran")
    if cell.failed:
        flags.append("failed")
    if _RESUMES.search(cell.source):
        flags.append("goes on with a plan")
        return Replay(cell, False, tuple(flags))
    if not cell.source.strip() or (cell.failed and cell.ran_as.strip() == cell.source.strip()):
        return Replay(cell, False, tuple(flags))
    safe = only_defines(cell.source) or not (kinds & _NOT_UNASKED or _is_only_shell(cell.source, kinds))
    return Replay(cell, safe, tuple(flags))


def _is_only_shell(source: str, kinds: Collection[str]) -> bool:
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]
    if lines and lines[0].startswith("%%tfmem"):
        lines = lines[1:]
    whole = bool(lines) and lines[0].startswith("%%") and "shell" in kinds
    return whole or (bool(lines) and all(line.startswith("!") for line in lines))
