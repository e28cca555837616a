"""Every remedy asked, the answers in order, and several remedies applied at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.proposals import Answer, Choice, Context, Declined, Proposal, Remedy
from tf_mem_magic.core.recording import Recording
from tf_mem_magic.diagnose.room.search import LEAST_SHARE
from tf_mem_magic.remedies._engine.asking import Question, ask
from tf_mem_magic.remedies._engine.combine import PRESERVES, changed_context, merge
from tf_mem_magic.remedies._engine.estimating import with_estimate, with_what_is_done
from tf_mem_magic.remedies._engine.registry import all_remedies


def propose_all(context: Context) -> Answer:
    """Ask every remedy and rank the answers: proposals before declines, what is made for the cause first, then best.

    A remedy that raises is a decline that says so: the rest of the panel keeps working.
    """
    return _propose_all(with_what_is_done(context))


def _propose_all(context: Context) -> Answer:
    """Ask every remedy; what the cell does already is among what is applied."""
    question = Question(context)
    answers = [_possible(answer, remedy, context) for remedy in all_remedies() for answer in ask(remedy, question)]
    ranked = sorted((with_estimate(answer, context) for answer in answers), key=_ranking(context))
    together = _together(context, ranked)
    return (together, *ranked) if together is not None else tuple(ranked)


def _together(context: Context, ranked: Sequence[Proposal | Declined]) -> Proposal | None:
    """Put two changes together where none is expected to fit alone, or a very small batch only, and both together are.

    Two that leave room to spare come before two that only just fit; where no two are expected to, those that may, if
    none alone may. What makes room beside the step comes first, so that the batch is chosen for the room that there is
    then.
    """
    limit = context.diagnosis.limit if context.diagnosis is not None else None
    proposals = [answer for answer in ranked if isinstance(answer, Proposal)]
    if limit is None or any(_fits(one, limit) == 0 for one in proposals if not (one.new_cell or _is_small(one))):
        return None
    held = [answer.settings for answer in ranked if isinstance(answer, Declined) and answer.settings is not None]
    able = [one for one in (*proposals, *held) if one.effect is not None and _reruns(one)]
    makes_room = [one for one in able if one.effect is not None and _makes_room(one.effect)]
    smaller = [one for one in able if one.effect is not None and one.effect.batch is not None]
    others = [one for one in proposals if one in able and one not in makes_room and one not in smaller]
    pairs = [(a, b) for first, second in ((makes_room, smaller), (makes_room, others), (others, smaller))
             for a in first for b in second]  # fmt: skip
    may = all(_fits(one, limit) == 2 for one in proposals if not one.new_cell)
    likely = perhaps = None
    tried = min(max(_MOST_TEXT // max(len(context.cell.source), 1), 1), _MOST_PAIRS)
    # What alone is not sure to find room is as good as another beside a change that makes some.
    for one, other in sorted(pairs, key=lambda pair: [_rank(replace(two, doubtful=False)) for two in pair])[:tried]:
        steps = _one_after_another(context, (one.key, other.key))
        if isinstance(steps, Declined):
            continue
        merged = merge(steps, f"{one.key}+{other.key}", _titles(steps))
        whole = with_estimate(merged, context)
        found = _fits(whole, limit) if isinstance(whole, Proposal) and whole.estimate is not None else 2
        if isinstance(whole, Proposal) and found < 2:
            told = replace(whole, why=f"{_alone((one, other), limit)} {whole.why}")
            if found == 0 and told.estimate is not None and told.estimate.word(limit) == "fits":
                return told
            likely = likely or (told if found == 0 else None)
            perhaps = perhaps or told
    return likely or (perhaps if may else None)


def _reruns(one: Proposal) -> bool:
    """Whether a change takes effect in this kernel, or is one that only finds more room in a fresh one."""
    return one.takes_effect == "rerun" or any(choice.is_whole for choice in one.choices)


def _alone(two: Sequence[Proposal], limit: int) -> str:
    """Say what each of two changes does without the other."""
    small = next((one.effect.batch[1] for one in two if _fits(one, limit) == 0 and one.effect and one.effect.batch), 0)
    if small:
        return f"Alone nothing larger than batch {small} is sure to fit."
    return f"Neither {'fits alone' if all(_fits(one, limit) == 2 for one in two) else 'is sure to fit alone'}."


def _is_small(one: Proposal) -> bool:
    """Whether a change trains on less than an eighth of the batch: each step down makes an epoch longer."""
    effect = one.effect
    if effect is None or effect.batch is None or effect.accumulates:
        return False
    before, after = effect.batch
    return after * LEAST_SHARE < before


_MOST_PAIRS = 6
"""Pairs of changes that are tried together: each asks two remedies once more, about a cell that is read anew."""

_MOST_TEXT = 60_000
"""Characters of cells that are read anew for that: in a long cell only the first pair is tried."""


def _makes_room(effect: Effect) -> bool:
    """Whether a change frees memory beside the step and leaves the step as it is."""
    return bool(effect.released or effect.to_host) or effect.slots is not None


def _possible(answer: Proposal | Declined, remedy: Remedy, context: Context) -> Proposal | Declined:
    """Decline what cannot help with what was being made when memory ran out: one place for all remedies."""
    situation = context.diagnosis.situation if context.diagnosis is not None else None
    if situation is None or isinstance(answer, Declined) or answer.new_cell or situation.admits(answer.key):
        return answer
    if situation.kind in getattr(remedy, "HELPS", ()):
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


def propose_after_fit(applied: str, full: Context, fitted: Recording) -> tuple[Proposal, ...]:
    """Ask the remedies what more they would do, now that the change ``applied`` has fitted where ``full`` had not."""
    asked = [getattr(remedy, "after_fit", None) for remedy in all_remedies()]
    answers = [after_fit(applied, full, fitted) for after_fit in asked if after_fit is not None]
    return tuple(answer for answer in answers if answer is not None)


def _ranking(context: Context) -> Callable[[Proposal | Declined], tuple[int, ...]]:
    """Rank what is expected to fit first, or is made for the cause; then what may fit; last what does not."""
    limit = context.diagnosis.limit if context.diagnosis is not None else None

    def rank(answer: Proposal | Declined) -> tuple[int, ...]:
        declined, *rest = _rank(answer)
        if isinstance(answer, Declined):
            return (declined, *rest)
        fits = _fits(answer, limit)
        estimate = answer.estimate if fits == 2 else None
        # Of what is not expected to fit that comes first which comes nearest.
        over = 0 if estimate is None else (estimate.low + estimate.high) // 2
        return (declined, int(answer.new_cell), fits, over, *rest)

    return rank


def _fits(answer: Proposal, limit: int | None) -> int:
    """Give 0 for what is expected to fit, or made for the cause where nothing tells; 1 for what may; 2 for the rest."""
    word = answer.estimate.word(limit) if answer.estimate is not None and limit is not None else ""
    if word == "no":
        return 2
    if word == "":
        return 0 if answer.answers_cause else 1
    return 0 if word in ("fits", "likely") and (answer.answers_cause or not answer.doubtful) else 1


def _rank(answer: Proposal | Declined) -> tuple[int, ...]:
    if isinstance(answer, Declined):
        return (1,)
    rank = PRESERVES.index(answer.preserves)
    # A cell of its own does not help the one that failed. Between two that keep as much, the one whose effect the
    # rerun can check comes first. What changes the training comes after all that keeps it.
    changes = answer.preserves == "nothing"
    first = (not answer.answers_cause, changes, answer.takes_effect == "restart", answer.doubtful)
    return (0, *map(int, first), rank, int(not answer.expects), _costs(answer))


def _costs(answer: Proposal) -> int:
    """Give 1 for what makes each step slower, 0 else."""
    return int(bool(answer.cost))


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
    context = with_what_is_done(context)
    ranked = [answer.key for answer in _propose_all(context)]
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
