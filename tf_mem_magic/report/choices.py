"""What can be clicked, in words: one row for each change that is offered, and one line for each that is not."""

from __future__ import annotations

from dataclasses import dataclass

from tf_mem_magic.core.effects import Effect
from tf_mem_magic.core.outcome import Outcome
from tf_mem_magic.core.proposals import Choice, Declined, Preserves, Proposal
from tf_mem_magic.core.units import brief_unit, size_range
from tf_mem_magic.diagnose.expected import expected
from tf_mem_magic.report.measures import limit_of, unit_of

KEEPS: dict[Preserves, str] = {
    "same results": "same results",
    "same effective batch": "same average per step",
    "close numerics": "slightly different numbers",
    "same model, other gradients": "other gradients",
    "nothing": "changes the training",
}
"""What a change keeps, in plain words; they hold for a training, a prediction and a preparation of data."""

ANOTHER_MODEL = "another model; yours stays as it is"
"""What a new cell keeps that makes a model which is not the same."""

SHOWN = 3
"""Changes that are seen before anything is opened."""

UNKNOWN = "Nothing measured yet tells the peak to expect; the run after the change will."
"""What stands behind the empty place of an estimate."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The peak to expect: ``"7.0–8.1 GiB"``, the ``word`` (``"fits"``), and what that rests on.

    ``low`` and ``high`` are shares of the limit (0–1); None where it has none.
    """

    range: str
    word: str
    basis: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ChoiceView:
    """One change as a row.

    Attributes
    ----------
    proposal : Proposal
        What a click applies.
    number : int
        Its place in the list, from 1: what ``%tfmem apply`` takes.
    button : str
        What will happen, in the person's terms; the button's text.
    keeps : str
        What stays as it was, in plain words.
    cost : str
        What decides against it, in a few words (``slower on CPU``), or that it restarts the kernel; may be empty.
    expected : Expected or None
        None: nothing tells.
    technique : str
        What the field calls it: ``Mixed precision``.
    remarks : tuple of str
        Why it helps, then its caveats.
    """

    proposal: Proposal
    number: int
    button: str
    keeps: str
    cost: str
    expected: Expected | None
    technique: str
    remarks: tuple[str, ...]

    @property
    def opens(self) -> str:
        """What the row opens to."""
        return "new cell" if self.proposal.new_cell else "change"

    @property
    def diff(self) -> str:
        """The change of the cell; empty where it stays as it is."""
        return self.proposal.diff

    @property
    def source(self) -> str:
        """The whole changed cell."""
        return self.proposal.source

    @property
    def ways(self) -> tuple[Choice, ...]:
        """Further ways to apply it."""
        return self.proposal.choices

    @property
    def settings(self) -> tuple[str, ...]:
        """What is set before TensorFlow is imported: ``NAME=value``."""
        return tuple(f"{name}={value}" for name, value in self.proposal.environment)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one heading."""

    heading: str
    rows: tuple[ChoiceView, ...]


@dataclass(frozen=True, slots=True)
class DeclinedView:
    """One change that is not offered: ``patch`` would help elsewhere, ``settings`` is what can be had otherwise."""

    title: str
    reason: str
    patch: str = ""
    settings: ChoiceView | None = None


def choice_view(proposal: Proposal, outcome: Outcome, number: int = 0) -> ChoiceView:
    """Put a proposal in words."""
    costs = [proposal.cost] if proposal.cost else []
    if proposal.takes_effect == "restart":
        costs.append("restarts the kernel")
    return ChoiceView(
        proposal,
        number,
        proposal.title,
        ANOTHER_MODEL if proposal.new_cell and proposal.preserves == "nothing" else KEEPS[proposal.preserves],
        ", ".join(costs),
        expected_of(proposal, outcome),
        proposal.technique,
        tuple(text for text in (proposal.why, *proposal.caveats) if text),
    )


def expected_of(proposal: Proposal, outcome: Outcome) -> Expected | None:
    """Put a proposal's estimate in words, in the report's unit; None without one."""
    estimate, limit = proposal.estimate, limit_of(outcome)
    if estimate is None:
        return None
    unit = unit_of(outcome) if limit else brief_unit([estimate.low, estimate.high])
    words = size_range(estimate.low, estimate.high, unit)
    if not limit:
        return Expected(words, "", estimate.basis)
    return Expected(words, estimate.word(limit), estimate.basis, estimate.low / limit, estimate.high / limit)


def nothing_fits(outcome: Outcome) -> str:
    """Say that no change is expected to fit; empty where one may, or where what is to be done by hand is told."""
    diagnosis, limit = outcome.diagnosis, limit_of(outcome)
    if diagnosis is None or not limit or outcome.recording.status not in ("oom", "killed"):
        return ""
    if diagnosis.situation is not None and diagnosis.situation.advice:
        return ""
    words = [p.estimate.word(limit) if p.estimate is not None else "" for p in outcome.edits]
    if words:
        one = "The change that is offered is not expected to fit."
        more = "No change that is offered is expected to fit; the first comes nearest."
        return "" if set(words) != {"no"} else one if len(words) == 1 else more
    needs = expected(outcome.recording, diagnosis, Effect())
    if needs is None or needs.low <= limit:
        return ""
    told = size_range(needs.low, needs.high, unit_of(outcome))
    return f"No change to this cell was found that helps; as it is, it takes about {told}."


def declined_view(declined: Declined, outcome: Outcome) -> DeclinedView:
    """Put a decline in words."""
    settings = None if declined.settings is None else choice_view(declined.settings, outcome)
    return DeclinedView(declined.title, declined.reason, declined.patch, settings)


def not_offered(declined: tuple[Declined, ...]) -> str:
    """Count the declined remedies; empty where there are none."""
    if not declined:
        return ""
    patches = sum(bool(answer.patch) for answer in declined)
    return f"{len(declined)} not offered" + (f", {patches} with a change elsewhere to copy" if patches else "")
