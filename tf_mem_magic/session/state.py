"""A run as a value with states, a rerun with an identity, and the register in which a session keeps both."""

from __future__ import annotations

import uuid
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tf_mem_magic.core.lineage import Lineage, Measured
from tf_mem_magic.core.proposals import Proposal
from tf_mem_magic.core.recording import Cell
from tf_mem_magic.core.tag import TAG

if TYPE_CHECKING:
    from tf_mem_magic.api import Report
    from tf_mem_magic.core.outcome import Outcome
    from tf_mem_magic.facts.before import Before
    from tf_mem_magic.views.presenter import Presenter

KEPT_RUNS = 64
"""Finished runs, and sources that count as reruns, that a session remembers."""

State = Literal["planned", "recording", "explained", "offered", "superseded", "retired"]
"""Where a run stands.

``planned``: it is to come. ``recording``: its cell runs. ``explained``: its report stands. ``offered``: with choices
that still can be taken. ``superseded``: another run of the cell has taken over. ``retired``: it ended without a
report, or the person has put its choices away.
"""

_NEXT: dict[State, tuple[State, ...]] = {
    "planned": ("recording", "retired"),
    "recording": ("explained", "retired"),
    "explained": ("offered", "superseded", "retired"),
    "offered": ("superseded", "retired"),
    "superseded": ("retired",),
    "retired": (),
}

How = Literal["click", "panel", "call", "auto", "restart", "copy"]
"""How a rerun came about.

``click``: the page runs the cell. ``panel``: the cell runs inside the panel's own output area. ``call``:
``report.rerun``. ``auto``: without a click. ``restart``: in a new kernel. ``copy``: a person pasted the proposed cell.
"""


def new_identity() -> str:
    """Make an identity for a run or a rerun."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Run:
    """One watched run of one cell, as a value.

    Attributes
    ----------
    cell : Cell
        What runs.
    lineage : Lineage
        The runs before it that remedies led from one to the next; with itself once it is explained.
    state : State
        Where it stands.
    rerun : Rerun or None
        Which rerun it is; None: a person ran the cell.
    identity : str
        Tells it from every other run.
    """

    cell: Cell
    lineage: Lineage = field(default_factory=Lineage)
    state: State = "planned"
    rerun: Rerun | None = None
    identity: str = field(default_factory=new_identity)

    def to(self, state: State) -> Run:
        """Give the run in its next state.

        Raises
        ------
        ValueError
            If no run goes from its state to that one.
        """
        if state == self.state:
            return self
        if state not in _NEXT[self.state]:
            raise ValueError(f"a run that is {self.state} cannot become {state}")
        return replace(self, state=state)

    def explained(self, outcome: Outcome) -> Run:
        """Give the run with its outcome: ``offered`` where that leaves choices, else ``explained``."""
        told = replace(self.to("explained"), lineage=self.lineage.finished(outcome))
        return told.to("offered") if outcome.applicable else told

    @property
    def how(self) -> How | None:
        """How it came about; None: a person ran the cell."""
        return self.rerun.how if self.rerun is not None else None


@dataclass(frozen=True, slots=True)
class Rerun:
    """A run that is to come: the cell that a remedy proposes, after the run that it was proposed for.

    Attributes
    ----------
    proposal : Proposal
        The remedy.
    from_run : Run
        The run before it.
    how : How
        Who runs it.
    source : str
        The cell as it will run: the proposal's own source, or that of one of its choices.
    identity : str
        Tells it from every other rerun; the page's message, and a restart's environment, carry it.
    """

    proposal: Proposal
    from_run: Run
    how: How
    source: str = ""
    identity: str = field(default_factory=new_identity)

    def __post_init__(self) -> None:
        if not self.source:
            object.__setattr__(self, "source", self.proposal.source)

    @property
    def continues(self) -> bool:
        """Whether it runs the same cell, changed; a remedy that is a cell of its own begins anew."""
        return not self.proposal.new_cell

    @property
    def lineage(self) -> Lineage:
        """The runs before it, the proposal noted."""
        return self.from_run.lineage.applying(self.proposal) if self.continues else Lineage()

    @property
    def run(self) -> Run:
        """The run as it is planned."""
        return Run(Cell(self.source), self.lineage, "planned", self)


@dataclass(frozen=True, slots=True)
class RanCell:
    """A cell that ran.

    Attributes
    ----------
    source : str
        Its text.
    cell_id : str or None
        The notebook's name of it; None where the page does not tell.
    count : int or None
        The execution count.
    seconds : float
        How long it took.
    succeeded : bool
        Whether it ended without an error.
    time : float
        When it ended (Unix time).
    """

    source: str
    cell_id: str | None
    count: int | None
    seconds: float
    succeeded: bool = True
    time: float = 0.0


class LiveRun(Protocol):
    """What is alive of a run while its session lasts: what buttons, reruns and restarts need of it."""

    run: Run
    report: Report | None
    results: list[weakref.ref[Any]]

    @property
    def host(self) -> Host:
        """The session that it belongs to."""

    @property
    def before(self) -> Before:
        """What the names of the notebook held when it began."""

    @property
    def presenter(self) -> Presenter:
        """Where it shows itself."""

    def rerun_here(self, key: str) -> Report:
        """Run the remedy's cell in this process; what ``report.rerun`` calls."""

    def supersede(self) -> None:
        """Freeze its panel: another run of the cell takes over."""

    def retire(self) -> None:
        """Freeze its panel for good."""


class Host(Protocol):
    """What a run's helpers need of the session."""

    shell: Any
    register: Register
    measured: tuple[Measured, ...]
    ran_cells: deque[RanCell]

    def carry_out(self, rerun: Rerun, *, store_history: bool = False) -> tuple[LiveRun | None, Any]:
        """Run a rerun's cell now; give its run (None: it did not begin) and IPython's result."""


class Register:
    """The runs of one session and the reruns that are to come, each by its identity.

    A rerun is found by its identity: carried by the page's message, or known because we run the cell ourselves. The
    text of the source finds one only where a person pasted a proposed cell, or a page lost the identity.
    """

    def __init__(self) -> None:
        self.newest: LiveRun | None = None
        """The run that finished last."""
        self._live: OrderedDict[str, LiveRun] = OrderedDict()
        self._announced: OrderedDict[str, Rerun] = OrderedDict()
        self._copies: OrderedDict[str, Rerun] = OrderedDict()
        self._due: Rerun | None = None
        self._ours: dict[str, LiveRun | None] = {}
        """The reruns that we run ourselves, and the runs that they have become."""

    def announce(self, rerun: Rerun) -> Rerun:
        """Let the run that carries the rerun's identity, or has its very source, be that rerun."""
        self._announced[rerun.identity] = rerun
        while len(self._announced) > KEPT_RUNS:
            self._announced.popitem(last=False)
        self._add_copy(rerun)
        return rerun

    def announce_copies(self, proposals: Iterable[Proposal], run: Run) -> None:
        """Let a run of a proposed cell be its rerun also where a person pasted it."""
        for proposal in proposals:
            for source in (proposal.source, *(choice.source for choice in proposal.choices)):
                if _plain(source) not in (_plain(proposal.original), _plain(proposal.replaces)):
                    self._add_copy(Rerun(proposal, run, "copy", source))

    def forget(self, identity: str) -> None:
        """Expect a rerun no more."""
        self._announced.pop(identity, None)
        for text in [text for text, copy in self._copies.items() if copy.identity == identity]:
            del self._copies[text]

    def make_due(self, rerun: Rerun) -> None:
        """Note that we run this rerun ourselves, now."""
        self._due = rerun
        self._ours[rerun.identity] = None

    def not_due(self) -> None:
        """Note that what was due has run, or cannot."""
        self._due = None

    def take(self, source: str, identity: str | None = None, cell_id: str | None = None) -> Rerun | None:
        """Find the rerun that the cell about to run is; it is not found a second time.

        After a restart other cells run before it, which may have the same text: ``cell_id`` tells them apart.
        """
        due = self._due
        if due is not None and due.source == source:
            self._due = None
            found: Rerun | None = due
        elif identity and identity in self._announced:
            found = self._announced[identity]
        else:
            found = self._copies.get(_plain(source))
            meant = found.from_run.cell.cell_id if found is not None and found.how == "restart" else None
            if meant and cell_id and meant != cell_id:
                return None
        if found is not None:
            self._announced.pop(found.identity, None)
        for text in {_plain(source), _plain(found.source if found is not None else source)}:
            copy = self._copies.get(text)
            if copy is not None and copy.continues:  # a cell of a remedy's own stays one, however often it runs
                del self._copies[text]
        return found

    def begun(self, live: LiveRun) -> None:
        """Note that a run began."""
        if live.run.rerun is not None and live.run.rerun.identity in self._ours:
            self._ours[live.run.rerun.identity] = live

    def taken_up(self, rerun: Rerun) -> LiveRun | None:
        """Give the run that a rerun of ours became; asked once. None: it did not begin."""
        return self._ours.pop(rerun.identity, None)

    def finished(self, live: LiveRun) -> None:
        """Note that a run has its report."""
        self.newest = live
        self._live[live.run.identity] = live
        while len(self._live) > KEPT_RUNS:
            self._live.popitem(last=False)[1].retire()

    def of(self, run: Run) -> LiveRun | None:
        """Find what is alive of a run."""
        return self._live.get(run.identity)

    def supersede(self, cell_id: str | None) -> None:
        """Let a new run take over from the finished ones of its cell; where the cell has no name, from all."""
        for live in self._open():
            if cell_id is None or live.run.cell.cell_id == cell_id:
                live.supersede()

    def close(self) -> None:
        """Retire every run."""
        for live in self._open():
            live.retire()
        self._announced.clear()
        self._copies.clear()

    def _open(self) -> Iterator[LiveRun]:
        return iter([live for live in self._live.values() if live.run.state in ("explained", "offered")])

    def _add_copy(self, rerun: Rerun) -> None:
        self._copies.pop(_plain(rerun.source), None)
        self._copies[_plain(rerun.source)] = rerun
        while len(self._copies) > KEPT_RUNS:
            self._copies.popitem(last=False)


def _plain(source: str) -> str:
    """Give a source as it is compared: a page may drop blank lines at the end, a person the bare tag."""
    text = source.rstrip()
    first, _, rest = text.partition("\n")
    return rest.rstrip() if first.rstrip() == TAG else text
