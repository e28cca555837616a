"""Before and after a remedy: what the rerun showed."""

from __future__ import annotations

from tf_mem_magic.core.outcome import Comparison, Outcome
from tf_mem_magic.core.proposals import Proposal


def compare(before: Outcome, after: Outcome, proposal: Proposal | None) -> Comparison:
    """Set two runs of a cell side by side; ``proposal`` is the remedy between them (None: the person's own edit)."""
    return Comparison(
        key=proposal.key if proposal else "",
        title=proposal.title if proposal else "",
        status_before=before.recording.status,
        status_after=after.recording.status,
        before=before.recording.main,
        after=after.recording.main,
        original=before.recording.cell.source,
    )
