"""What the run that failed had already changed, in the line that stands before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence

from tf_mem_magic.core.outcome import Outcome

_NAMED = 4
"""Names that one line lists; the others are counted."""


def changes_label(outcome: Outcome) -> str:
    """Name what the run that failed had already done: ``"Already changed: `model`, perhaps `out.csv`"``.

    What can be read only once comes first, with what to do: without that a rerun has nothing to read.
    """
    once = [f"`{change.name}`" for change in outcome.changes if change.kind == "read-once"]
    used = (
        f"Used up: {_counted(once)}, run the cell that makes {'it' if len(once) == 1 else 'them'} first" if once else ""
    )
    others = [change for change in outcome.changes if change.kind != "read-once"]
    told = [f"{'perhaps ' if c.kind == 'file' else ''}{c.name if ' ' in c.name else f'`{c.name}`'}" for c in others]
    changed = f"{'already' if used else 'Already'} changed: {_counted(told)}" if told else ""
    return "; ".join(part for part in (used, changed) if part)


def _counted(names: Sequence[str]) -> str:
    """Name the first few, and count the rest."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
