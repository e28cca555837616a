"""What a cell gets that lets go of earlier rounds: the lines, and the sentences that go with them."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.edits import IMPORT
from tf_mem_magic.notebook.text.ranges import CellEdit, insert_line, insert_on_top
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.collect_garbage.rounds import Rounds

_ASKS_MODEL = re.compile(r"(?<!\bself)\.model\b|[\"']_?model[\"']\s*\)")
MOMENT = "Collecting takes a moment in each round."
NEEDS = "The changed cell needs tf_mem_magic."


def edits_of(cell: PythonCell, found: Rounds, results: tuple[str, ...], first: tuple[str, ...] = ()) -> list[CellEdit]:
    """Give the edits that let go of what earlier rounds left before each round.

    ``results`` are lists of what ``fit`` gave; ``first`` are lines to run once, before all else.
    """
    edits = [insert_on_top(cell, (IMPORT, *first))]
    for one in found.places:
        forget = (f"{' = '.join(one.forget)} = None",) if one.forget else ()
        inside = insert_line(cell, one.statement, *forget, f"apply.collect_garbage({', '.join(results)})")
        if inside.start == edits[0].start:
            edits[0] = replace(inside, text=edits[0].text + inside.text)
        else:
            edits.append(inside)
    return edits


def collects(cell: PythonCell) -> bool:
    """Whether the cell calls what this remedy writes."""
    return any(ast.unparse(call.func) == "apply.collect_garbage" for call in cell.calls)


def asks_model(ask: Ask) -> bool:
    """Whether a cell may ask what ``fit`` gave for its model."""
    return ask.notebook.matches(_ASKS_MODEL, "model")


def loses_model(results: tuple[str, ...]) -> list[str]:
    """Say that what ``fit`` gave no longer knows its model."""
    return [
        f"What `fit` gave, in `{name}` or under another name, loses its model; what it tells stays." for name in results
    ]
