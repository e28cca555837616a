"""Places in the user's code: which files are cells, and the frames that an error's own text tells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence

from tf_mem_magic.core.recording import Frame

_CELL_FILE = re.compile(r"<ipython-input-\d+-|[\\/]ipykernel_\d+[\\/]\d+\.py$")
_FRAME_LINE = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>[^\n]+?)\s*\*?\s*$', re.M)
_STACK = re.compile(r"defined at \(most recent call last\):|^in user code:|^Traceback \(most recent call last\):", re.M)


HOOK = re.compile(r"on_(?:epoch|batch|train|test|predict|(?:train|test|predict)_batch)_(?:begin|end)")
"""Methods of a callback, which Keras calls beside its own steps."""

_LOOPS = (ast.For, ast.AsyncFor, ast.While)


def is_cell_file(file: str) -> bool:
    """Say whether ``file`` is a name under which IPython or ipykernel compiles a cell."""
    return _CELL_FILE.search(file) is not None


def at_top_level(frame: Frame) -> bool:
    """Say whether the frame is a module's or a cell's own code, not a function's."""
    return frame.function == "<module>" or frame.function.startswith("<cell line")


def frames_in_message(message: str) -> tuple[Frame, ...]:
    """Read the stack that an error's text tells, outermost first; empty where it tells none.

    TensorFlow says where a graph's operation was defined, and quotes the traceback of Python code that it called.
    Of several detected nodes the first is read. ``in_cell`` and ``is_user`` are left False: only the caller knows.
    """
    start = _STACK.search(message)
    if start is None:
        return ()
    rest = message[start.end() :]
    end = re.search(r"^(?:Detected at node|Node:|\d+ root error)", rest, re.M)
    text = rest[: end.start()] if end else rest
    return tuple(Frame(m["file"], int(m["line"]), m["function"]) for m in _FRAME_LINE.finditer(text))


def deeper_frames(live: Sequence[Frame], told: Iterable[Frame]) -> tuple[Frame, ...]:
    """Give the user's frames of ``told`` (an error's text) that lie deeper than those of the ``live`` traceback.

    A graph may have been traced by an earlier call: its outer frames are then not those of this run. So only what
    follows the last frame that is top-level code, or a function that the live traceback shows too, is kept.
    """
    seen = {(f.file, f.function) for f in live if f.is_user}
    kept: list[Frame] = []
    for frame in told:
        if not frame.is_user:
            continue
        if at_top_level(frame) or (frame.file, frame.function) in seen:
            kept.clear()
        else:
            kept.append(frame)
    return tuple(kept)


def in_comprehension(frame: Frame) -> bool:
    """Say whether the frame is a comprehension's: Python before 3.12 gives it one of its own."""
    return frame.function in ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")


def tape_around_loop(source: str, line: int | None) -> bool:
    """Say whether ``line`` (from 1) of a cell stands in a loop that a ``with`` of a gradient tape encloses."""
    rows = source.splitlines()
    if line is None or not 0 < line <= len(rows) or "Tape(" not in source:
        return False
    # Lines that only IPython reads are no Python; where they stand inside of statements nothing is said.
    plain = ["" if row.lstrip().startswith(("%", "!")) else row for row in rows]
    try:
        tree = ast.parse("\n".join(plain))
    except (SyntaxError, ValueError):
        return False
    return any(
        isinstance(loop, _LOOPS) and loop.lineno < line <= (loop.end_lineno or loop.lineno)
        for tape in ast.walk(tree)
        if isinstance(tape, ast.With) and any(_opens_tape(item.context_expr) for item in tape.items)
        for loop in ast.walk(tape)
    )


def _opens_tape(made: ast.expr) -> bool:
    return isinstance(made, ast.Call) and ast.unparse(made.func).rpartition(".")[2] == "GradientTape"
