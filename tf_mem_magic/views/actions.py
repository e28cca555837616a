"""What the panel can ask for. The panel knows these callables and nothing else of the shells behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.views.replay import Order


@dataclass(frozen=True, slots=True)
class NotebookCell:
    """A code cell of the open notebook, as the page tells: ``count`` is its execution count."""

    cell_id: str
    source: str
    count: int | None = None


@dataclass(frozen=True, slots=True)
class ReplayCell:
    """A cell on the checklist of a restart: its source, whether it is ticked, and what to know about it.

    ``seconds`` is its last duration (None: not seen), ``flags`` short warnings such as "installs packages".
    """

    cell_id: str
    source: str
    ticked: bool
    seconds: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ordered:
    """A restart that the page is to make: what it replays, and the code that the new kernel runs silently first."""

    order: Order
    prologue: str


class Actions(Protocol):
    """The shell's side of the panel's buttons. None of these raises."""

    def expect(self, source: str, key: str) -> str:
        """Note that the page is about to run ``source`` as the rerun for ``key``; give the rerun's identity.

        The page's message carries it. Empty for what is no rerun (``"undo"``).
        """

    def run_here(self, source: str, key: str, output: Any, ended: Callable[[], None]) -> None:
        """Run ``source`` on the main thread into the ipywidgets ``output``; for pages that cannot run cells.

        It may only be queued when this returns: ``ended`` is called when it has run.
        """

    def refusal_here(self, source: str) -> str | None:
        """Say why ``source`` cannot be run from the panel itself (top-level ``await``); None where it can."""

    def combine(self, keys: tuple[str, ...], picked: tuple[str, ...] | None = None) -> Proposal | Declined:
        """Give one proposal that applies the remedies ``keys`` together, or the reason why that cannot be.

        ``picked`` are the names that are ticked of what they let go of; None: as they were offered.
        """

    def undo(self) -> str:
        """Take back what the applied remedy set outside the cell, once its old code is back; say what was done."""

    def free(self, names: tuple[str, ...]) -> str:
        """Let go of what ``names`` hold; give one sentence saying what came back."""

    def checklist(self, proposal: Proposal, cells: tuple[NotebookCell, ...]) -> tuple[ReplayCell, ...]:
        """Give the cells before this one that a restart would replay."""

    def prepare_restart(self, proposal: Proposal, ticked: tuple[str, ...] | None = None, page: str = "") -> Ordered:
        """Save the plan of a restart to disk; say what the page has to do.

        ``ticked`` are the ids of the cells that the person left ticked on the checklist; None: there was none.
        ``page`` is the page that will run them.
        """

    def plan_restart(self, proposal: Proposal) -> str:
        """Save the plan of a restart that the person makes; say what to do then, or why it could not be saved."""

    def when_idle(self, work: Callable[[], None]) -> None:
        """Call ``work`` once the kernel has nothing else to do: until then it takes no message of the page."""

    def dismissed(self) -> None:
        """Note that the person closed the panel."""
