"""What a run that failed had already changed: said before the cell runs again."""

from __future__ import annotations

from tf_mem_magic.core.facts import Facts
from tf_mem_magic.core.outcome import Change


def find_changes(source: str, facts: Facts) -> tuple[Change, ...]:
    """List what the run of ``source`` left behind that a rerun would meet."""
    return tuple(
        Change("steps", m.name, f"`{m.name}` existed before and took {m.steps - m.steps_before} training steps.")
        for m in facts.models
        if m.steps_before is not None and m.steps > m.steps_before
    )
