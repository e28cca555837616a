"""A step back up: after a smaller batch that fitted with room to spare, the largest one that surely fits too."""

from __future__ import annotations

from tf_mem_magic.core.lineage import batch_seen
from tf_mem_magic.core.proposals import Context, Estimate, Proposal, RefusedError
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.room.search import batch_sizes
from tf_mem_magic.notebook.batch.found import set_batch
from tf_mem_magic.notebook.follow.reader import Unknown
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.smaller_batch.asked import found_batch
from tf_mem_magic.remedies.smaller_batch.caveats import caveats_of

KEY = "larger-batch"

ROOM = 0.9
"""Share of the limit up to which the peak may come after the step up."""


def step_up(full: Context, fitted: Recording) -> Proposal | None:
    """Propose a batch between the one that fitted and the one that ran out; None where there is no room for one.

    Parameters
    ----------
    full : Context
        The run that ran out of memory, with the cell as it was then.
    fitted : Recording
        The rerun with a smaller batch, which fitted.

    Returns
    -------
    Proposal or None
        Made from the cell as it was, in place of the cell as it is. The peak grows no faster than in proportion to the
        batch, so what that gives is an upper end.
    """
    batch, series = batch_seen(fitted), fitted.main
    limit = full.diagnosis.limit if full.diagnosis is not None else None
    if batch is None or limit is None or series is None or series.peak is None or series.peak_basis != "counter":
        return None
    ask = Ask(full)
    try:
        found = found_batch(ask)
        if isinstance(found, Unknown) or found.per_replica or found.method != "fit":
            return None
        most = int(batch * ROOM * limit / max(series.peak, 1))
        wanted = next((n for n in reversed(batch_sizes(found.value)) if batch < n <= most), None)
        if wanted is None or (wanted := found.divisor_of(wanted)) <= batch:
            return None
        source, notes = set_batch(found, wanted)
    except RefusedError:
        return None
    high = series.peak * wanted // batch
    return Proposal(
        key=KEY,
        title=f"Batch {wanted}",
        source=source,
        original=full.cell.source,
        preserves="same model, other gradients",
        estimate=Estimate(
            series.peak, high, f"{size(series.peak)} measured at batch {batch}, at most in proportion to the batch"
        ),
        caveats=(*notes, *caveats_of(ask, found)),
        why=f"Batch {batch} left room: {size(limit - series.peak)} of {size(limit)} were never used.",
        expects=(("batch", wanted),),
        undo="\n".join(found.undo),
        technique="Larger batch",
        instead_of=fitted.cell.source,
    )
