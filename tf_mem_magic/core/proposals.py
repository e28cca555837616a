"""Proposal and Declined: what a remedy answers; Context: what it is asked with."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tf_mem_magic.core.diagnosis import Diagnosis
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.recording import Cell, Recording

Preserves = Literal["same results", "close numerics", "same effective batch", "same model, other gradients", "nothing"]
TakesEffect = Literal["rerun", "restart"]
Fit = Literal["fits", "likely", "tight", "no"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The peak to expect on the diagnosed device, ``low`` to ``high`` bytes, and what that rests on.

    ``in_pieces``: the free memory is expected to lie in pieces, none of which holds its largest buffer. ``by_pool``:
    it fits as long as a pool is cut as expected, that of a process which begins or the pieces of this one.
    """

    low: int
    high: int
    basis: str
    in_pieces: bool = False
    by_pool: bool = False

    def word(self, limit: int) -> Fit:
        """Say whether it fits: ``fits`` = high ≤ 0.9 limit, ``likely`` = high ≤ limit, ``tight``, ``no``.

        In pieces that are too small no number of bytes makes it more than ``tight``; where it hangs on how a pool is
        cut none makes it more than ``likely``: of seven that were to fit in a new process three ran out.
        """
        if self.in_pieces:
            return "tight" if self.low <= limit else "no"
        if self.high <= 0.9 * limit and not self.by_pool:
            return "fits"
        if self.high <= limit:
            return "likely"
        return "tight" if self.low <= limit else "no"


@dataclass(frozen=True, slots=True)
class Choice:
    """A further way to apply a proposal (``Continue from epoch 3``): its button text and its source.

    ``takes_effect`` is its own: where the proposal takes a restart, a choice may do without. ``is_whole``: it is the
    whole change all the same, which a fresh kernel only gives more room.
    """

    label: str
    source: str
    note: str = ""
    takes_effect: TakesEffect = "rerun"
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Pick:
    """Something that a proposal lets go of where a person ticks it: its ``name``, ``bytes``, and ``what`` it is."""

    name: str
    bytes: int
    what: str = ""
    ticked: bool = True


@dataclass(frozen=True, slots=True)
class Proposal:
    """A visible change to the cell that is expected to help.

    Attributes
    ----------
    key : str
        The remedy's key, such as ``smaller-batch``.
    title : str
        What will happen, in the user's terms and numbers: ``Batch 128``.
    source : str
        The whole new cell, its ``%%tfmem`` line included.
    original : str
        The cell it was made from.
    expects : tuple of (str, int)
        What the rerun must show for the edit to have worked, e.g. ``(("batch", 128),)``; ``batch of predict``, too.
    environment : tuple of (str, str)
        Variables to set before TensorFlow is imported (restart remedies).
    prologue : str
        Code to run first after a restart, before anything is imported.
    undo : str
        Code that takes back what the changed cell sets outside itself (a global dtype policy); empty: nothing.
    answers_cause : bool
        The remedy is made for the cause that was found, so it is shown first.
    excludes : tuple of str
        Keys of the remedies that cannot be applied together with this one.
    asks : bool
        It takes away what cannot be had again, so it is never applied without a click.
    new_cell : bool
        ``source`` is a cell of its own, to be added below: the cell that ran stays as it is.
    doubtful : bool
        It may take as much memory as it saves, so it is shown after what surely saves some.
    picks : tuple of Pick
        What can be ticked; ``source`` is made of what is (:attr:`Context.picked` asks for other ticks).
    instead_of : str
        The cell as it is now, where a remedy that this one would replace has changed it; empty: it is ``original``.
    taken_over : tuple of str
        Definitions of earlier cells that ``source`` begins with, changed, as they were before.
    cost : str
        What decides against it, in a few words that stand beside its button: ``slower on CPU``. Empty: nothing.
    technique : str
        What the field calls it, for whoever wants to read on: ``Mixed precision``. The engine fills it in.
    effect : Effect or None
        What the change does to memory, as data; the estimate is made of it in one place. None: nothing is known.
    """

    key: str
    title: str
    source: str
    original: str
    preserves: Preserves
    estimate: Estimate | None = None
    takes_effect: TakesEffect = "rerun"
    caveats: tuple[str, ...] = ()
    why: str = ""
    expects: tuple[tuple[str, int], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    prologue: str = ""
    choices: tuple[Choice, ...] = ()
    undo: str = ""
    answers_cause: bool = False
    excludes: tuple[str, ...] = ()
    asks: bool = False
    new_cell: bool = False
    picks: tuple[Pick, ...] = ()
    doubtful: bool = False
    instead_of: str = ""
    taken_over: tuple[str, ...] = ()
    cost: str = ""
    technique: str = ""
    effect: Effect | None = None

    @property
    def replaces(self) -> str:
        """The cell as it is now, which ``source`` takes the place of."""
        return self.instead_of or self.original

    @property
    def diff(self) -> str:
        """The change as a unified diff of the cell; empty where there is nothing to change. A new cell is all added.

        What an earlier cell defines and this one takes over stands there as it was, so that only its change shows.
        """
        before = [] if self.new_cell else self._with_definitions()
        names = ("nothing", "new cell") if self.new_cell else ("cell", "cell, changed")
        return "\n".join(difflib.unified_diff(before, self.source.splitlines(), *names, lineterm="", n=2))

    def _with_definitions(self) -> list[str]:
        lines = self.replaces.splitlines()
        missing = [block.splitlines() for block in self.taken_over]
        new = [line for block in missing if block[0] not in lines for line in (*block, "")]
        at = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("%%")), len(lines))
        return [*lines[:at], *new, *lines[at:]]


@dataclass(frozen=True, slots=True)
class Declined:
    """A remedy that is not offered, and the reason as a sentence for the user.

    ``patch`` is a change to code outside the cell that would help, to copy; never written by us. ``settings``: it
    can still be reached under other settings, with this proposal.
    """

    key: str
    title: str
    reason: str
    patch: str = ""
    settings: Proposal | None = None


class RefusedError(Exception):
    """Why a remedy cannot be offered, as a sentence; ``patch`` as in :class:`Declined`."""

    def __init__(self, reason: str, patch: str = "") -> None:
        super().__init__(reason)
        self.patch = patch

    def declined(self, key: str, title: str) -> Declined:
        """Give the answer of the remedy that was refused."""
        return Declined(key, title, str(self), self.patch)


@dataclass(frozen=True, slots=True)
class Point:
    """A measured run of the same cell: ``batch`` and the ``peak`` in bytes; ``fitted`` False where it ran out."""

    batch: int
    peak: int
    fitted: bool


LineTitles = tuple[int | str, ...]
"""What sentences call each line of a text that the person does not see: the line of their cell that it was, or the name
of the function of an earlier cell that it belongs to. Empty: the person sees this text."""


@dataclass(frozen=True, slots=True)
class Context:
    """All that a remedy is asked with.

    ``points`` are earlier runs of this cell, oldest first. ``picked`` are the names that a person has ticked
    (:class:`Pick`); None: nobody has, and the remedy ticks what it would. ``applied`` is what the changes that the cell
    has already, beside the one that is asked for, do to memory. ``titles``: see :data:`LineTitles`.
    """

    cell: Cell
    recording: Recording
    diagnosis: Diagnosis | None = None
    points: tuple[Point, ...] = ()
    picked: tuple[str, ...] | None = None
    applied: Effect = field(default_factory=Effect)
    titles: LineTitles = ()


Answer = tuple[Proposal | Declined, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A remedy's own example, which is its test: a cell, what is known, and the answer to expect.

    ``expect`` is the new source, or, for a decline, a part of its reason.
    """

    name: str
    context: Context
    expect: str
    declined: bool = False


class Remedy(Protocol):
    """One remedy: a module of ``tf_mem_magic.remedies`` with these four names."""

    KEY: str
    TITLE: str
    EXAMPLES: tuple[Example, ...]
    propose: Callable[[Context], Answer]
