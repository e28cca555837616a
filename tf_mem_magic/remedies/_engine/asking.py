"""Asking one remedy: about the cell, about the functions of earlier cells that it reaches, about imported modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

from tf_mem_magic.core import troubles
from tf_mem_magic.core.proposals import Answer, Context, Declined, Proposal, RefusedError, Remedy
from tf_mem_magic.notebook.bindings import names_back, names_of_lines, takes_apply, without_lines
from tf_mem_magic.notebook.earlier import earlier_cells
from tf_mem_magic.remedies._engine.functions import TakenOver, put_back, take_over
from tf_mem_magic.remedies._engine.modules import as_patch, in_modules
from tf_mem_magic.remedies._engine.question import Answering, Ask

_APPLY = "from tf_mem_magic import apply"


class Question:
    """What all remedies are asked about one run; the cell with the functions that it reaches is made once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.ask = Ask(context)

    @cached_property
    def taken(self) -> TakenOver | None:
        """The cell with the functions of earlier cells in front; None where there are none to see."""
        try:
            return take_over(self.context)
        except Exception as error:
            # What cannot be read is not taken over: the remedies are asked about the cell alone.
            troubles.note("functions of earlier cells could not be read together with the cell", error)
            return None

    @cached_property
    def inside(self) -> Ask | None:
        """The question about :attr:`taken`."""
        return None if self.taken is None else Ask(self.taken.context)


def ask(remedy: Remedy, question: Question) -> Answer:
    """Ask a remedy about the cell; where it declines, about the cell with the functions of earlier cells in it.

    One that declines then too shows what it would change in a module that led to the error. A remedy that raises is a
    decline that says so.
    """
    context = question.context
    answers = _answers(remedy, context, question.ask)
    try:
        answers = tuple(_undone(context, answer) for answer in answers)
        if any(isinstance(answer, Proposal) for answer in answers):
            return answers
        return _asked_further(remedy, question, answers)
    except Exception as error:
        troubles.note(f"{remedy.TITLE} was asked about the cell alone, not about what it calls", error)
        return answers


def _asked_further(remedy: Remedy, question: Question, answers: Answer) -> Answer:
    context, taken = question.context, question.taken
    if taken is None:
        return _with_patch(remedy, context, answers)
    in_helpers = bool(getattr(remedy, "IN_HELPERS", False))
    if not taken.led and not in_helpers:
        return _with_patch(remedy, context, answers)
    whole = _answers(remedy, taken.context, question.inside)
    proposals = [p for p in whole if isinstance(p, Proposal) and not p.new_cell]
    found = [put_back(taken, context, proposal, in_helpers) for proposal in proposals]
    good = tuple(_undone(taken.context, p) for p in found if isinstance(p, Proposal))
    if good:
        return good
    refused = [Declined(remedy.KEY, remedy.TITLE, reason) for reason in found if isinstance(reason, str)]
    unknown = _unknown_inside(question) if in_helpers else ""
    declined = [a for a in whole if isinstance(a, Declined) and a.reason != unknown] if taken.led else []
    return _with_patch(remedy, context, _nearer(answers, (*refused[:1], *declined)))


def _unknown_inside(question: Question) -> str:
    """Give what is said of a model that the functions know as a parameter only, and the cell alone knows."""
    inside = question.inside
    try:
        if inside is None or question.ask.place.facts is None or inside.place.facts is not None:
            return ""
        return inside.why_unknown(inside.place.model)
    except RefusedError:
        return ""


def _nearer(answers: Answer, whole: Sequence[Declined]) -> Answer:
    """Choose between the declines for a cell and those for it with the functions that led to the error.

    Those have seen more; a patch is for the cell where the code stands.
    """
    if not whole or len(whole) != len(answers) or any(isinstance(a, Declined) and a.patch for a in (*answers, *whole)):
        return answers
    return tuple(whole)


def _with_patch(remedy: Remedy, context: Context, answers: Answer) -> Answer:
    """Add to a decline the change that the remedy would make to a module that led to the error, to copy."""
    plain = next((a for a in answers if isinstance(a, Declined) and not a.patch), None)
    for module, inside in in_modules(context) if plain is not None else ():
        for proposal in _answers(remedy, inside):
            if isinstance(proposal, Proposal) and proposal.takes_effect == "rerun" and not proposal.new_cell:
                return (as_patch(context, module, proposal, cast(Declined, plain)),)
    return answers


def _undone(context: Context, answer: Proposal | Declined) -> Proposal | Declined:
    """Add to a proposal's ``undo`` what the names held that its cell sets and the cell as it was does not.

    A model that only a function holds cannot be reached by ``undo``: what would change it is declined. So is what would
    take the name ``apply`` from something of the notebook's own.
    """
    if isinstance(answer, Declined) or answer.new_cell:
        return answer
    before = earlier_cells(context.recording.facts.earlier_cells)
    texts = (answer.original, answer.source, *(before.texts[place] for place in before.places_with("apply")))
    if _APPLY in answer.source and any(takes_apply(text) for text in texts):
        return Declined(answer.key, answer.title, "the notebook uses the name `apply` for something of its own")
    # A model that this run made, and only its function held, is gone with it: another run makes another.
    gone = {m.name.partition(".")[0] for m in context.recording.facts.models if m.local and m.is_new}
    if gone and answer.undo:
        kept = without_lines(answer.undo, gone)
        answer = replace(answer, undo="" if kept == _APPLY else kept)
    local = [m.name for m in context.recording.facts.models if m.local and not m.is_new]
    touched = names_of_lines(answer.undo)
    unreachable = next((name for name in local if name.partition(".")[0] in touched), None)
    if unreachable is not None:
        reason = f"only a function holds `{unreachable}`, so what it sets there could not be taken back"
        return Declined(answer.key, answer.title, reason)
    back = names_back(answer.original, answer.source, context.recording.facts)
    return replace(answer, undo="\n".join(code for code in (back, answer.undo) if code)) if back else answer


def _answers(remedy: Remedy, context: Context, shared: Ask | None = None) -> Answer:
    """Answer by a remedy, whatever happens in it; what was read for ``context`` by others is in ``shared``."""
    try:
        if isinstance(remedy.propose, Answering):
            answers = remedy.propose.answer(shared or Ask(context))
        else:
            answers = remedy.propose(context)
        return tuple(_with_technique(answer, remedy.TITLE) for answer in answers)
    except Exception as error:
        troubles.note(f"the remedy {remedy.TITLE} failed on this cell", error)
        reason = f"it failed on this cell ({type(error).__name__}: {error}); please report that"
        return (Declined(remedy.KEY, remedy.TITLE, reason),)


def _with_technique(answer: Proposal | Declined, technique: str) -> Proposal | Declined:
    """Say what the field calls a proposal, also one that is reached under other settings."""
    if isinstance(answer, Proposal):
        return replace(answer, technique=technique)
    return (
        answer if answer.settings is None else replace(answer, settings=replace(answer.settings, technique=technique))
    )
