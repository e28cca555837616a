"""The models that a cell is about: those that could be made smaller for deployment."""

from __future__ import annotations

from tf_mem_magic.core.breakdown import mentions
from tf_mem_magic.core.facts import ModelFacts
from tf_mem_magic.core.recording import Recording


def deployable(recording: Recording) -> tuple[ModelFacts, ...]:
    """List the Keras models that the cell trained, then those it made, then those it only names."""
    facts, source = recording.facts, recording.cell.source
    trained = [m for m in facts.models if m.steps > (m.steps_before or 0)]
    made = [m for m in facts.models if m.is_new]
    named = [m for m in facts.models if mentions(source, m.name)]
    return tuple(dict.fromkeys((*trained, *made, *named)))
