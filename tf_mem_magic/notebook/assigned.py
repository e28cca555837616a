"""What a cell's own lines set, and how to set back what an edit of the cell has set anew."""

from __future__ import annotations

import ast
import re

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.notebook.cell import read_cell
from tf_mem_magic.notebook.mask import NotPython

_WORD = re.compile(r"[^\W\d]\w*")


def assigned(source: str) -> dict[str, set[str]]:
    """Give what the cell's top-level assignments set, as written (``cfg.batch``), with the names in it."""
    cell = read_cell(source)
    body = [] if isinstance(cell, NotPython) else cell.tree.body
    texts = {ast.unparse(target) for s in body if isinstance(s, ast.Assign) for target in s.targets}
    return {text: set(_WORD.findall(text)) for text in texts}


def names_back(original: str, source: str, facts: Facts) -> str:
    """Give the code that sets back what ``source`` sets and ``original`` does not: numbers and texts of earlier cells.

    Without it the original cell, run again, would read what the changed one has set.
    """
    new = sorted(assigned(source).keys() - assigned(original).keys())
    return "\n".join(f"{text} = {facts.scalar(text)!r}" for text in new if facts.scalar(text) is not None)
