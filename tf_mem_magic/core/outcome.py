"""Outcome: everything about one run of a cell as one value; all that a renderer reads."""

from __future__ import annotations

from dataclasses import dataclass

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.proposals import Declined, Proposal
from tf_mem_magic.core.recording import Recording, Series


@dataclass(frozen=True, slots=True)
class Change:
    """What a run that failed had already changed, in one sentence for the user.

    ``kind`` is ``"steps"`` (training steps on a model that existed before), ``"reassigned"`` (the cell reads a name
    and rebinds it), ``"read-once"`` (it drew from a generator), or ``"file"`` (it may have written a file).
    """

    kind: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run in the history of a cell: ``label`` (``256``), its status, and its peak in bytes."""

    label: str
    status: str
    peak: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """One change that was tried without a click.

    Attributes
    ----------
    key, title : str
        The remedy.
    source : str
        The cell as it was tried.
    status : str
        How that ended.
    error : str
        The class of the error that ended it; empty: none did.
    peak : int or None
        Bytes of the main series.
    """

    key: str
    title: str
    source: str
    status: str
    error: str = ""
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Before and after a remedy, on one device.

    ``before`` and ``after`` are the two runs' series; ``expected`` the estimate's words (empty: none was given);
    ``checks`` what the edit promised and whether the rerun showed it, as ``(name, expected, seen)``. ``trained``: False
    where the first run was training and the rerun ended without a single step, which shows nothing.
    """

    key: str
    title: str
    status_before: str
    status_after: str
    before: Series | None
    after: Series | None
    limit: int | None = None
    expected: str = ""
    checks: tuple[tuple[str, int, int | None], ...] = ()
    text: str = ""
    original: str = ""
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run, explained.

    ``notices`` are sentences for the user that belong nowhere else (a source that failed, memory released).
    ``changes``: what the run already did that a rerun meets. ``leftovers``: names left holding memory, with bytes.
    ``further``: after a rerun that fitted, what else could be changed: on top of its remedy, or in its place.
    ``tries``: what was tried without a click, in order.
    """

    recording: Recording
    diagnosis: Diagnosis | None = None
    offered: tuple[Proposal, ...] = ()
    declined: tuple[Declined, ...] = ()
    comparison: Comparison | None = None
    history: tuple[Attempt, ...] = ()
    changes: tuple[Change, ...] = ()
    leftovers: tuple[tuple[str, int], ...] = ()
    notices: tuple[str, ...] = ()
    further: tuple[Proposal, ...] = ()
    tries: tuple[Try, ...] = ()

    @property
    def proposals(self) -> tuple[Proposal | Declined, ...]:
        """The remedies' answers: what can be applied, best first, then what is declined."""
        return (*self.applicable, *self.declined)

    @property
    def applicable(self) -> tuple[Proposal, ...]:
        """All that can be applied: what is offered, best first, then what else could be changed."""
        return (*self.offered, *self.further)

    @property
    def edits(self) -> tuple[Proposal, ...]:
        """The proposals that change the cell, best first."""
        return tuple(proposal for proposal in self.offered if not proposal.new_cell)

    @property
    def new_cells(self) -> tuple[Proposal, ...]:
        """The proposals that are cells of their own: the cell that ran stays as it is."""
        return tuple(proposal for proposal in self.offered if proposal.new_cell)
