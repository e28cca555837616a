"""What each proposal's change will need: effects become estimates in one place, and what saves nothing is declined."""

from __future__ import annotations

from dataclasses import replace

from tf_mem_magic.core.proposals import Context, Declined, Proposal
from tf_mem_magic.diagnose.expected import expected, saves_nothing


def with_estimate(answer: Proposal | Declined, context: Context) -> Proposal | Declined:
    """Give a proposal the peak to expect after its change; decline it where the peak would not fall.

    An estimate from measured runs is better, and stays. Where the step is not known nothing changes.
    """
    if isinstance(answer, Declined) or answer.effect is None or context.diagnosis is None:
        return answer
    if answer.estimate is not None:
        return answer
    reason = saves_nothing(context.recording, context.diagnosis, answer.effect)
    if reason:
        return Declined(answer.key, answer.title, reason)
    return replace(answer, estimate=expected(context.recording, context.diagnosis, answer.effect))
