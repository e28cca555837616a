"""Several remedies as one: the context of the cell that one has changed, and their proposals put together."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import combinations

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.core.proposals import Context, Declined, LineTitles, Preserves, Proposal
from tf_mem_magic.core.recording import ErrorText, Frame
from tf_mem_magic.core.tag import dropped_lines

PRESERVES: tuple[Preserves, ...] = (
    "same results",
    "same effective batch",
    "same model, other gradients",
    "close numerics",
    "nothing",
)
"""How much a remedy keeps, most first; between two that change results, the one whose effect is surer."""


def changed_context(context: Context, proposal: Proposal) -> Context | str:
    """Give what is known of the cell that ``proposal`` has changed; a text is the reason why that is not sure.

    Lines of errors move with the text. The batch and the environment are those that the proposal promises. Measured
    points are left out: they are of the cell as it was.
    """
    moved = moved_lines(split_lines(context.cell.source), split_lines(proposal.source))
    try:
        changed = moved_context(context, proposal.source, moved)
    except KeyError:
        return f"{proposal.title} rewrites the line that ran out of memory"
    facts = changed.recording.facts
    facts = replace(
        facts,
        environment=tuple({**dict(facts.environment), **dict(proposal.environment)}.items()),
        batches=_promised(facts.batches, next((n for name, n in proposal.expects if "batch" in name), None)),
    )
    applied = context.applied if proposal.effect is None else context.applied.then(proposal.effect)
    return replace(changed, recording=replace(changed.recording, facts=facts), points=(), applied=applied)


def moved_context(context: Context, source: str, moved: Mapping[int, int]) -> Context:
    """Give the context of the cell written as ``source``; ``moved`` says where its lines (from 1) have gone.

    Raises
    ------
    KeyError
        If a line that led to the error is not in ``moved``.
    """
    old = context.cell.source
    head = _blank_lines(old)
    dropped = head + dropped_lines(old)
    recording, diagnosis = context.recording, context.diagnosis
    errors = tuple(_moved_error(error, moved, dropped) for error in recording.errors)
    diagnosis = None if diagnosis is None else _moved_diagnosis(diagnosis, moved, head, dropped)
    cell = replace(context.cell, source=source)
    return replace(
        context,
        cell=cell,
        recording=replace(recording, cell=cell, errors=errors),
        diagnosis=diagnosis,
        titles=_moved_titles(context, source, moved),
    )


def _moved_titles(context: Context, source: str, moved: Mapping[int, int]) -> LineTitles:
    """Call each line of the new text what it was called; what the edit has put in goes by the line above it."""
    came = {new: old for old, new in moved.items()}
    titles: list[int | str] = []
    for line in range(1, len(split_lines(source)) + 1):
        old = came.get(line)
        if old is None:
            titles.append(titles[-1] if titles else 1)
        else:
            titles.append(context.titles[old - 1] if old <= len(context.titles) else old)
    return tuple(titles)


def merge(steps: Sequence[Proposal], key: str, title: str) -> Proposal | Declined:
    """Put proposals together, each made from the source of the one before it: one edit, one restart, one undo.

    Declined where two of them cannot be applied together, or set the same variable to different values.
    """
    alone = next((one for one in steps if one.new_cell), None)
    if alone is not None and len(steps) > 1:
        return Declined(key, title, f"{_named(alone)} is a cell of its own: add it on its own")
    for one, other in combinations(steps, 2):
        if other.key in one.excludes or one.key in other.excludes:
            return Declined(key, title, f"{_named(one)} and {_named(other)} cannot be applied together")
        clash = sorted(n for n, v in one.environment if dict(other.environment).get(n, v) != v)
        if clash:
            return Declined(key, title, f"{_named(one)} and {_named(other)} set {clash[0]} to different values")
    return replace(reduce(_merged, steps), key=key, title=title)


def _merged(one: Proposal, other: Proposal) -> Proposal:
    return replace(
        other,
        original=one.original,
        preserves=max(one.preserves, other.preserves, key=PRESERVES.index),
        estimate=None,
        takes_effect="restart" if "restart" in (one.takes_effect, other.takes_effect) else "rerun",
        caveats=tuple(dict.fromkeys((*one.caveats, *other.caveats))),
        why=" ".join(why for why in (one.why, other.why) if why),
        expects=tuple({**dict(one.expects), **dict(other.expects)}.items()),
        environment=tuple(dict((*one.environment, *other.environment)).items()),
        prologue=_joined(one.prologue, other.prologue),
        choices=(),
        undo=_joined(other.undo, one.undo),
        answers_cause=one.answers_cause or other.answers_cause,
        excludes=tuple(dict.fromkeys((*one.excludes, *other.excludes))),
        asks=one.asks or other.asks,
        taken_over=(*one.taken_over, *other.taken_over),
        picks=(),
        cost=", ".join(cost for cost in (one.cost, other.cost) if cost),
        technique=" + ".join(name for name in (one.technique, other.technique) if name),
        effect=one.effect.then(other.effect) if one.effect is not None and other.effect is not None else None,
    )


def _named(proposal: Proposal) -> str:
    return f"“{proposal.title}”"


def _joined(*codes: str) -> str:
    return "\n".join(code.rstrip("\n") for code in codes if code.strip()) + ("\n" if any(codes) else "")


def _promised(batches: tuple[BatchSeen, ...], batch: int | None) -> tuple[BatchSeen, ...]:
    """Put the batch that a proposal promises in place of the one that training was seen to use."""
    seen = {one.batch for one in batches if one.method == "fit"} or {one.batch for one in batches}
    if batch is None or len(seen) != 1:
        return batches
    return tuple(replace(one, batch=batch) if one.batch in seen else one for one in batches)


def moved_lines(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """Give for each line of the old text (from 1) the line of the new that it became; lines without one are left out.

    A line may be indented anew. Where as many lines replace others, each stands for the one in its place; where more or
    fewer do, for the one that is most like it, if any is. A line that stands once in both texts stands for itself.
    """
    moved: dict[int, int] = {}
    old, new = [s.strip() for s in old], [s.strip() for s in new]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, start, end, other, other_end in matcher.get_opcodes():
        if kind == "equal" or (kind == "replace" and end - start == other_end - other):
            moved.update((start + i + 1, other + i + 1) for i in range(end - start))
        elif kind == "replace":
            alike = _most_alike(old[start:end], new[other:other_end])
            moved.update((start + i + 1, other + j + 1) for i, j in alike)
    once = {line for line in old if old.count(line) == new.count(line) == 1}
    moved.update((old.index(line) + 1, new.index(line) + 1) for line in once)
    return moved


ALIKE = 0.6
"""How much of two lines must be alike (:meth:`difflib.SequenceMatcher.ratio`) before one stands for the other."""

_MOST_COMPARED = 400
"""Pairs of lines that are compared; of more, none stands for another."""


def _most_alike(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Give for lines of ``old`` those of ``new`` that are most like them, both in their order."""
    if len(old) * len(new) > _MOST_COMPARED:
        return []
    found: list[tuple[int, int]] = []
    least = 0
    for i, line in enumerate(old):
        ratios = [
            (difflib.SequenceMatcher(None, line, new[j], autojunk=False).ratio(), -j) for j in range(least, len(new))
        ]
        best, at = max(ratios, default=(0.0, 0))
        if best >= ALIKE:
            found.append((i, -at))
            least = 1 - at
    return found


def _moved_error(error: ErrorText, moved: Mapping[int, int], dropped: int) -> ErrorText:
    return replace(error, frames=tuple(_moved_frame(frame, moved, dropped) for frame in error.frames))


def _moved_frame(frame: Frame, moved: Mapping[int, int], dropped: int) -> Frame:
    return replace(frame, line=moved[frame.line + dropped] - dropped) if frame.in_cell else frame


def _moved_diagnosis(diagnosis: Diagnosis, moved: Mapping[int, int], head: int, dropped: int) -> Diagnosis:
    line = diagnosis.line
    frame = diagnosis.frame
    return replace(
        diagnosis,
        line=None if line is None else moved[line + head] - head,
        frame=None if frame is None else _moved_frame(frame, moved, dropped),
    )


def split_lines(source: str) -> list[str]:
    """Split at every kind of line end; text that ends with one ends with an empty line."""
    return re.split(r"\r\n|\n|\r", source)


def _blank_lines(source: str) -> int:
    """Count the blank lines at the top, which IPython drops before it counts lines."""
    return len(split_lines(source[: len(source) - len(source.lstrip())])) - 1
