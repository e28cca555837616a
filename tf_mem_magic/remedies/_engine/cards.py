"""GPUs as remedies see them: which one ran out, how much of it others hold, what the notebook's code sets itself."""

from __future__ import annotations

from tf_mem_magic.core.facts import DeviceFacts, Facts
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.remedies._engine.question import Ask

DESKTOP = 64 << 20
"""Bytes on a card below which another process is a desktop's: one that computes needs more for CUDA alone."""


RESTARTS = "The kernel restarts: what it holds in memory is lost, and the cells that are ticked run again."
"""The caveat of what is set before TensorFlow starts."""


def list_cards(facts: Facts) -> tuple[DeviceFacts, ...]:
    """List the GPUs that TensorFlow sees."""
    return tuple(d for d in facts.devices if d.kind == "GPU")


def is_cuda(card: DeviceFacts) -> bool:
    """Whether the card is surely one of NVIDIA's, used through CUDA."""
    return card.compute_capability is not None or card.uuid is not None


def find_card(ask: Ask) -> DeviceFacts:
    """Find the NVIDIA card that ran out of memory.

    Raises
    ------
    RefusedError
        If no GPU ran out, or it is not surely one of NVIDIA's.
    """
    if not list_cards(ask.facts):
        raise RefusedError("TensorFlow sees no GPU here")
    if ask.diagnosis is None:
        raise RefusedError("it is not known that a GPU ran out of memory")
    if ask.host_ran_out:
        raise RefusedError("it was the computer's own memory that ran out, not a GPU")
    card = ask.facts.device(ask.diagnosis.device)
    if card is None or card.kind != "GPU":
        raise RefusedError(f"it was {ask.diagnosis.device} that ran out, not a GPU")
    if not is_cuda(card):
        raise RefusedError(f"{card.name} is not known to be an NVIDIA card")
    return card


def held_by_others(card: DeviceFacts) -> int | None:
    """Add up what other processes hold of a card, in bytes; None where that is not known."""
    held = [None] if card.others is None else [other.bytes for other in card.others]
    return None if None in held else sum(used for used in held if used is not None)


def is_occupied(card: DeviceFacts) -> bool | None:
    """Say whether another process computes on the card; None where nobody can tell."""
    if card.others is None:
        return None
    held = held_by_others(card)
    return held is None or held >= DESKTOP


def room(card: DeviceFacts) -> int | None:
    """Give the bytes of a card that other processes leave to this one; None where that is not known."""
    held = held_by_others(card)
    return None if held is None or card.total is None else card.total - held


def words_in_cells(ask: Ask, *words: str) -> str:
    """Give the first of ``words`` that stands in the cell or in one that ran before it; empty where none does."""
    return next((word for word in words if ask.notebook.mentions(word)), "")
