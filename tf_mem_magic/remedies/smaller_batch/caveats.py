"""What a smaller batch does to a training, beside the memory that it saves."""

from __future__ import annotations

import ast

from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.notebook.follow.reader import Reader
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.accumulate_gradients.bent_losses import read_losses
from tf_mem_magic.remedies.accumulate_gradients.turns import moved_by_steps
from tf_mem_magic.remedies.smaller_batch.as_many import draws_as_many, takes_as_many
from tf_mem_magic.remedies.smaller_batch.asked import STATEFUL, failing_lines, models_in

_UPDATES = ("apply_gradients", ".minimize(", ".assign", "assign_add", "assign_sub", ".apply(")
"""What changes weights in a loop of one's own, as it is written."""

_ADDS = ("sum", "reduce_sum", "l2_loss", "count_nonzero")

_TRAINS = (".fit(", "train_on_batch", "train_step", *_UPDATES)


def caveats_of(ask: Ask, found: BatchFound) -> tuple[str, ...]:
    """List what training with a batch smaller than the one that is found changes."""
    facts = ask.facts
    text = ask.source
    updates = not _only_reads_gradients(ask)
    behind = takes_as_many(ask, found) if updates else ""
    drawn = draws_as_many(ask, found) if updates and not behind else ""
    capped = "" if behind or drawn or found.same_steps else found.capped
    as_many = found.same_steps or bool(behind or drawn or capped)
    caveats = ["Each epoch takes more steps."] if updates and not as_many else []
    if behind:
        caveats.append(f"The loop in `{behind}` takes as many steps as before, each with fewer samples.")
    if drawn:
        caveats.append(f"Each call of `{drawn}` takes as many steps as before, each with fewer samples.")
    if capped:
        caveats.append(f"{capped} stays: if it counts batches, no more of them are taken, each with fewer samples.")
    models = models_in(facts, found)
    layers = {layer for m in models for layer in m.layers}
    if "BatchNormalization" in layers or (not layers and "BatchNormalization" in text):
        caveats.append("BatchNormalization computes its statistics from smaller batches.")
    if STATEFUL.search(text):
        caveats.append("A stateful layer goes on from the same row of the batch before: those rows are others now.")
    scheduled = any(m.schedule for m in models) or any(w in text for w in ("schedules.", "decay_steps"))
    if updates and scheduled and not as_many:
        caveats.append("The learning-rate schedule counts steps, so it moves on faster.")
    elif updates:
        caveats.append("A smaller learning rate may suit it better.")
    moved = "" if as_many or not updates or found.call is not None else moved_by_steps(_reader(ask))
    if moved:
        caveats.append(f"The loss reads `{moved}`, which changes with each step, so it changes faster.")
    if updates and ask.notebook.mentions(*_ADDS):
        caveats += _of_sums(ask, found)
    if found.per_replica or "Strategy(" in text:
        caveats.append("Under a distribution strategy Keras splits the batch given to fit over the replicas.")
    return tuple(caveats)


def _of_sums(ask: Ask, found: BatchFound) -> list[str]:
    """Say what a loss that adds up over the samples of a batch becomes."""
    losses = read_losses(_reader(ask), found.call, steps=True)
    if not losses.added:
        return []
    beside = ", and weighs less beside the loss's other terms" if losses.has_others else ""
    return [f"`{losses.added}` adds up over the samples of a batch: of fewer it is smaller{beside}."]


def _reader(ask: Ask) -> Reader:
    return Reader(ask.cell, ask.facts, failing_lines(ask))


def _only_reads_gradients(ask: Ask) -> bool:
    """Whether the cell takes gradients and no weight is surely updated by them: a map of what a model looks at."""
    if "GradientTape" not in ask.source or any(text in ask.source for text in _TRAINS):
        return False
    sums = (n for n in ask.cell.nodes if isinstance(n, ast.AugAssign) and not isinstance(n.value, ast.Constant))
    return not any(sums) and not ask.notebook.has(*_UPDATES)
