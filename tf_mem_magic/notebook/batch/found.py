"""The batch size that was found, with all that must change with it, and the cell with another value."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from tf_mem_magic.core.facts import BatchSeen
from tf_mem_magic.core.proposals import RefusedError
from tf_mem_magic.notebook.batch.steps import Steps, argument, scale
from tf_mem_magic.notebook.follow.reader import Slot
from tf_mem_magic.notebook.text.cell import PythonCell
from tf_mem_magic.notebook.text.edits import Editor
from tf_mem_magic.notebook.text.ranges import CellEdit, first_statement, insert_line


@dataclass(frozen=True, slots=True)
class BatchFound:
    """The batch size that feeds the failing line, and all that must change with it.

    Attributes
    ----------
    cell : PythonCell
        The cell.
    value : int
        The batch size, for one replica where ``per_replica``.
    slots : tuple of Slot
        The places that set it.
    method : str
        The method of Keras that runs, ``"validation"`` where only the validation in ``fit`` is meant, or ``"loop"``.
    receiver : str or None
        The name of the model.
    seen : int or None
        What Keras was observed to use.
    per_replica : bool
        It is multiplied by the number of replicas.
    validation : tuple of Slot
        The places that set the batch size of the validation data.
    steps : tuple of Steps
        Numbers of steps that must grow.
    names : frozenset of str
        The names that change with it.
    notes : tuple of str
        Sentences for the user.
    validation_batch : int or None
        The batch size of the validation data.
    validation_notes : tuple of str
        Sentences for the user where that is changed too.
    imports : tuple of str
        Lines that the edit needs at the top.
    infers : bool
        What failed surely computes no gradients.
    call : ast.Call or None
        The call of Keras; None for a loop.
    of_samples : bool
        The call gets no more samples than these, so its batch size is set there alone.
    validation_names : frozenset of str
        The names that change with the batch size of the validation data.
    same_steps : bool
        The loop that takes the batches goes on taking as many, each of fewer samples.
    parts : int
        A size must be a multiple of that: the cell takes batches of such a part of it too.
    capped : str
        What is handed on beside the size, may be a number of batches, and stays as it is; empty: nothing is.
    beside : tuple of ast.Call
        Later calls that train the same model by batches of that size: they get the smaller ones too.
    """

    cell: PythonCell
    value: int
    slots: tuple[Slot, ...]
    method: str = "loop"
    receiver: str | None = None
    seen: int | None = None
    per_replica: bool = False
    validation: tuple[Slot, ...] = ()
    steps: tuple[Steps, ...] = ()
    names: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    validation_batch: int | None = None
    validation_notes: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    infers: bool = False
    call: ast.Call | None = None
    of_samples: bool = False
    same_steps: bool = False
    validation_names: frozenset[str] = frozenset()
    parts: int = 1
    capped: str = ""
    beside: tuple[ast.Call, ...] = ()

    def keeps(self, validation: BatchSeen | None) -> int | None:
        """Give the batch size of the validation where the edit leaves it as it is; None: it changes, or there is none.

        ``validation``: what Keras was seen to use.
        """
        own = self.method == "fit" and self.validation_batch is None and not self.validation
        return validation.batch if own and validation is not None else None

    @property
    def undo(self) -> tuple[str, ...]:
        """The lines that set back what the edit sets on objects of earlier cells."""
        return tuple(slot.undo for slot in (*self.slots, *self.validation) if slot.undo)

    def divisor_of(self, batch: int, exactly: bool = False) -> int:
        """Return the largest batch size up to ``batch`` that leaves steps and batches as whole as they were.

        Keras itself copes with an incomplete last batch. A loop, a dataset that drops the rest, a step that makes its
        noise for whole batches, and a number of steps do not: for them only a divisor of the old size is safe. With
        ``exactly`` only a divisor is given for any.

        Raises
        ------
        RefusedError
            If the cell divides each batch, and so few samples cannot be.
        """
        fixed = any(s.name != "validation_steps" and s.samples is None and not s.whole for s in self.steps)
        free = not exactly and not fixed and (self.of_samples or self._by_keras_alone)
        sizes = (n for n in range(max(batch, 1), 0, -1) if free or self.value % n == 0)
        found = next((n for n in sizes if n % self.parts == 0), None)
        if found is None:
            raise RefusedError(
                f"the cell divides its batch of {self.value} by {self.parts} too: one of fewer than {self.parts} "
                "samples would have an empty part"
            )
        return found

    @property
    def _by_keras_alone(self) -> bool:
        """Whether the number stands in the call of Keras, and nothing else changes with it."""
        if self.call is None or self.names:
            return False
        calls = [(self.cell.start(one), self.cell.end(one)) for one in (self.call, *self.beside)]
        slots = (*self.slots, *self.validation)
        return all(
            any(first <= s.start <= s.end <= last for first, last in calls) and not s.dataset and not s.counts
            for s in slots
        )


def set_batch(found: BatchFound, batch: int, more: tuple[CellEdit, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """Return the cell with the batch size set to ``batch`` and ``more`` edits, and the sentences that go with it.

    Raises
    ------
    RefusedError
        If an epoch would no longer see all samples, or the edit cannot be sure.
    """
    cell = found.cell
    edits = [*more, *(slot.edit(batch) for slot in found.slots)]
    larger = [slot for slot in found.validation if slot.value > batch]
    edits += [slot.edit(batch) for slot in larger]
    kept = _kept_smaller((*found.slots, *larger), found.steps)
    notes = [*kept, *found.notes, *(found.validation_notes if larger else ())]
    if found.imports:
        edits.append(insert_line(cell, first_statement(cell), *found.imports))
    for steps in found.steps:
        validating = steps.name == "validation_steps" or steps.of_validation
        old = found.validation_batch if validating else found.value
        note = "" if old is None else scale(cell, steps, old, min(old, batch), edits)
        if note:
            notes.append(note)
    changed = Editor(cell).edit(*edits).source()
    if changed == cell.source:
        raise RefusedError("the change would leave the cell as it is")
    return changed, tuple(dict.fromkeys(notes))


def _kept_smaller(slots: tuple[Slot, ...], steps: tuple[Steps, ...]) -> tuple[str, ...]:
    """Say which data of earlier cells stay as they are set, where a number of their batches was asked for."""
    names = list(dict.fromkeys(f"`{slot.owner}`" for slot in slots if slot.owner))
    if not names or all(one.whole for one in steps):
        return ()
    keep, it = ("keeps its", "it") if len(names) == 1 else ("keep their", "them")
    told = " and ".join(names)
    return (f"{told} {keep} smaller batches: a later cell that asks {it} for a number of steps gets fewer samples.",)


def unknown_counts(
    slots: Iterable[Slot], method: str, call: ast.Call | None, extra: ast.expr | None, steps: Iterable[Steps]
) -> tuple[str, ...]:
    """Say of the data that ``method`` computes on what follows where nobody knows how many batches they have.

    The number of steps is known where the call gives one.
    """
    given = call is not None and _gives(call, extra, "steps_per_epoch" if method == "fit" else "steps", steps)
    if method != "fit":
        effect = "" if given else "its progress shows no total, and Keras may warn that the input ran out"
    elif given:
        effect = "where the steps of all epochs go past its end, one epoch ends early and Keras warns"
    else:
        effect = "the first epoch shows no total, and Keras may warn that the input ran out"
    return _notes(slots, effect)


def unknown_in_validation(
    slots: Iterable[Slot], call: ast.Call, extra: ast.expr | None, steps: Iterable[Steps]
) -> tuple[str, ...]:
    """Say it of the data that ``fit`` validates on: each validation begins anew, and shows no total anyway."""
    given = _gives(call, extra, "validation_steps", steps)
    return _notes(slots, "" if given else "Keras may warn that the input of the validation ran out")


def _gives(call: ast.Call, extra: ast.expr | None, name: str, steps: Iterable[Steps]) -> bool:
    expr = argument(call, extra, name, None)
    none = expr is None or (isinstance(expr, ast.Constant) and expr.value is None)
    return not none and not any(one.name == name and one.whole for one in steps)


def _notes(slots: Iterable[Slot], effect: str) -> tuple[str, ...]:
    names = dict.fromkeys(slot.dataset for slot in slots if slot.uncounted) if effect else ()
    return tuple(f"TensorFlow no longer knows how many batches `{name}` has: {effect}." for name in names)
