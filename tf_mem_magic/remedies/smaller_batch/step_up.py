"""A step back up: after a smaller batch that fitted with room to spare, the largest one that surely fits too."""

from __future__ import annotations

from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.lineage import batch_seen
from tf_mem_magic.core.proposals import Context, Estimate, Proposal, RefusedError
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.core.units import size
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.diagnose.room.pieces import room_for
from tf_mem_magic.diagnose.room.search import batch_sizes
from tf_mem_magic.notebook.batch.found import set_batch
from tf_mem_magic.notebook.follow.reader import Unknown
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.smaller_batch.asked import found_batch
from tf_mem_magic.remedies.smaller_batch.caveats import caveats_of

KEY = "larger-batch"

ROOM = 0.9
"""Share of the limit up to which the peak may come after the step up, where it is only known to grow no faster than in
proportion to the batch."""

SPREAD = 1.1
"""How far the upper end lies above what the model of the step tells, once a peak of it was measured: of 14 runs of one
step on a busy processor two took 8 % more than the others."""


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
    if full.diagnosis is None or (limit := full.diagnosis.limit) is None:
        return None
    if batch is None or series is None or series.peak is None or series.peak_basis != "counter":
        return None
    ask = Ask(full)
    try:
        found = found_batch(ask)
        if isinstance(found, Unknown) or found.per_replica or found.method != "fit":
            return None
        known_well = expected(full.recording, full.diagnosis, Effect(batch=(found.value, batch))) is not None
        sizes = [n for n in reversed(batch_sizes(found.value, known_well)) if n > batch and found.divisor_of(n) == n]
        told = ((n, _expected(full, found.value, batch, series.peak, n)) for n in sizes)
        most = limit if known_well else ROOM * limit
        fits = ((n, one) for n, one in told if one.high <= most and _finds_room(full, found.value, n))
        wanted, estimate = next(fits, (0, None))
        if estimate is None:
            return None
        source, notes = set_batch(found, wanted)
    except RefusedError:
        return None
    return Proposal(
        key=KEY,
        title=f"Batch {wanted}",
        source=source,
        original=full.cell.source,
        preserves="same model, other gradients",
        estimate=estimate,
        caveats=(*notes, *caveats_of(ask, found)),
        why=f"Batch {batch} left room: {size(limit - series.peak)} of {size(limit)} were never used.",
        expects=(("batch", wanted),),
        undo="\n".join(found.undo),
        technique="Larger batch",
        instead_of=fitted.cell.source,
    )


def _finds_room(full: Context, ran_out: int, batch: int) -> bool:
    """Tell whether the pieces of this process's pool, where they are known, have room for the step at a batch size."""
    assert full.diagnosis is not None
    return room_for(full.recording, full.diagnosis, Effect(batch=(ran_out, batch))) in (None, "here", "likely")


def _expected(full: Context, ran_out: int, fitted: int, peak: int, batch: int) -> Estimate:
    """Give the peak at ``batch``, where ``fitted`` took ``peak`` bytes and ``ran_out`` had been too much.

    It grows by what the step's own operations tell, corrected by the measured peak, and never faster than in
    proportion to the batch.
    """
    assert full.diagnosis is not None
    most = peak * batch // fitted
    before, then = (expected(full.recording, full.diagnosis, Effect(batch=(ran_out, n))) for n in (fitted, batch))
    if before is None or then is None:
        return Estimate(peak, most, f"{size(peak)} measured at batch {fitted}, at most in proportion to the batch")
    known, grown = (one.low + one.high for one in (before, then))
    # A run may by chance have taken less than others of the same step do.
    usual = (peak + max(peak, known // 2)) / 2
    middle = usual + (grown - known) // 2 * max(2 * peak / max(known, 1), 1.0)
    basis = f"{size(peak)} measured at batch {fitted}, and what the step's own operations take more at batch {batch}"
    return Estimate(peak, int(max(min(middle * SPREAD, most), peak)), basis)
