"""What each proposal's change will need: effects become estimates in one place, and what saves nothing is declined."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core import troubles
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.proposals import Choice, Context, Declined, Proposal
from tf_mem_magic.core.recording import Dump
from tf_mem_magic.core.units import brief_unit, size
from tf_mem_magic.diagnose.dump import grown_pool
from tf_mem_magic.diagnose.expected import expected, saves_nothing
from tf_mem_magic.diagnose.room.batches import surely_fits
from tf_mem_magic.diagnose.room.pieces import fresh_peak, peak_here, room_for, room_in_fresh
from tf_mem_magic.remedies._engine.registry import all_remedies


def with_what_is_done(context: Context) -> Context:
    """Count among what is applied what the cell does already, as its remedies tell: ``done_already(context)``."""
    for remedy in all_remedies():
        done_already = getattr(remedy, "done_already", None)
        try:
            done = Effect() if done_already is None else done_already(context)
        except Exception as error:
            troubles.note(f"what the cell does already could not be told by {remedy.KEY}", error)
            continue
        context = replace(context, applied=context.applied.then(done))
    return context


def with_estimate(answer: Proposal | Declined, context: Context) -> Proposal | Declined:
    """Give a proposal the peak to expect after its change; decline it where the peak would not fall.

    An estimate from measured runs is better, and stays. Where the step is not known nothing changes. What finds room
    only in a fresh kernel takes effect there.
    """
    if isinstance(answer, Declined) or answer.effect is None or context.diagnosis is None:
        return answer
    if context.recording.in_a_thread:
        return replace(answer, estimate=None)
    effect = replace(answer.effect, sums=answer.effect.sums or context.applied.sums)
    if answer.estimate is None:
        reason = saves_nothing(context.recording, context.diagnosis, effect)
        if reason:
            return Declined(answer.key, answer.title, reason)
        answer = replace(answer, estimate=expected(context.recording, context.diagnosis, effect))
    return _where_there_is_room(answer, context)


def _where_there_is_room(answer: Proposal, context: Context) -> Proposal:
    """Let a change take effect in a fresh kernel where this one's pool is in pieces that are too small for it."""
    recording, diagnosis = context.recording, context.diagnosis
    if diagnosis is None or answer.effect is None or answer.takes_effect == "restart" or answer.new_cell:
        return answer
    dump = grown_pool(recording, diagnosis)
    room = room_for(recording, diagnosis, answer.effect) if dump is not None else None
    if dump is None or room is None or room == "here":
        return answer
    if room == "nowhere":
        return _without_room(answer, "here or in a fresh kernel")
    if room == "likely":
        return replace(
            answer,
            estimate=peak_here(recording, diagnosis, answer.effect) or answer.estimate,
            caveats=(*answer.caveats, _pieces(dump, diagnosis.limit or 0, sure=False)),
        )
    how = room if room != "perhaps" else room_in_fresh(recording, diagnosis, answer.effect)
    if how is None:
        return _without_room(answer, "in whichever order it runs")
    if room == "perhaps" and surely_fits(recording, diagnosis, answer.effect):
        return answer
    told = _pieces(dump, diagnosis.limit or 0, sure=room != "perhaps")
    fresh = replace(
        answer,
        takes_effect="restart",
        estimate=fresh_peak(recording, diagnosis, answer.effect, 1 if how == "alone" else 2) or answer.estimate,
        caveats=(*answer.caveats, told, *((_ONE_BY_ONE,) if how == "alone" else ())),
        choices=(*answer.choices, Choice(_WITHOUT_RESTART, answer.source, told, is_whole=True)),
    )
    return fresh if how == "fresh" else replace(fresh, environment=(*answer.environment, (_THREADS, "1")))


def _without_room(answer: Proposal, where: str) -> Proposal:
    """Doubt a change whose bytes may fit, and whose largest buffer finds no piece of the pool that holds it."""
    told = f"Its largest buffer is not sure to find a piece of the pool that holds it, {where}, however much is free."
    estimate = None if answer.estimate is None else replace(answer.estimate, in_pieces=True)
    return replace(answer, doubtful=True, estimate=estimate, caveats=(*answer.caveats, told))


def _pieces(dump: Dump, limit: int, sure: bool) -> str:
    """Say why the pool of this kernel has no room: its pieces are too small, or may be for what runs at once."""
    largest = max(dump.regions)
    unit = brief_unit([largest])
    left = max(limit - sum(dump.regions), 0)
    taking = f"{unit.text(left)} of the device left to take" if float(unit.text(left)) else "nothing left to take"
    why = (
        "what the changed cell needs at once is not expected to find room there, however much is free"
        if sure
        else "two operations that run at the same time may not both find room there"
    )
    return (
        f"The pool of this kernel is made of pieces of at most {size(largest, unit)}, with {taking}: {why}. A fresh "
        "kernel takes other pieces."
    )


_WITHOUT_RESTART = "Without a restart"
_THREADS = "TF_NUM_INTEROP_THREADS"
_ONE_BY_ONE = (
    f"{_THREADS}=1 lets one operation run at a time: two with large buffers of their own would not fit beside one "
    "another."
)
