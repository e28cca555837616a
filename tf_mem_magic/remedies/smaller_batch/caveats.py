"""What a smaller batch does to a training, beside the memory that it saves."""

from __future__ import annotations

from tf_mem_magic.notebook.batch.found import BatchFound
from tf_mem_magic.remedies._engine.question import Ask
from tf_mem_magic.remedies.smaller_batch.asked import STATEFUL, models_in


def caveats_of(ask: Ask, found: BatchFound) -> tuple[str, ...]:
    """List what training with a batch smaller than the one that is found changes."""
    facts = ask.facts
    text = ask.source
    caveats = [] if found.same_steps else ["Each epoch takes more steps."]
    models = models_in(facts, found)
    layers = {layer for m in models for layer in m.layers}
    if "BatchNormalization" in layers or (not layers and "BatchNormalization" in text):
        caveats.append("BatchNormalization computes its statistics from smaller batches.")
    if STATEFUL.search(text):
        caveats.append("A stateful layer goes on from the same row of the batch before: those rows are others now.")
    scheduled = any(m.schedule for m in models) or any(w in text for w in ("schedules.", "decay_steps"))
    if scheduled and not found.same_steps:
        caveats.append("The learning-rate schedule counts steps, so it moves on faster.")
    else:
        caveats.append("A smaller learning rate may suit it better.")
    if found.per_replica or "Strategy(" in text:
        caveats.append("Under a distribution strategy Keras splits the batch given to fit over the replicas.")
    return tuple(caveats)
