"""Every remedy asked, the answers in order, and several remedies applied at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tf_mem_magic.core.proposals import Answer, Choice, Context, Declined, Proposal
from tf_mem_magic.remedies._engine.asking import Question, ask
from tf_mem_magic.remedies._engine.combine import PRESERVES, changed_context, merge
from tf_mem_magic.remedies._engine.estimating import with_estimate
from tf_mem_magic.remedies._engine.registry import all_remedies


def propose_all(context: Context) -> Answer:
    """Ask every remedy and rank the answers: proposals before declines, what is made for the cause first, then best.

    A remedy that raises is a decline that says so: the rest of the panel keeps working.
    """
    question = Question(context)
    answers = [_possible(answer, context) for remedy in all_remedies() for answer in ask(remedy, question)]
    return tuple(sorted((with_estimate(answer, context) for answer in answers), key=_ranking(context)))


def _possible(answer: Proposal | Declined, context: Context) -> Proposal | Declined:
    """Decline what cannot help with what was being made when memory ran out: one place for all remedies."""
    situation = context.diagnosis.situation if context.diagnosis is not None else None
    if situation is None or isinstance(answer, Declined) or answer.new_cell or situation.admits(answer.key):
        return answer
    return Declined(answer.key, answer.title, situation.reason)


def propose_after_success(context: Context) -> Answer:
    """Ask the remedies for deployment what to do after a run that went well: cells of their own, then declines.

    Where none has a cell to offer there is nothing to refuse either: nobody asked, and the answer is empty.
    """
    remedies = [remedy for remedy in all_remedies() if getattr(remedy, "AFTER_SUCCESS", False)]
    question = Question(context)
    answers = [answer for remedy in remedies for answer in ask(remedy, question)]
    known = [answer for answer in answers if isinstance(answer, Declined) or answer.new_cell]
    offers = any(isinstance(answer, Proposal) for answer in known)
    return tuple(sorted(known, key=_rank)) if offers else ()


def _ranking(context: Context) -> Callable[[Proposal | Declined], tuple[int, ...]]:
    """Rank as ever, but what the step's own operations say does not fit comes after what may."""
    limit = context.diagnosis.limit if context.diagnosis is not None else None

    def rank(answer: Proposal | Declined) -> tuple[int, ...]:
        first, *rest = _rank(answer)
        is_too_much = (
            isinstance(answer, Proposal)
            and answer.effect is not None
            and answer.estimate is not None
            and limit is not None
            and answer.estimate.word(limit) == "no"
        )
        return (first, int(is_too_much), *rest)

    return rank


def _rank(answer: Proposal | Declined) -> tuple[int, ...]:
    if isinstance(answer, Declined):
        return (1,)
    rank = PRESERVES.index(answer.preserves)
    # A cell of its own does not help the one that failed. Between two that keep as much, the one whose effect the
    # rerun can check comes first. What changes the training comes after all that keeps it.
    changes = answer.preserves == "nothing"
    first = (answer.new_cell, not answer.answers_cause, changes, answer.takes_effect == "restart", answer.doubtful)
    return (0, *map(int, first), rank, int(not answer.expects))


def combine(context: Context, keys: tuple[str, ...]) -> Proposal | Declined:
    """Apply several remedies at once: what changes the cell first, each asked about the cell that the last one left.

    Parameters
    ----------
    context : Context
        The run that failed, with the cell as it is.
    keys : tuple of str
        The remedies' keys, in any order; one that is reached under other settings may be among them.

    Returns
    -------
    Proposal or Declined
        One proposal with the keys and titles of all (``smaller-batch+memory-growth``); declined with the reason of
        the first that cannot be applied beside the others.
    """
    ranked = [answer.key for answer in propose_all(context)]
    ordered = sorted(dict.fromkeys(keys), key=lambda key: ranked.index(key) if key in ranked else len(ranked))
    all_keys = "+".join(ordered)
    steps = _one_after_another(context, ordered)
    if isinstance(steps, Declined):
        return replace(steps, key=all_keys)
    if not steps:
        return Declined("", "", "no remedy was chosen")
    if len(steps) == 1:
        return steps[0]
    merged = merge(steps, all_keys, _titles(steps))
    if isinstance(merged, Proposal):
        return with_estimate(replace(merged, choices=tuple(_choices(context, ordered, steps))), context)
    return merged


def _one_after_another(context: Context, keys: Sequence[str]) -> list[Proposal] | Declined:
    """Ask each remedy about the cell that the one before it left."""
    steps: list[Proposal] = []
    now: Context | str = context
    for key in keys:
        if isinstance(now, str):
            return Declined("", _titles(steps), now)
        answer = _ask(now, key)
        if isinstance(answer, Declined):
            after = f"after {steps[-1].title}, {answer.title} cannot be applied: " if steps else ""
            return Declined("", _titles([*steps, answer]), f"{after}{answer.reason}", answer.patch)
        steps.append(answer)
        now = changed_context(now, answer)
    return steps


def _choices(context: Context, keys: Sequence[str], steps: Sequence[Proposal]) -> Iterator[Choice]:
    """Take the further choices of each step through the steps after it; those that do not go there are left out."""
    now: Context | str = context
    for i, step in enumerate(steps):
        others = [other.takes_effect for other in steps if other is not step]
        for choice in step.choices:
            after = now if isinstance(now, str) else changed_context(now, replace(step, source=choice.source))
            rest = None if isinstance(after, str) else _one_after_another(after, keys[i + 1 :])
            if isinstance(rest, list):
                effect = "restart" if "restart" in others else choice.takes_effect
                yield replace(choice, source=[choice.source, *(r.source for r in rest)][-1], takes_effect=effect)
        now = now if isinstance(now, str) else changed_context(now, step)


def _ask(context: Context, key: str) -> Proposal | Declined:
    """Ask one remedy; its best answer, or the one that it gives under other settings."""
    for remedy in all_remedies():
        if key == remedy.KEY:
            nothing = Declined(key, remedy.TITLE, "it has nothing to offer here")
            best = min(ask(remedy, Question(context)), key=_rank, default=nothing)
            return (best.settings or best) if isinstance(best, Declined) else best
    return Declined(key, key, "there is no such remedy")


def _titles(answers: Sequence[Proposal | Declined]) -> str:
    return " + ".join(answer.title for answer in answers)
