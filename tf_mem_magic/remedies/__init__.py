"""The remedies: one file each; the folder is the registry.

A remedy is a module with ``KEY``, ``TITLE``, ``EXAMPLES`` and ``propose(context) -> tuple[Proposal | Declined, ...]``.
Adding one is adding its file. One that makes a model smaller for deployment says ``AFTER_SUCCESS = True``: it is asked
after a run that went well too.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import cast

from tf_mem_magic.cells.assigned import names_back
from tf_mem_magic.cells.in_modules import as_patch, in_modules
from tf_mem_magic.cells.names import names_of_lines
from tf_mem_magic.cells.take_over import put_back, take_over
from tf_mem_magic.core.combine import PRESERVES, changed_context, merge
from tf_mem_magic.core.proposals import Answer, Choice, Context, Declined, Proposal, Remedy

_LINE = re.compile(r"\blines? \d")


@lru_cache(maxsize=1)
def all_remedies() -> tuple[Remedy, ...]:
    """Import every remedy of the folder, in the order of their file names."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(cast(Remedy, importlib.import_module(f"{__name__}.{name}")) for name in names)


def propose_all(context: Context) -> Answer:
    """Ask every remedy and rank the answers: proposals before declines, what is made for the cause first, then best.

    A remedy that raises is a decline that says so: the rest of the panel keeps working.
    """
    answers = [answer for remedy in all_remedies() for answer in _asked(remedy, context)]
    return tuple(sorted(answers, key=_rank))


def propose_after_success(context: Context) -> Answer:
    """Ask the remedies for deployment what to do after a run that went well: cells of their own, then declines.

    Where none has a cell to offer there is nothing to refuse either: nobody asked, and the answer is empty.
    """
    remedies = [remedy for remedy in all_remedies() if getattr(remedy, "AFTER_SUCCESS", False)]
    answers = [answer for remedy in remedies for answer in _asked(remedy, context)]
    known = [answer for answer in answers if isinstance(answer, Declined) or answer.new_cell]
    offers = any(isinstance(answer, Proposal) for answer in known)
    return tuple(sorted(known, key=_rank)) if offers else ()


def _asked(remedy: Remedy, context: Context) -> Answer:
    answers = tuple(_undone(context, answer) for answer in _answers(remedy, context))
    if any(isinstance(answer, Proposal) for answer in answers):
        return answers
    taken = take_over(context)
    if taken is None:
        return _with_patch(remedy, context, answers)
    whole = _answers(remedy, taken.context)
    proposals = [p for p in whole if isinstance(p, Proposal) and not p.new_cell]
    found = [put_back(taken, context, proposal) for proposal in proposals]
    good = tuple(_undone(taken.context, p) for p in found if p is not None)
    return good or _with_patch(remedy, context, _nearer(answers, whole) if taken.led else answers)


def _nearer(answers: Answer, whole: Answer) -> Answer:
    """Choose between the declines for a cell and those for it with the functions that led to the error.

    Those have seen more, but lines of that text are nobody's, and a patch is for the cell where the code stands.
    """
    declined = [answer for answer in (*answers, *whole) if isinstance(answer, Declined)]
    told = any(_LINE.search(answer.reason) or answer.patch for answer in declined)
    return answers if told or len(declined) < len(answers) + len(whole) else whole


def _with_patch(remedy: Remedy, context: Context, answers: Answer) -> Answer:
    """Add to a decline the change that the remedy would make to a module that led to the error, to copy."""
    plain = next((a for a in answers if isinstance(a, Declined) and not a.patch), None)
    for module, inside in in_modules(context) if plain is not None else ():
        for proposal in _answers(remedy, inside):
            if isinstance(proposal, Proposal) and proposal.takes_effect == "rerun" and not proposal.new_cell:
                return (as_patch(module, proposal, cast(Declined, plain)),)
    return answers


def _undone(context: Context, answer: Proposal | Declined) -> Proposal | Declined:
    """Add to a proposal's ``undo`` what the names held that its cell sets and the cell as it was does not.

    A model that only a function holds cannot be reached by ``undo``: what would change it is declined.
    """
    if isinstance(answer, Declined) or answer.new_cell:
        return answer
    local = [model.name for model in context.recording.facts.models if model.local]
    touched = names_of_lines(answer.undo)
    unreachable = next((name for name in local if name.partition(".")[0] in touched), None)
    if unreachable is not None:
        reason = f"only a function holds `{unreachable}`, so what it sets there could not be taken back"
        return Declined(answer.key, answer.title, reason)
    back = names_back(answer.original, answer.source, context.recording.facts)
    return replace(answer, undo="\n".join(code for code in (back, answer.undo) if code)) if back else answer


def _answers(remedy: Remedy, context: Context) -> Answer:
    try:
        return remedy.propose(context)
    except Exception as error:
        reason = f"it failed on this cell ({type(error).__name__}: {error}); please report that"
        return (Declined(remedy.KEY, remedy.TITLE, reason),)


def _rank(answer: Proposal | Declined) -> tuple[int, ...]:
    if isinstance(answer, Declined):
        return (1,)
    rank = PRESERVES.index(answer.preserves)
    # A cell of its own does not help the one that failed. Between two that keep as much, the one whose effect the
    # rerun can check comes first.
    first = (answer.new_cell, not answer.answers_cause, answer.takes_effect == "restart", answer.doubtful)
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
        return replace(merged, choices=tuple(_choices(context, ordered, steps)))
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
            best = min(_asked(remedy, context), key=_rank, default=nothing)
            return (best.settings or best) if isinstance(best, Declined) else best
    return Declined(key, key, "there is no such remedy")


def _titles(answers: Sequence[Proposal | Declined]) -> str:
    return " + ".join(answer.title for answer in answers)
