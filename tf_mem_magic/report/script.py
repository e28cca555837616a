"""The report of a script, as plain text: its file cannot be run again from here, so each change is a patch."""

from __future__ import annotations

import difflib
from dataclasses import replace

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.report.choices import KEEPS
from tf_mem_magic.report.printable import printable
from tf_mem_magic.report.text import render_text

MOST_PATCHES = 3
"""Changes that are shown as patches; the others are named."""


def script_text(outcome: Outcome, file: str, width: int = 80, encoding: str | None = None) -> str:
    """Give a script's report.

    Parameters
    ----------
    outcome : Outcome
        The run; the cell in it is the whole text of the script.
    file : str
        The script, as the patches name it.
    width : int
        Columns of the terminal; patches are never wrapped.
    encoding : str or None
        Characters that it cannot write are replaced by plain ones.
    """
    happened = render_text(replace(outcome, offered=(), further=(), declined=(), changes=()), width, encoding)
    edits = [p for p in outcome.edits if p.source.rstrip() != p.original.rstrip()]
    lines = [happened]
    for number, proposal in enumerate(edits[:MOST_PATCHES], 1):
        lines += ["", f"{number}. {proposal.title} ({KEEPS[proposal.preserves]}):", patch_of(proposal, file)]
    if edits[MOST_PATCHES:]:
        lines += ["", f"Also: {', '.join(p.title for p in edits[MOST_PATCHES:])}."]
    for proposal in outcome.edits:
        settings = " ".join(f"{name}={value}" for name, value in proposal.environment)
        if proposal not in edits and settings:
            lines += ["", f"{proposal.title}: start the script with {settings}."]
    for answer in outcome.declined:
        if answer.patch:
            lines += ["", f"{answer.title}: {answer.reason}", answer.patch]
    return printable("\n".join(lines), encoding)


def patch_of(proposal: Proposal, file: str) -> str:
    """Give a change of a script as a unified diff that ``patch`` takes."""
    before, after = (text.splitlines() for text in (proposal.original, proposal.source))
    return "\n".join(difflib.unified_diff(before, after, file, file, lineterm="", n=2))
