"""Ticks: boxes beside the proposals; what is ticked together is offered together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.views import controls

Combine = Callable[[tuple[str, ...]], Proposal | Declined]
Offer = Callable[[Proposal | Declined], Any]


class Ticks:
    """The boxes of one panel, and ``widget``, where the combination of the ticked ones is offered.

    ``combine`` answers for the keys of two or more remedies; ``offer`` makes the widget of its answer.
    """

    def __init__(self, combine: Combine, offer: Offer) -> None:
        self._combine, self._offer = combine, offer
        self._boxes: dict[str, Any] = {}
        self.widget = controls.column()

    def box(self, proposal: Proposal) -> Any:
        """Make the box of one proposal."""
        box = controls.checkbox(
            "combine with others that are ticked",
            f"Apply {proposal.title} together with others that are ticked",
            self._changed,
        )
        self._boxes[proposal.key] = box
        return box

    def refresh(self) -> None:
        """Ask anew for what is ticked: something else about it has changed."""
        self._changed()

    def _changed(self) -> None:
        keys = tuple(key for key, box in self._boxes.items() if box.value)
        controls.fill(self.widget, *([self._offer(self._combine(keys))] if len(keys) > 1 else []))
