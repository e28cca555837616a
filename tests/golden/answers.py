"""Ask every remedy about the gallery of cells, and write the answers down as text that a person can read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from tests.remedies.test_edits import ASKED, context_of
from tf_mem_magic.core.proposals import Answer, Context, Declined, Proposal
from tf_mem_magic.remedies._engine.ranking import propose_all
from tf_mem_magic.remedies._engine.registry import all_remedies

FOLDER = Path(__file__).parent
FILES = {"examples": FOLDER / "examples.txt", "cells": FOLDER / "cells.txt"}


def questions(part: str) -> Iterator[tuple[str, Context]]:
    """Name each question of a part: the remedies' own examples, or cells in the styles of notebooks."""
    if part == "examples":
        for remedy in all_remedies():
            for example in remedy.EXAMPLES:
                yield f"{remedy.KEY}: {example.name}", example.context
    else:
        for cell, known in ASKED:
            yield f"{cell.name} ({known})", context_of(cell, known)


def written(part: str) -> str:
    """Give the golden text of a part as the code answers now."""
    return "".join(f"== {name}\n{_told(propose_all(context))}" for name, context in questions(part))


def difference(part: str) -> str:
    """Give what differs between the golden file and what the code answers now; empty where nothing does."""
    path = FILES[part]
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    after = written(part).splitlines()
    return "\n".join(difflib.unified_diff(before, after, f"{part}: golden", f"{part}: now", lineterm="", n=4))


def _told(answers: Answer) -> str:
    """Write the answers to one question: offers in their order, declines by key."""
    offers = [a for a in answers if isinstance(a, Proposal)]
    declined = sorted((a for a in answers if isinstance(a, Declined)), key=lambda d: (d.key, d.reason))
    return "".join((*(_offer("+", p) for p in offers), *map(_decline, declined)))


def _offer(sign: str, proposal: Proposal) -> str:
    lines = [f"{sign} {proposal.key} | {proposal.title} | {proposal.preserves} | {proposal.takes_effect}"]
    lines += [f"  | {line}" for line in proposal.diff.splitlines()[2:]]
    lines += [f"  undo {line}" for line in proposal.undo.splitlines()]
    lines += [f"  expects {name} {value}" for name, value in proposal.expects]
    for choice in proposal.choices:
        changed = difflib.unified_diff(proposal.source.splitlines(), choice.source.splitlines(), lineterm="", n=0)
        lines += [f"  choice {choice.label}", *(f"  || {line}" for line in list(changed)[2:])]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _decline(declined: Declined) -> str:
    text = f"- {declined.key}: {declined.reason}\n"
    text += "".join(f"  patch {line.rstrip()}\n" for line in declined.patch.splitlines())
    return text + (_offer("~", declined.settings) if declined.settings is not None else "")
