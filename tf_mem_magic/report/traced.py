"""What a report says of the steps that ``--trace`` watched: their peak, what filled it, and which layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.step import TracedSteps
from tf_mem_magic.core.units import Unit, brief_unit
from tf_mem_magic.memory.events import MOST_HOLDERS
from tf_mem_magic.report.measures import amount, took
from tf_mem_magic.report.sentences import PART_WORDS, Share

MOST_ROWS = 14
"""Rows of the table by layer and kind."""

_SMALL = 0.02
"""Share of the peak below which a kind is not named by itself."""

_GREW = 1 << 16
"""Bytes more from step to step that are worth a sentence."""

KIND_WORDS = {
    **PART_WORDS,
    "values": "held beside the steps",
    "other": "of operations without a name",
}
"""What a traced step's memory is called; ``values`` is what lay there before beside the models' variables."""


@dataclass(frozen=True, slots=True)
class StepsView:
    """Traced steps, ready to be set out.

    Attributes
    ----------
    heading : str
        How many steps, how long, and their peak.
    shares : tuple of Share
        What the bytes in use at the peak were, largest first.
    layers : str
        The three largest layers; empty where none is known.
    rows : tuple of (str, str, str, str)
        Bytes, share of the peak, layer and kind, most first.
    more : str
        How many rows are left out.
    notes : tuple of str
        What else is to be said: growth, what the trace could not see.
    traced : TracedSteps
        The numbers, for a picture.
    unit : Unit
        The one unit of its numbers.
    """

    heading: str
    shares: tuple[Share, ...]
    layers: str
    rows: tuple[tuple[str, str, str, str], ...]
    more: str
    notes: tuple[str, ...]
    traced: TracedSteps
    unit: Unit


def steps_view(outcome: Outcome) -> StepsView | None:
    """Decide what is shown of traced steps; None where none were asked for."""
    traced = outcome.recording.traced
    if traced is None:
        return None
    unit = brief_unit([traced.peak])
    if traced.why_not:
        return StepsView(f"No steps were traced: {traced.why_not}.", (), "", (), "", (), traced, unit)
    worth = [row for row in traced.holders if row.bytes >= max(_SMALL * traced.peak, 1)] or list(traced.holders[:3])
    rows = tuple(
        (
            amount(row.bytes, unit),
            _percent(row.bytes, traced.peak),
            row.layer or "of no layer",
            KIND_WORDS.get(row.kind, row.kind),
        )
        for row in worth[:MOST_ROWS]
    )
    return StepsView(
        _heading(traced, unit),
        _shares(traced, unit),
        _largest(traced, unit),
        rows,
        _more(traced, len(rows)),
        (*_growth(traced, unit), *_unknown(traced), *traced.notes),
        traced,
        unit,
    )


def _more(traced: TracedSteps, shown: int) -> str:
    """Say how many rows are left out; of very many the recording itself holds the largest alone."""
    rest = len(traced.holders) - shown
    if not (shown and rest):
        return ""
    return "and smaller ones" if len(traced.holders) >= MOST_HOLDERS else f"and {rest} smaller"


def _heading(traced: TracedSteps, unit: Unit) -> str:
    what = f"{traced.steps} {'step' if traced.steps == 1 else 'steps'} in" if traced.steps else "what ran for"
    return (
        f"Traced from {took(traced.began)}: {what} {took(traced.seconds)}, peak {amount(traced.peak, unit)} in use on "
        f"{traced.device} after {took(traced.peak_time)}"
    )


def _shares(traced: TracedSteps, unit: Unit) -> tuple[Share, ...]:
    small = [(kind, held) for kind, held in traced.parts if held < _SMALL * traced.peak]
    shown = traced.parts if len(small) < 2 else tuple(part for part in traced.parts if part not in small)
    shares = [
        Share(kind, KIND_WORDS.get(kind, kind), amount(held, unit), "TensorFlow's allocator", held / traced.peak)
        for kind, held in shown
    ]
    if len(shown) < len(traced.parts):
        rest = sum(held for _, held in small)
        names = ", ".join(KIND_WORDS.get(kind, kind) for kind, _ in small)
        shares.append(Share("other", "small parts", amount(rest, unit), names, rest / traced.peak))
    return tuple(shares)


def _largest(traced: TracedSteps, unit: Unit) -> str:
    by_layer: dict[str, int] = {}
    for row in traced.holders:
        if row.layer and row.kind != "updates":
            by_layer[row.layer] = by_layer.get(row.layer, 0) + row.bytes
    ranked = sorted(by_layer.items(), key=lambda entry: -entry[1])[:3]
    named = ", ".join(f"`{name}` {amount(held, unit)}" for name, held in ranked)
    return f"Largest layers at the peak: {named}." if named else ""


def _growth(traced: TracedSteps, unit: Unit) -> tuple[str, ...]:
    """Say that each step leaves more behind, where each of them did; data drawn ahead is not meant."""
    left = [held - data for held, data in zip(traced.in_use, traced.data)]
    more = [after - before for before, after in pairwise(left)]
    if len(more) < 2 or min(more) < _GREW:
        return ()
    least, most = amount(min(more)), amount(max(more))
    return (f"Each step leaves {least if least == most else f'{least} to {most}'} more in use than it found.",)


def _unknown(traced: TracedSteps) -> tuple[str, ...]:
    if not traced.unknown:
        return ()
    pieces = f"{traced.unknown} {'piece' if traced.unknown == 1 else 'pieces'} ({amount(traced.unknown_bytes)})"
    return (f"{pieces} freed meanwhile had been allocated before the trace began.",)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""
