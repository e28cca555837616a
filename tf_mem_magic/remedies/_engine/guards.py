"""Named checks before a remedy: what must hold so that its change is not wrong, each with the sentence that refuses.

A remedy names those that it needs, in the order in which they are asked: ``GUARDS = (device_memory, training)``. One
that says it better in its own case gives its own sentence: ``device_memory.saying("…")``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tf_mem_magic.core.diagnosis import SituationKind
from tf_mem_magic.core.facts import untested_keras
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.notebook.follow.strategies import runs_under_a_strategy
from tf_mem_magic.notebook.text.ranges import shares_line
from tf_mem_magic.notebook.training import binds_model
from tf_mem_magic.remedies._engine.question import Ask


@dataclass(frozen=True, slots=True)
class Check:
    """A guard: ``why`` gives the sentence that refuses, empty where the check holds; ``words`` stand instead of it."""

    name: str
    why: Callable[[Ask], str]
    words: str = ""

    def __call__(self, ask: Ask) -> None:
        """Refuse where the check does not hold."""
        reason = self.why(ask)
        if reason:
            raise RefusedError(self.words or reason)

    def saying(self, words: str) -> Check:
        """Give the same check with a sentence of the remedy's own."""
        return replace(self, words=words)


def _check(why: Callable[[Ask], str]) -> Check:
    return Check(why.__name__, why)


@_check
def diagnosed(ask: Ask) -> str:
    """Check that it is known which memory ran out."""
    return "it is not known which memory ran out" if ask.diagnosis is None else ""


@_check
def device_memory(ask: Ask) -> str:
    """Check that it was not the computer's own memory that ran out."""
    return "the computer's own memory ran out, and this changes the memory of the device" if ask.host_ran_out else ""


@_check
def host_memory(ask: Ask) -> str:
    """Check that it was the computer's own memory that ran out."""
    if ask.diagnosis is None:
        return "it is not known which memory ran out"
    return "" if ask.host_ran_out else f"it was {ask.diagnosis.device} that ran out, not the computer's own memory"


def situation(kinds: tuple[SituationKind, ...], words: str) -> Check:
    """Give the check that it was one of these that ran out: a remedy made for them names them as its ``HELPS``."""
    return Check("situation", lambda ask: "" if ask.situation in kinds else words)


@_check
def not_of_others(ask: Ask) -> str:
    """Check that it was not another process that held the memory."""
    others = ask.diagnosis is not None and ask.diagnosis.cause == "other-process"
    return "it was memory that another process holds that was missing" if others else ""


@_check
def smaller_than_device(ask: Ask) -> str:
    """Check that the one tensor that failed would fit on the empty device.

    A program that XLA compiled takes the memory of all its tensors in one piece, which shrinks with any of them.
    """
    too_large = ask.diagnosis is not None and ask.diagnosis.larger_than_device and not ask.diagnosis.jit
    return "one allocation alone is larger than the device, and it is needed with this too" if too_large else ""


@_check
def python(ask: Ask) -> str:
    """Check that the cell can be read as Python."""
    ask.cell  # noqa: B018 - it refuses
    return ""


@_check
def uses_keras(ask: Ask) -> str:
    """Check that the cell uses Keras."""
    return "the cell does not use Keras" if ask.facts.keras is None else ""


@_check
def keras_3(ask: Ask) -> str:
    """Check that the cell uses Keras 3."""
    if ask.facts.keras is None:
        return "the cell does not use Keras"
    return "this is Keras 2 (tf_keras), with which it was not tested" if ask.facts.keras.startswith("2.") else ""


def keras_since(major: int, minor: int) -> Check:
    """Give the check that Keras is not older than what a remedy was tested with."""
    return Check("keras_since", lambda ask: untested_keras(ask.facts, (major, minor)))


@_check
def no_strategy(ask: Ask) -> str:
    """Check that what ran out is under no distribution strategy."""
    if not ask.notebook.has("Strategy"):
        return ""
    lines = frozenset(line for line in (*ask.lines, ask.line or 0) if 1 <= line <= len(ask.cell.starts))
    found = runs_under_a_strategy(Reader(ask.cell, ask.facts, lines))
    return "the training runs under a distribution strategy, with which it was not tested" if found else ""


@_check
def training(ask: Ask) -> str:
    """Check that it was not inference that ran out: nothing on the way to the error predicts or evaluates alone."""
    if method := ask.inference:
        return f"it ran out of memory outside training, in `{method}`"
    return ""


@_check
def inference(ask: Ask) -> str:
    """Check that it was inference that ran out: something on the way to the error predicts or evaluates."""
    return "" if ask.inference else "it ran out of memory in training, or it is not known where"


@_check
def trains(ask: Ask) -> str:
    """Check that the statement that trains is found in the cell."""
    ask.place  # noqa: B018 - it refuses
    return ""


@_check
def model_known(ask: Ask) -> str:
    """Check that the model that the cell trains is a Keras model whose facts are known."""
    ask.model  # noqa: B018 - it refuses
    return ""


@_check
def model_made_here(ask: Ask) -> str:
    """Check that the cell makes the model that it trains."""
    return "" if ask.model.is_new else f"`{ask.model.name}` was made before this cell"


@_check
def model_of_an_earlier_cell(ask: Ask) -> str:
    """Check that the model that the cell trains was made before it."""
    return f"`{ask.model.name}` is made in this cell" if ask.model.is_new else ""


@_check
def by_keras(ask: Ask) -> str:
    """Check that Keras's own methods train (``fit``), not a loop of the notebook's own."""
    return "" if ask.place.by_keras else "the cell trains in a loop of its own, not by a method of Keras"


@_check
def a_plain_name(ask: Ask) -> str:
    """Check that a plain name holds the model, so that lines written before the training can name it."""
    return "" if ask.place.model.isidentifier() else f"`{ask.place.model}` is no plain name"


@_check
def a_line_of_its_own(ask: Ask) -> str:
    """Check that the statement that trains shares its line with no other before it."""
    shared = shares_line(ask.cell, ask.place.statement)
    return "the statement that trains shares its line with another: give it a line of its own" if shared else ""


@_check
def model_not_made_in_the_statement(ask: Ask) -> str:
    """Check that the top-level statement that trains does not itself decide which model its name means."""
    bound = binds_model(ask.place.top, ask.place.model)
    return f"`{ask.place.model}` is made or chosen in the statement that trains it" if bound else ""


@_check
def apply_is_free(ask: Ask) -> str:
    """Check that no cell uses the name ``apply`` for something of its own."""
    return "the notebook uses the name `apply` for something of its own" if ask.notebook.takes("apply") else ""
